"""What a race knows, as frozen records: every setting's trials, who has left and why, and how far the race is."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from batchlab.engine.records import Curve, TrialResult
from batchlab.search.space import Branch, Setting

Numbers = NDArray[np.float64]
Why = Literal["behind", "diverged", "time"]


@dataclass(frozen=True)
class Left:
    """Why and after how many rows a setting left the race: its loss then, and the leader's after the rows
    that it had seen by then. Losses as training saw them."""

    why: Why
    rows: int
    loss: float
    leader: Setting
    leader_rows: int
    leader_loss: float


@dataclass(frozen=True)
class Entry:
    """One setting in the race: its trials, in the order of their draws, each as far as it went; `ended` where they may see no more rows."""

    setting: Setting
    trials: tuple[TrialResult, ...] = ()
    left: Left | None = None
    ended: bool = False

    @property
    def rows(self) -> int:
        """Rows that its trials have seen; where all diverged, until they did."""
        alive = [trial.rows_seen for trial in self.trials if trial.diverged_at is None]
        return min(alive or [trial.rows_seen for trial in self.trials], default=0)

    @property
    def steps(self) -> int:
        """Steps that its trials have made."""
        return min((trial.steps for trial in self.trials if trial.diverged_at is None), default=0)

    @property
    def diverged(self) -> bool:
        """Whether some trial diverged: a setting that does now and then is not one to train with."""
        return any(trial.diverged_at is not None for trial in self.trials)

    @cached_property
    def measured(self) -> "Measured | None":
        """What its curves come to; None before the first trial, and where one diverged."""
        return None if not self.trials or self.diverged else measured([trial.curve for trial in self.trials])

    @property
    def loss(self) -> float:
        """The level of its mean curve; infinite without one."""
        found = self.measured
        return math.inf if found is None else found.loss


@dataclass(frozen=True)
class Measured:
    """Curves of several draws at the same points: rows `[points]`, losses `[draws, points]` and, of the point where the mean over draws is
    lowest, its place and the losses of the portions of the validation rows `[draws, portions]`."""

    rows: Numbers
    losses: Numbers
    best: int
    portions: Numbers

    @property
    def mean(self) -> Numbers:
        """The mean curve over draws `[points]`."""
        return np.asarray(self.losses.mean(0))

    @property
    def best_rows(self) -> int:
        """Rows after which the mean over draws is lowest."""
        return int(self.rows[self.best])

    @property
    def at_best(self) -> Numbers:
        """Losses `[draws]` after `best_rows`."""
        return np.asarray(self.losses[:, self.best])

    @property
    def loss(self) -> float:
        """The mean loss after `best_rows`."""
        return float(self.at_best.mean())


NEAR_LOWEST = 1e-3
"""The first point of a mean curve within so much of its lowest counts as the lowest: rows are not spent on a thousandth."""


def measured(curves: Sequence[Curve]) -> Measured:
    """Return what the curves of one setting's draws come to, at the points of the one that has the fewest.

    Draws that came later, and batches that grow, were looked at after other rows; there losses are interpolated in logarithms of rows.
    """
    rows = np.asarray(min(curves, key=lambda curve: len(curve.rows_seen)).rows_seen, np.float64)
    losses = np.array([np.interp(np.log1p(rows), np.log1p(curve.rows_seen), curve.validation_loss) for curve in curves], np.float64)
    mean = losses.mean(0)
    lowest = mean.min() if np.isfinite(mean).all() else math.inf
    best = int(np.argmax(mean <= lowest * (1 + NEAR_LOWEST))) if math.isfinite(lowest) else len(rows) - 1
    places = [min(int(np.searchsorted(curve.rows_seen, rows[best])), len(curve.portions) - 1) for curve in curves]
    portions = np.array([curve.portions[place] for curve, place in zip(curves, places, strict=True)], np.float64)
    return Measured(rows, losses, best, portions)


@dataclass(frozen=True)
class Standings:
    """How a race stands: all entries, the share of a whole training that the last rung went to, how many rungs were judged, what a row
    costs each branch (seconds of one replica's row, stacked), what looking at a replica's losses and all else on a rung costs beside that
    (seconds), and what it has cost so far."""

    entries: Mapping[Setting, Entry] = field(default_factory=dict)
    share: float = 0.0
    looks: int = 0
    row_seconds: Mapping[Branch, float] = field(default_factory=dict)
    look_seconds: float = 0.0
    trainings: int = 0
    seconds: float = 0.0

    @property
    def running(self) -> tuple[Entry, ...]:
        """The entries that have not left."""
        return tuple(entry for entry in self.entries.values() if entry.left is None)

    @cached_property
    def losses(self) -> dict[Setting, float]:
        """Every setting's loss so far; infinite where it diverged or has not trained.

        Draws differ: with others' divisions a loss would be another. So one of fewer draws than the yardstick (of those with the most
        draws the one with the lowest loss) is taken as its ratio to that on the draws that both have.
        """
        alive = [entry for entry in self.entries.values() if math.isfinite(entry.loss)]
        yardstick = min(alive, key=lambda entry: (-len(entry.trials), entry.loss), default=None)
        found = dict.fromkeys(self.entries, math.inf)
        for entry in alive:
            assert yardstick is not None
            assert entry.measured is not None
            assert yardstick.measured is not None
            common = yardstick.measured.at_best[: len(entry.trials)].mean()
            found[entry.setting] = entry.loss * (yardstick.loss / common if common > 0 else 1.0)
        return found

    def raced(self, setting: Setting, budget_rows: int) -> float:
        """Return over what share of the budget a setting has raced; all of it for one that has not."""
        return self.entries[setting].rows / budget_rows if setting in self.entries else 1.0

    @property
    def leader(self) -> Entry | None:
        """The entry with the lowest loss; None while there is none."""
        best = min(self.losses, key=lambda setting: self.losses[setting], default=None)
        return None if best is None or not math.isfinite(self.losses[best]) else self.entries[best]

    def joined_by(self, settings: Iterable[Setting]) -> "Standings":
        """Return the standings with further settings in the race."""
        fresh = {setting: Entry(setting) for setting in settings if setting not in self.entries}
        return replace(self, entries={**self.entries, **fresh})

    def folded(self, trained: Mapping[Setting, Sequence[TrialResult]]) -> "Standings":
        """Return the standings with the settings' trials as far as they have now gone; those of further draws are added."""
        entries = dict(self.entries)
        more = 0
        for setting, trials in trained.items():
            known = {trial.trial: trial for trial in entries[setting].trials}
            more += sum(trial.trial not in known for trial in trials)
            known.update({trial.trial: trial for trial in trials})
            entries[setting] = replace(entries[setting], trials=tuple(known.values()))
        return replace(self, entries=entries, trainings=self.trainings + more)

    def ending(self, settings: Iterable[Setting]) -> "Standings":
        """Return the standings in which the trials of these settings may see no more rows: the plan ends them before the budget."""
        return replace(self, entries={**self.entries, **{item: replace(self.entries[item], ended=True) for item in settings}})

    def without(self, departures: Mapping[Setting, Left]) -> "Standings":
        """Return the standings after these have left; nobody needs their states and weights any more."""
        entries = dict(self.entries)
        for setting, left in departures.items():
            trials = tuple(replace(trial, state=None, weights={}) for trial in entries[setting].trials)
            entries[setting] = replace(entries[setting], left=left, trials=trials)
        return replace(self, entries=entries)
