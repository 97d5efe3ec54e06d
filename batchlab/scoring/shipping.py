"""The model that ships: raw columns in, prediction in the target's unit (or class probabilities) out."""

import dataclasses
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from batchlab.engine.backends.base import seeded_network
from batchlab.models import Model
from batchlab.networks.layout import Layout, tensors
from batchlab.rows.inputs import Inputs
from batchlab.rows.preparation import Preparation
from batchlab.serving.batchlab_serving import SEQUENCE, InSequence, PackedColumn

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Seen = Callable[[NDArray[np.integer]], NDArray[np.float32]]
"""Returns what a model sees of rows: `PackedTable.seen`."""
ROWS_AT_ONCE = 8192
GRAPH = "model.pt2"
EXPORT_ROWS = 2
"""torch.export fixes a dimension whose example has size 0 or 1, so its example has 2 rows and any number can be predicted."""


class ShippedModel(nn.Module):
    """A trained network with its own preparation inside; computes in float64 on the CPU whatever it was trained in.

    Maps packed columns `[rows, packed columns]` (where it sees several rows, those of all: `[rows, span × packed columns]`) to `[rows, 1]`
    in the target's unit, or to class probabilities `[rows, classes]`.
    """

    def __init__(self, network: nn.Module, preparation: Preparation, classification: bool, span: int = 1) -> None:
        super().__init__()
        self.span = span
        self.inputs, self.network, self.classification = Inputs(preparation), network, classification
        self.target_mean, self.target_scale, self.log_target = preparation.target_mean, preparation.target_scale, preparation.log_target

    def forward(self, packed: Tensor) -> Tensor:
        """Return the prediction `[rows, 1]`, or probabilities `[rows, classes]`, for packed columns `[rows, packed columns]`."""
        if self.span > 1:
            rows = packed.view(-1, self.span, packed.shape[1] // self.span)
            inputs = self.inputs(rows).flatten(1)
        else:
            inputs = self.inputs(packed)
        outputs: Tensor = self.network(inputs)
        if self.classification:
            return outputs.softmax(dim=-1)
        predictions = outputs * self.target_scale + self.target_mean
        return predictions.exp() if self.log_target else predictions


@torch.no_grad()
def predicted(model: nn.Module, seen: Seen, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return a shipped (or loaded) model's predictions for these rows, in portions: memory does not grow with them."""
    found = np.empty((len(rows), 0))
    for start in range(0, len(rows), ROWS_AT_ONCE):
        outputs = model(torch.from_numpy(seen(rows[start : start + ROWS_AT_ONCE]))).numpy()
        found = found if start else np.empty((len(rows), outputs.shape[1]), outputs.dtype)
        found[start : start + ROWS_AT_ONCE] = outputs
    return found


def shipped(
    model: Model,
    shape: tuple[int, int],
    weights: dict[str, NDArray[np.float64]],
    preparation: Preparation,
    classification: bool,
    span: int = 1,
) -> ShippedModel:
    """Return the model of (inputs, outputs) `shape` with trained `weights`, ready to predict."""
    network = seeded_network(model, shape, seed=0).double()
    with torch.no_grad():
        own = tensors(network)
        for name in Layout.of(network).shapes:
            own[name].copy_(torch.tensor(weights[name]))
    return ShippedModel(network, preparation, classification, span).eval()


def export(
    model: ShippedModel,
    columns: Collection[PackedColumn],
    folder: Path,
    program: "ExportedProgram | None" = None,
    sequence: InSequence | None = None,
) -> "ExportedProgram":
    """Write `model.pt2`, a torch.export archive that holds a graph and arrays, `columns.json`, which says how raw columns become packed
    ones, and of a model that sees several rows `sequence.json`, which says what rows. `batchlab.serving.graphs.opened` reads the archive
    without running anything; torch.export.load would run what others put in.

    Returns the program: given again, it spares another model of the same network and preparation the making of its graph.
    """
    if program is None:
        width = model.span * sum(len(column.packed_names) for column in columns)
        example = torch.zeros(EXPORT_ROWS, width, dtype=torch.float32)
        program = torch.export.export(model, (example,), dynamic_shapes=[{0: torch.export.Dim.AUTO}])
    program.state_dict.update({**dict(model.named_parameters()), **dict(model.named_buffers())})
    torch.export.save(program, folder / GRAPH)
    (folder / "columns.json").write_text(json.dumps([dataclasses.asdict(column) for column in columns], indent=1))
    if sequence is not None:
        (folder / SEQUENCE).write_text(json.dumps(dataclasses.asdict(sequence), indent=1))
    return program
