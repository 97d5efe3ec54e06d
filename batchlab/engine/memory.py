"""How much memory a training needs, predicted, so that a sweep that would not fit is cut into tiles instead of killed."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from batchlab import allowance
from batchlab.allowance import SHARE_OF_FREE
from batchlab.engine.backends.base import seeded_network
from batchlab.engine.backends.choice import uses_kernels
from batchlab.engine.backends.torch_stacked import evaluated_at_once
from batchlab.engine.data import TrainingData
from batchlab.engine.delivery import LOOKED_UP_BYTES, RUN_ROWS, longest_run, row_bytes
from batchlab.engine.records import SETTLED, Plan, Trial
from batchlab.engine.streams import Shape
from batchlab.errors import BadInput
from batchlab.models import Model
from batchlab.strategies import Strategy
from batchlab.strategies.streaming import Streaming


@dataclass(frozen=True)
class Footprint:
    """Predicted peak bytes of a training beyond the rows themselves: what does not grow with replicas, what each of them adds, and what
    each seed adds: an order of its own and, streamed from files, buffers of its own."""

    fixed: int
    per_replica: int
    per_seed: int = 0

    def of(self, replicas: int, seeds: int = 1) -> int:
        return self.fixed + replicas * self.per_replica + seeds * self.per_seed

    def fitting(self, free: int, replicas: int, seeds: int) -> int:
        """Return how many of the replicas fit together, whichever `seeds` they have."""
        left = free - self.fixed
        all_apart = left // (self.per_replica + self.per_seed)
        most = (left - seeds * self.per_seed) // self.per_replica if all_apart >= seeds else all_apart
        return max(1, min(replicas, most))


def replicas_that_fit(
    data: TrainingData,
    model: Model,
    strategy: Strategy,
    trials: Sequence[Trial],
    plan: Plan,
    device: torch.device,
    memory_bytes: int | None,
) -> int:
    """Return how many of the `trials` to train together; raises BadInput where not even one fits."""
    free = min(_free_for(data, device), memory_bytes or sys.maxsize)
    predicted = footprint(data, model, strategy, plan, device)
    if predicted.of(1) > free:
        raise BadInput(
            f"one replica of {model.kind} needs about {predicted.of(1) / 2**30:.2f} GiB with steps of "
            f"{strategy.rows_per_step(data.population.row_count)} rows, and {free / 2**30:.2f} GiB may be used; "
            "use smaller batches, the accumulated strategy with smaller portions, or streaming with a smaller buffer, or allow more "
            "(memory_gib)."
        )
    return predicted.fitting(free, len(trials), len({(trial.seed, trial.division) for trial in trials}))


def _free_for(data: TrainingData, device: torch.device) -> int:
    free = int(SHARE_OF_FREE * free_bytes(device))
    return free if data.memory_bytes is None or device.type != "cpu" else min(free, data.memory_bytes)


def footprint(data: TrainingData, model: Model, strategy: Strategy, plan: Plan, device: torch.device) -> Footprint:
    """Predict from the number of weights and their copies and, for torch, from what a row leaves for the backward pass.

    The kernels leave nothing: they take blocks that fit the cache.
    """
    network = seeded_network(model, (data.features.shape[1], data.output_count), 0)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    number, per_seed = data.features.element_size(), bytes_per_seed(data, strategy)
    held = (SETTLED + 1 if plan.keep == "settled" else 0) + plan.averaging
    looked_up = 0 if data.stored is None or isinstance(strategy, Streaming) else LOOKED_UP_BYTES
    if uses_kernels(model, plan, device, strategy.rows_per_step(data.population.row_count)):
        # current and previous, the optimizer's, the average, the kept and two copies at an evaluation; initial ones; results in float64
        return Footprint(looked_up, parameters * (number * (5 + plan.rule.slots + held) + 4 + 8), per_seed)
    # current, gradient, its part, updated, the optimizer's temporaries; the kept, initial and results as above
    of_weights = parameters * (number * (10 + 2 * plan.rule.slots + held) + 4 + 8)
    of_row = saved_bytes_per_row(network, data.features[:2].float()) * number // 4
    portion = strategy.rows_per_portion(data.population.row_count)
    evaluated = evaluated_at_once(data.features.shape[1], device)
    return Footprint(looked_up + evaluated * of_row, of_weights + 2 * portion * of_row, per_seed)


def bytes_per_seed(data: TrainingData, strategy: Strategy) -> int:
    """Return the bytes of one seed's order of rows and, where they are streamed from files, of the buffers that it is read into."""
    count = data.population.row_count
    order = 2 * strategy.rows_per_piece(count) * (4 if count < 2**31 else 8)
    if data.stored is None or not isinstance(strategy, Streaming):
        return order
    shape = Shape.of(strategy, count, longest_run(strategy, data.population, RUN_ROWS))
    return order + shape.used_rows * row_bytes(data)


def saved_bytes_per_row(network: torch.nn.Module, rows: Tensor) -> int:
    """Return the bytes that one float32 row keeps alive for the backward pass, as autograd saves them; the row itself included."""
    sizes = {rows.data_ptr(): rows.nbytes}

    def seen(tensor: Tensor) -> Tensor:
        if tensor.ndim and tensor.shape[0] == len(rows):
            sizes[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(seen, lambda tensor: tensor):
        network(rows).sum()
    return sum(sizes.values()) // len(rows)


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free on the device; on a CPU within this process's control group."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else allowance.free_bytes()
