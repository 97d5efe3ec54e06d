"""Peak memory of each setting, and the largest batch that would fit."""

import contextlib
import ctypes
import gc
from collections.abc import Sequence
from pathlib import Path

from batchlab.allowance import SHARE_OF_FREE
from batchlab.engine.data import TrainingData
from batchlab.engine.loop import train
from batchlab.engine.memory import footprint, free_bytes
from batchlab.engine.records import Plan, Trial
from batchlab.experiment import Experiment
from batchlab.search.space import Candidate
from batchlab.strategies.mini_batch import MiniBatch

STEPS, TIMES = 3, 3
HARMLESS_RATE = 1e-9
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peaks(experiment: Experiment, candidates: Sequence[Candidate], plan: Plan) -> list[list[int]]:
    """Return the peaks of a few steps of every candidate, in bytes, measured in this process."""
    data = experiment.data.thinned(1, 1, 0)
    found: dict[int, list[int]] = {}
    ascending = sorted(range(len(candidates)), key=lambda place: candidates[place].batch_rows)
    _trained(experiment, data, candidates[ascending[0]], plan)  # loads what is loaded once
    gc.freeze()  # what there is now need not be looked through again
    for place in ascending:
        _trained(experiment, data, candidates[place], plan)  # and what this one is the first to load
        found[place] = [_peak(experiment, data, candidates[place], plan) for _ in range(TIMES)]
    return [found[place] for place in range(len(candidates))]


def _peak(experiment: Experiment, data: TrainingData, candidate: Candidate, plan: Plan) -> int:
    """Return the bytes that the rows and a training take at its peak."""
    held = rows_bytes(data)
    if experiment.device.type == "cuda":
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        _trained(experiment, data, candidate, plan)
        return int(torch.cuda.max_memory_allocated())
    if not RESET.exists():  # no mark to reset on this system: what the engine plans with
        return held + footprint(data, experiment.model, candidate.strategy, plan, experiment.device).of(1)
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    RESET.write_text("5")
    before = _resident("VmRSS")
    _trained(experiment, data, candidate, plan)
    return held + max(0, _resident("VmHWM") - before)


def _trained(experiment: Experiment, data: TrainingData, candidate: Candidate, plan: Plan) -> None:
    changes = {"max_steps": STEPS, "evaluations": 1, "spacing": "even", "patience": None, "optimizer": candidate.optimizer}
    trial = Trial(HARMLESS_RATE, 0)
    limited = plan.model_copy(update=changes)
    train(data, experiment.model, candidate.strategy, [trial], limited, experiment.loss, experiment.device, weights=False)


def _resident(field: str) -> int:
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def rows_bytes(data: TrainingData) -> int:
    """Return the bytes of the training rows in memory: none where they stay in files."""
    return 0 if data.stored is not None else int(data.features.untyped_storage().nbytes() + data.target.nbytes)


def memory_ceiling(experiment: Experiment, data: TrainingData) -> int:
    """Return the largest batch, in rows, that one training could hold on this device with what is free now, rows included."""
    profile, device = experiment.profile, experiment.device
    count = data.population.row_count
    small, large = max(1, count // 4), count
    few, many = (footprint(data, experiment.model, MiniBatch(batch_rows=rows), profile.train, device).of(1) for rows in (small, large))
    a_row = data.features[:1].nbytes + data.target[:1].nbytes
    per_row = a_row + data.features.element_size() + max(0.0, (many - few) / max(1, large - small))
    free = int(SHARE_OF_FREE * free_bytes(device))
    if data.memory_bytes is not None and device.type == "cpu":
        free = min(free, data.memory_bytes)
    return int((free + rows_bytes(data)) / per_row)
