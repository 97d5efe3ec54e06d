"""The gate's decision as a value with its evidence and reasons."""

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from batchlab.records import Result

Decision = Literal["first", "promoted", "kept"]

NEEDED = {"finite"}
"""Guards without which nothing is promoted."""


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Measured = Annotated[float | None, BeforeValidator(_finite_or_none)]
"""A number; None where it was not finite or could not be measured."""


class Guard(Result):
    """One condition that a challenger has to meet; `value` may be at most `limit` (at least, for `rows`), and `said` says it in words."""

    name: str
    passed: bool
    value: Measured = None
    limit: Measured = None
    said: str


class Slice(Result):
    """Mean losses on some of the holdout rows; `p_value`, corrected for their number, is small where the challenger is surely worse."""

    name: str
    rows: int
    champion_loss: Measured
    challenger_loss: Measured
    p_value: float

    @property
    def harm(self) -> float:
        """By how much of the champion's loss the challenger's is higher; negative where it fell."""
        before, after = (math.nan if loss is None else loss for loss in (self.champion_loss, self.challenger_loss))
        return relative_rise(before, after)


def relative_rise(before: float, after: float) -> float:
    """Return after / before − 1: infinite where it rose from nothing, −1 where `before` was not finite."""
    if not math.isfinite(before):
        return -1.0
    if before <= 0:
        return 0.0 if after == before else math.inf
    return after / before - 1


class Promotion(Result):
    """What the gate decided: `first` where there was no champion, `promoted`, or `kept`, and why.

    `improvement` is 1 − challenger's / champion's mean holdout loss, with an interval whose ends are each surpassed with probability
    1 − `confidence`: over the holdout rows, in blocks of time, and over the seeds of training (`seed_scatter`: by how much the mean loss
    of what ships would scatter with other seeds, over the champion's). Losses are in the target's unit, squared for MSE; `constant_loss`
    is that of always predicting the training rows' mean. What is not finite is None. One that promotes cannot be made with a failed
    guard, a loss that is not finite, an improvement below `minimum_effect`, or an interval that reaches 0.
    """

    decision: Decision
    champion: int | None
    challenger: int | None
    improvement: Measured
    interval: tuple[Measured, Measured]
    confidence: float
    minimum_effect: float
    holdout_rows: int
    champion_loss: Measured
    challenger_loss: Measured
    constant_loss: Measured = None
    seed_losses: tuple[Measured, ...]
    seed_scatter: Measured = None
    champion_calibration: Measured = None
    challenger_calibration: Measured = None
    guards: tuple[Guard, ...]
    slices: tuple[Slice, ...] = ()
    reasons: tuple[str, ...] = Field(min_length=1)

    @property
    def wins(self) -> bool:
        """Whether the challenger becomes champion."""
        return self.decision != "kept"

    @property
    def failed(self) -> tuple[Guard, ...]:
        """The guards that failed."""
        return tuple(guard for guard in self.guards if not guard.passed)

    @property
    def text(self) -> str:
        """The decision, its first reason, and which other guards failed, for people."""
        head = {"first": "The first champion.", "promoted": "The challenger is promoted.", "kept": "The champion is kept."}[self.decision]
        if self.decision == "kept" and self.champion is None and self.champion_loss is None:
            head = "There is still no champion."
        others = [guard.name for guard in self.failed if guard.said != self.reasons[0]]
        more = f" Not met either: {', '.join(others)}." if others else ""
        return f"{head} {self.reasons[0]}{more}"

    @model_validator(mode="after")
    def _promote_nothing_without_evidence(self) -> "Promotion":
        if not self.wins:
            return self
        wrong = [f"guard '{guard.name}' failed" for guard in self.failed]
        wrong += [f"guard '{name}' was not asked" for name in sorted(NEEDED - {guard.name for guard in self.guards})]
        if self.challenger_loss is None or None in self.seed_losses or not self.seed_losses:
            wrong.append("a loss of the challenger is not finite")
        if self.decision == "promoted":
            wrong += self._lacking_evidence()
        elif self.champion is not None or self.champion_loss is not None:
            wrong.append("there was a champion before the first one")
        if wrong:
            raise ValueError(f"'{self.decision}' cannot be said: {'; '.join(wrong)}.")
        return self

    def _lacking_evidence(self) -> list[str]:
        low, wrong = self.interval[0], []
        if self.improvement is None or self.improvement < self.minimum_effect or self.improvement <= 0:
            wrong.append(f"the improvement is {self.improvement}, not {self.minimum_effect} or more")
        if low is None or low <= 0:
            wrong.append(f"the improvement's interval begins at {low}, not above 0")
        return wrong
