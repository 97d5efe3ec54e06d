"""Which backend runs a training."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from batchlab.engine.backends.base import Backend
from batchlab.engine.embedding import EmbeddedMlp
from batchlab.engine.losses import Loss, is_own
from batchlab.engine.records import Plan, Trial
from batchlab.errors import BadInput
from batchlab.models import Model
from batchlab.models.linear import Linear
from batchlab.models.mlp import Mlp
from batchlab.strategies import Strategy

if TYPE_CHECKING:
    from batchlab.engine.data import TrainingData

WIDE = 1024
"""Where every hidden layer is this wide and a step has this many rows, torch's products on all cores are ahead: see docs/adr/0007."""


def uses_kernels(model: Model, plan: Plan, device: torch.device, step_rows: int) -> bool:
    """Whether the CPU kernels run this training; raises BadInput where the plan asks for them and they cannot."""
    known = isinstance(model, Linear | Mlp) and not isinstance(model, EmbeddedMlp) and not is_own(plan.loss)
    can = device.type == "cpu" and known and plan.precision in ("float32", "float64") and plan.processes == 1
    what = f"{model.kind} with embeddings" if isinstance(model, EmbeddedMlp) else model.kind
    what += " with a loss of your own" if is_own(plan.loss) else ""
    if plan.backend == "kernels" and not can:
        raise BadInput(
            f"train.backend 'kernels' runs linear and mlp on the CPU in float32 or float64 in one process, not {what} on {device.type} in "
            f"{plan.precision}{'' if plan.processes == 1 else f' over {plan.processes} processes'}; use train.backend=auto."
        )
    wide = isinstance(model, Mlp) and min(*model.widths, step_rows) >= WIDE
    return can and (plan.backend == "kernels" or (plan.backend == "auto" and not wide))


def made_ready(model: Model, plan: Plan, device: torch.device) -> None:
    """Compile the kernels, or load them, where trainings run on them: compiling takes longer than a whole search may."""
    if uses_kernels(model, plan, device, step_rows=1):
        from batchlab.engine.backends.numba_cpu import warm

        warm("float64" if plan.precision == "float64" else "float32")


def chosen_backend(
    data: "TrainingData", model: Model, strategy: Strategy, trials: Sequence[Trial], plan: Plan, loss: Loss, device: torch.device
) -> Backend:
    """Return the backend for these trials, at its first step: the kernels where they can run it and are ahead, else torch."""
    shape = (data.features.shape[1], data.output_count)
    if uses_kernels(model, plan, device, strategy.rows_per_step(data.population.row_count)) and isinstance(model, Linear | Mlp):
        from batchlab.engine.backends.numba_cpu import NumbaCpu

        return NumbaCpu(model, shape, loss, plan, trials, data)
    from batchlab.engine.backends.torch_stacked import TorchStacked

    return TorchStacked(model, shape, loss, plan, trials, data, device)
