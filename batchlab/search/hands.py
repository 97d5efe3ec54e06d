"""Who trains: stacks of trials are handed out, and what came of them comes back, in any order."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from batchlab.engine.data import TrainingData
from batchlab.engine.halts import Keeper
from batchlab.engine.loop import train
from batchlab.engine.losses import Loss
from batchlab.engine.records import Plan, Progress, Trial, TrialResult, TrialState
from batchlab.models import Model
from batchlab.search.space import Setting

SecondsLeft = Callable[[], float]
"""Returns the seconds until trainings are to end where they are; infinitely many where nothing ends them."""
Tell = Callable[[str, Progress], None]
Trains = Callable[..., list[TrialResult]]
"""Trains as `engine.loop.train` does, here or elsewhere."""


@dataclass(frozen=True)
class Stack:
    """Trials of one strategy and optimizer that train together: how their `setting` updates, looked at when they have first seen the rows
    of `marks`. They end at the last of these, and go on from where they have `begun`; with `states` others can go on from them."""

    setting: Setting
    trials: tuple[Trial, ...]
    marks: NDArray[np.float64]
    begun: tuple[TrialState, ...] = ()
    states: bool = False

    def parts(self, count: int) -> "list[Stack]":
        """Return the same trials in so many stacks, or one for each trial where they are fewer: their numbers stay the same."""
        cuts = [part.tolist() for part in np.array_split(np.arange(len(self.trials)), count) if len(part)]
        begun = self.begun or [()] * len(self.trials)
        return [
            replace(self, trials=tuple(self.trials[place] for place in cut), begun=tuple(begun[place] for place in cut if self.begun))
            for cut in cuts
        ]


@dataclass(frozen=True)
class Trained:
    """What came of a stack: its trials' results in their order; the seconds that all of it took where it was trained, looks included, and
    those of training alone; and the seconds that a row of one trial took, None where none was seen."""

    results: list[TrialResult]
    seconds: float
    train_seconds: float
    row_seconds: float | None

    @classmethod
    def joined(cls, parts: "Sequence[Trained]") -> "Trained":
        """Return what came of a stack that was trained in these parts."""
        costs = [part.row_seconds for part in parts if part.row_seconds is not None]
        results = [result for part in parts for result in part.results]
        seconds, training = sum(part.seconds for part in parts), sum(part.train_seconds for part in parts)
        return cls(results, seconds, training, float(np.mean(costs)) if costs else None)


Handed = Iterator[tuple[int, Trained]]
"""Numbers of stacks, with what came of each."""


@dataclass(frozen=True)
class Bench:
    """What trainings need wherever they happen: the network, the loss, the device, the plan and the rows."""

    model: Model
    loss: Loss
    device: torch.device
    plan: Plan
    data: TrainingData

    def trained(
        self,
        stack: Stack,
        seconds_left: SecondsLeft,
        tell: Tell = lambda said, progress: None,
        keeper: Keeper | None = None,
        trains: Trains = train,
    ) -> Trained:
        """Train a stack; where time is over it ends between two runs of steps."""
        began, setting = time.perf_counter(), stack.setting
        results = trains(
            self.data,
            self.model,
            setting.updates,
            stack.trials,
            self.plan.model_copy(update={"optimizer": setting.optimizer, "patience": None, "keep": "last"}),
            self.loss,
            self.device,
            lambda progress: tell(said(setting), progress),
            begun=stack.begun or None,
            marks=stack.marks,
            states=stack.states,
            should_stop=lambda: seconds_left() <= 0,
            keeper=keeper,
        )
        before = stack.begun[0].rows_seen if stack.begun else 0
        rows = sum(max(0, result.rows_seen - before) for result in results)
        seconds = time.perf_counter() - began
        return Trained(results, seconds, results[0].train_seconds, _row_seconds(results) if rows else None)


class Hands(Protocol):
    """Trains stacks, `count` of them at a time. `note` says where, for people; empty for this process."""

    count: int
    note: str

    @property
    def train(self) -> Trains:
        """What a single training is timed with."""

    def trained(self, bench: Bench, stacks: Sequence[Stack], seconds_left: SecondsLeft, tell: Tell, keeper: Keeper | None) -> Handed:
        """Yield the number of each stack with what came of it, as soon as it is there, until time is over."""

    def close(self) -> None:
        """Give back what was taken for it."""


class Here:
    """Trains one stack after the other in this process, in their order."""

    count, note = 1, ""
    train: Trains = staticmethod(train)

    def trained(self, bench: Bench, stacks: Sequence[Stack], seconds_left: SecondsLeft, tell: Tell, keeper: Keeper | None) -> Handed:
        for number, stack in enumerate(stacks):
            if seconds_left() <= 0:
                return
            yield number, bench.trained(stack, seconds_left, tell, keeper)

    def close(self) -> None:
        pass


def said(setting: Setting) -> str:
    """Return the setting in a few words."""
    size = getattr(setting.updates, "batch_rows", "")
    return f"{setting.updates.kind} {size} {setting.optimizer.kind} {setting.learning_rate:g}".replace("  ", " ")


def _row_seconds(results: Sequence[TrialResult]) -> float | None:
    """Return what a row of one trial cost over the last stretch between two looks: before, loading kernels may have counted as training."""
    curve = max((result.curve for result in results), key=lambda curve: curve.rows_seen[-1])
    if len(curve.rows_seen) < 2:
        return None
    rows = curve.rows_seen[-1] - curve.rows_seen[-2]
    return (curve.wall_seconds[-1] - curve.wall_seconds[-2]) / (rows * len(results))
