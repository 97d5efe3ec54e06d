"""Where trainings that are under way stand, kept now and then, so that one that was killed goes on as if nothing had happened."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from batchlab.engine.records import Plan, Trial, TrialState
from batchlab.strategies import Strategy


@dataclass(frozen=True)
class Halt:
    """Where trials that train together stand, and what their recorder holds beside their states: the seconds trained since the last
    evaluation; the points `[trials]` of their curves whose weights `[trials, parameters]` are kept, and the losses that these had; and the
    latest weights `[evaluations, trials, parameters]` and validation losses `[evaluations, trials]`, where the best mean of several is
    kept."""

    states: Sequence[TrialState]
    seconds: float
    kept: NDArray[np.int64]
    kept_loss: NDArray[np.float64]
    kept_weights: NDArray[np.floating]
    latest_weights: NDArray[np.floating]
    latest_losses: NDArray[np.float64]


class Keeper(Protocol):
    """Keeps halts, each under the name of its training."""

    def found(self, name: str) -> Halt | None:
        """Return where a training of this name was when it was killed; None where there was none."""

    def due(self) -> bool:
        """Whether it is time to keep where trainings stand."""

    def keep(self, name: str, halt: Halt) -> None:
        """Keep where a training stands."""

    def ended(self, name: str, halt: Halt) -> None:
        """Keep, when it is due, that a training stands at its end: others may follow before what came of it is written elsewhere."""


def name_of(
    strategy: Strategy, rows: int, trials: Sequence[Trial], plan: Plan, marks: Iterable[float], begun: Sequence[TrialState] | None
) -> str:
    """Return a name that stretches of training on the same table share only if their numbers are the same: steps, how many rows train,
    trials, plan, marks, and beginning."""
    parts = [
        rows,
        type(strategy).__name__,
        strategy.model_dump_json(),
        [[trial.learning_rate, trial.seed, trial.division, _digest(trial)] for trial in trials],
        plan.model_dump_json(),
        [float(mark) for mark in marks],
        [] if begun is None else [[state.steps, state.rows_seen] for state in begun],
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _digest(trial: Trial) -> str:
    """Return a digest of the weights that a trial starts from, where they are given."""
    found = hashlib.sha256()
    for name, values in (trial.start or {}).items():
        found.update(name.encode() + np.ascontiguousarray(values).tobytes())
    return found.hexdigest()
