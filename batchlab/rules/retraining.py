"""What decides a retraining: the gate's demands, what counts as drift, when a comparison is stale, and how the challenger trains."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from batchlab.records import Record


class GateRule(Record):
    """What a challenger has to show before it takes the champion's place.

    It is promoted when it is surely better (one-sided `confidence`, over holdout rows and over the seeds of training) on at least
    `fewest_rows` holdout rows, its mean loss is lower by at least `minimum_effect` of the champion's, and no guard fails: no slice of the
    holdout (`periods` equal stretches of it, and the values of column `by`) is surely worse and worse by more than `largest_harm`; its
    calibration error is at most `largest_calibration_rise` above the champion's; it takes at most `largest_latency_ratio` times as long
    and is at most `largest_size_ratio` times as large; an update forgets at most `largest_forgetting` of the loss on the old holdout;
    and at most `largest_quarantined` of the fresh rows were unusable. `on_drift` says whether drift is told or keeps the champion.
    """

    minimum_effect: float = Field(0.01, ge=0, lt=1)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    fewest_rows: int = Field(100, ge=10)
    periods: int = Field(4, ge=1, le=100)
    by: str | None = None
    largest_harm: float = Field(0.1, ge=0)
    largest_calibration_rise: float = Field(0.02, ge=0)
    largest_latency_ratio: float = Field(2.0, ge=1)
    largest_size_ratio: float = Field(3.0, ge=1)
    largest_forgetting: float = Field(0.1, ge=0)
    largest_quarantined: float = Field(0.05, ge=0, le=1)
    on_drift: Literal["tell", "keep"] = "tell"


class DriftRule(Record):
    """When a column has drifted: its test is significant at `alpha` after correction for many columns, and its population stability
    index is `largest_psi` or more. Of more than `most_rows` rows a side a random sample is looked at."""

    largest_psi: PositiveFloat = 0.25
    alpha: float = Field(0.001, gt=0, lt=1)
    most_rows: int = Field(50_000, ge=1000)


class StaleRule(Record):
    """When the recommended setting needs a new comparison: with `growth` times the training rows that the last one had, after `drift`,
    or on other `hardware`."""

    growth: float = Field(2.0, gt=1)
    drift: bool = True
    hardware: bool = True


class RetrainingRule(Record):
    """How a champion is kept retrained.

    Fewer fresh rows than `fewest_fresh`, or than `gate.fewest_rows` to judge by, wait for more; rows may be dated at most `days_ahead`
    after now. Of the fresh rows the latest `holdout` judge champion and challenger, the others train, with `validation` of the training
    rows to choose by. `seeds` trainings with different seeds are made, of which the one with the lowest validation loss ships. `start`
    says what they start from: from `scratch`, `warm` from the champion's weights, or from what is better on the validation rows when both
    are tried (`measure`), the latter also on the latest rows alone. An update takes `replay` old rows for each new one.
    `search.max_minutes` bounds the comparison that a stale recommendation starts.
    """

    gate: GateRule = GateRule()
    drift: DriftRule = DriftRule()
    stale: StaleRule = StaleRule()
    holdout: float = Field(0.5, gt=0, lt=1)
    validation: float = Field(0.15, gt=0, lt=1)
    fewest_fresh: PositiveInt = 200
    days_ahead: float = Field(1.0, ge=0, le=1e6)
    seeds: int = Field(8, ge=2)
    start: Literal["measure", "scratch", "warm"] = "measure"
    replay: float = Field(1.0, ge=0)
