"""The model that ships: raw columns in, prediction in the target's unit (or class probabilities) out."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from batchlab.engine.backends.base import seeded_network
from batchlab.engine.data import Scaling
from batchlab.models import Model

ROWS_AT_ONCE = 8192
EXPORT_ROWS = 2
"""torch.export fixes a dimension whose example has size 0 or 1, so its example has 2 rows and any number can be predicted."""


class ShippedModel(nn.Module):
    """A trained network with its own scaling inside; computes in float64 on the CPU whatever it was trained in.

    Maps raw features `[rows, features]` to `[rows, 1]` in the target's unit, or to class probabilities `[rows, classes]`.
    """

    def __init__(self, network: nn.Module, scaling: Scaling, classification: bool) -> None:
        super().__init__()
        self.network = network
        self.classification = classification
        self.target_mean, self.target_scale = scaling.target_mean, scaling.target_scale
        self.feature_mean: Tensor
        self.feature_scale: Tensor
        self.register_buffer("feature_mean", torch.tensor(scaling.feature_mean))
        self.register_buffer("feature_scale", torch.tensor(scaling.feature_scale))

    def forward(self, raw: Tensor) -> Tensor:
        """Return the prediction `[rows, 1]`, or probabilities `[rows, classes]`, for raw features `[rows, features]`."""
        outputs: Tensor = self.network((raw.double() - self.feature_mean) / self.feature_scale)
        return outputs.softmax(dim=-1) if self.classification else outputs * self.target_scale + self.target_mean


@torch.no_grad()
def predicted(model: nn.Module, features: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return a shipped (or loaded) model's predictions for `rows` of raw `features`, in portions: memory does not grow with them."""
    portions = [rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE)]
    return np.concatenate([model(torch.from_numpy(features[portion])).numpy() for portion in portions])


def shipped(
    model: Model, shape: tuple[int, int], weights: dict[str, NDArray[np.float64]], scaling: Scaling, classification: bool
) -> ShippedModel:
    """Return the model of (features, outputs) `shape` with trained `weights`, ready to predict."""
    network = seeded_network(model, shape, seed=0).double()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.tensor(weights[name]))
    return ShippedModel(network, scaling, classification).eval()


def export(model: ShippedModel, folder: Path) -> Path:
    """Write the model as a torch.export archive, `model.pt2`, which holds a graph and arrays and runs no code when loaded."""
    example = torch.zeros(EXPORT_ROWS, len(model.feature_mean), dtype=torch.float32)
    program = torch.export.export(model, (example,), dynamic_shapes=[{0: torch.export.Dim.AUTO}])
    path = folder / "model.pt2"
    torch.export.save(program, path)
    return path
