from collections.abc import Mapping
from math import ceil, log2
from typing import TYPE_CHECKING, Literal

from pydantic import PositiveInt

from batchlab.errors import BadInput
from batchlab.models.base import Model
from batchlab.networks.activations import ACTIVATIONS, ActivationName

if TYPE_CHECKING:
    from torch import Tensor, nn


class Tcn(Model):
    """A temporal convolutional network (Bai et al. 2018) for windows of rows: causal convolutions over two moments each, dilated by 1, 2,
    4, … until the whole window is seen, of so many `channels`."""

    kind: Literal["tcn"] = "tcn"
    channels: PositiveInt = 32
    activation: ActivationName = "relu"

    def for_windows(self, rows: int, columns: int) -> "WindowTcn":
        if rows == 1:
            raise BadInput("model.kind tcn is for windows of rows; say how many with --window (columns.window.rows), or use mlp.")
        return WindowTcn(**self.model_dump(), moments=rows)

    def network(self, features: int, outputs: int) -> "nn.Module":
        return self.for_windows(1, features).network(features, outputs)


class WindowTcn(Tcn):
    """The network of windows of so many `moments`: what a `Tcn` becomes, which no profile names.

    Only the last moment's output is wanted, so each layer joins neighbouring moments and leaves half as many. A window that is no power
    of two begins with moments of zeros.
    """

    kind: Literal["tcn"]
    moments: PositiveInt

    def network(self, features: int, outputs: int) -> "nn.Module":
        from torch import nn

        depth, columns = ceil(log2(self.moments)), features // self.moments
        moments = 2**depth
        layers: list[nn.Module] = [nn.Unflatten(1, (self.moments, columns))]
        if moments > self.moments:
            layers.append(nn.ZeroPad2d((0, 0, moments - self.moments, 0)))
        for layer in range(depth):
            moments, width = moments // 2, columns if layer == 0 else self.channels
            layers += [nn.Flatten(1), nn.Unflatten(1, (moments, 2 * width)), nn.Linear(2 * width, self.channels)]
            layers.append(getattr(nn, ACTIVATIONS[self.activation].layer)())
        return nn.Sequential(*layers, nn.Flatten(1), nn.Linear(self.channels, outputs))

    def stacked(self, network: "nn.Module", weights: "Mapping[str, Tensor]", rows: "Tensor") -> "Tensor":
        from torch import nn

        assert isinstance(network, nn.Sequential)
        count = rows.shape[1]
        for position, layer in enumerate(network):
            if isinstance(layer, nn.Linear):
                bias = weights[f"{position}.bias"].unsqueeze(1)
                rows = bias.baddbmm(rows.reshape(len(rows), -1, layer.in_features), weights[f"{position}.weight"].transpose(1, 2))
            elif isinstance(layer, nn.ZeroPad2d):
                rows = layer(rows.reshape(len(rows), count, self.moments, -1))
            elif not isinstance(layer, nn.Flatten | nn.Unflatten):  # these only say how the numbers are seen
                rows = layer(rows)
        return rows
