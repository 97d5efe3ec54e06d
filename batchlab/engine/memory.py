"""How much memory a training needs, predicted, so that a sweep that would not fit is cut into tiles instead of killed."""

from pathlib import Path

import psutil
import torch
from torch import Tensor

from batchlab.engine.backends.base import seeded_network
from batchlab.engine.backends.choice import uses_kernels
from batchlab.engine.data import TrainingData
from batchlab.engine.records import Plan
from batchlab.errors import BadInput
from batchlab.models import Model
from batchlab.strategies import Strategy

SHARE_OF_FREE = 0.8
"""Of the memory that is free when a training starts, it plans to use this much."""


def replicas_that_fit(
    data: TrainingData, model: Model, strategy: Strategy, trials: int, plan: Plan, device: torch.device, memory_bytes: int | None
) -> int:
    """Return how many of the `trials` to train together; raises BadInput where not even one fits."""
    free = int(SHARE_OF_FREE * free_bytes(device)) if memory_bytes is None else memory_bytes
    needed = bytes_per_replica(data, model, strategy, plan, device)
    if needed > free:
        raise BadInput(
            f"one replica of {model.kind} needs about {needed / 2**30:.2f} GiB with steps of "
            f"{strategy.rows_per_step(data.population.row_count)} rows, and {free / 2**30:.2f} GiB may be used; "
            "use smaller batches, or the accumulated strategy with smaller portions."
        )
    return min(trials, free // needed)


def bytes_per_replica(data: TrainingData, model: Model, strategy: Strategy, plan: Plan, device: torch.device) -> int:
    """Return the predicted peak bytes that each replica adds: weights and their copies, and what a micro-batch leaves for the backward
    pass (nothing in the kernels, which take blocks that fit the cache)."""
    network = seeded_network(model, (data.features.shape[1], data.output_count), 0)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    number = data.features.element_size()
    if uses_kernels(model, plan, device):
        # current and previous, the optimizer's, the kept and two copies at an evaluation; initial ones; results in float64
        return parameters * (number * (5 + plan.optimizer.slots) + 4 + 8)
    portion = largest_portion(strategy, data)
    # current, gradient, its part, updated, the optimizer's temporaries; the kept, initial and results as above
    of_weights = parameters * (number * (10 + 2 * plan.optimizer.slots) + 4 + 8)
    return of_weights + portion * saved_bytes_per_row(network, data.features[:2].float()) * number // 4


def largest_portion(strategy: Strategy, data: TrainingData) -> int:
    """Return the rows of the largest micro-batch."""
    portions = strategy.order(data.population, 0, 0).portions
    return int(max(portions[0], (portions[1:] - portions[:-1]).max(initial=0)))


def saved_bytes_per_row(network: torch.nn.Module, rows: Tensor) -> int:
    """Return the bytes that one float32 row keeps alive in a forward and backward pass: what autograd saves, thrice for what it makes."""
    sizes = []

    def seen(tensor: Tensor) -> Tensor:
        if tensor.ndim and tensor.shape[0] == len(rows):
            sizes.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(seen, lambda tensor: tensor):
        network(rows).sum()
    return 3 * sum(sizes) // len(rows) + rows.shape[1] * 4


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free on the device; on a CPU within this process's control group."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min([psutil.virtual_memory().available, *_free_in_control_group()])


def _free_in_control_group() -> list[int]:
    folder = Path("/sys/fs/cgroup")
    try:
        return [int((folder / "memory.max").read_text()) - int((folder / "memory.current").read_text())]
    except (OSError, ValueError):  # no such group, or no limit ("max")
        return []
