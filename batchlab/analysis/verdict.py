"""The verdict: which setting to train with. Loss comes first, cost second; compared pair by pair. Pure functions."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import special

from batchlab.analysis.estimates import CONFIDENCE, Estimate, LogMean, Spread, log_mean, ratio
from batchlab.analysis.objectives import Objective
from batchlab.analysis.paired import LARGEST, Difference, Sample, differences, variance_over_rows
from batchlab.records import Result

Status = Literal["reached", "not_reached", "behind", "diverged"]
Numbers = NDArray[np.float64]

PAIR_CONFIDENCE = 0.975
"""The verdict makes two comparisons, with the runner-up and with full batch, so each has half of the 5% (Bonferroni)."""
NEGLIGIBLE = 1e-4
"""A loss that is higher by less than this is not worse, however surely it is higher."""
CHEAP_SECONDS = 1.0
"""Where every whole training takes less than this, cost decides nothing."""


@dataclass(frozen=True)
class Outcome:
    """What was measured of one setting.

    `losses` `[draws]` are validation losses at the end of the trainings, infinite for one that diverged; `portions`
    `[draws, portions]` those of portions of the validation rows, where draws share these rows (NaN where one has not those of a
    portion). `steps` and `rows` to the target
    `[1 + resamples]` are those of the mean curve over draws, first of the draws as they are, then of draws resampled alike for all
    settings; NaN where that curve never gets there within `budget_steps` and `budget_rows`. `seconds_per_step` `[rounds]`, `peak_bytes`
    `[measurements]`, `test_loss` `[draws]`. `behind` says that it left the race and was not trained to the end;
    `overlap` is that of `paired.Sample`: what is said of a pair speaks of new rows; the choice, and the interval of the loss, of this
    table's.
    """

    label: str
    name: str
    batch_rows: int
    learning_rate: float
    losses: Numbers
    portions: Numbers | None
    steps: Numbers
    rows: Numbers
    budget_steps: float
    budget_rows: float
    seconds_per_step: Numbers
    peak_bytes: Numbers
    test_loss: Numbers
    behind: bool = False
    overlap: float = 0.0

    @property
    def diverged(self) -> bool:
        """Whether some draw diverged: a setting that does now and then is not one to train with."""
        return not bool(np.isfinite(self.losses).all())

    @property
    def loss(self) -> float:
        """The mean validation loss over draws."""
        return math.inf if self.diverged else float(self.losses.mean())

    @property
    def status(self) -> Status:
        """Whether its mean curve reaches the target."""
        if self.diverged:
            return "diverged"
        if self.behind:
            return "behind"
        return "reached" if math.isfinite(self.rows[0]) else "not_reached"

    @property
    def least_steps(self) -> Numbers:
        """Steps to the target; where it was not reached, those that were made without reaching it."""
        return np.maximum(np.where(np.isfinite(self.steps), self.steps, self.budget_steps), 1.0)

    @property
    def least_rows(self) -> Numbers:
        """Rows to the target, or those seen without reaching it; one at least."""
        return np.maximum(np.where(np.isfinite(self.rows), self.rows, self.budget_rows), 1.0)

    def seconds(self) -> LogMean:
        """Return seconds to the target: steps × seconds a step, with both uncertainties. A lower bound where it was not reached."""
        return self.to_target(self.least_steps).times(log_mean(self.seconds_per_step))

    def to_target(self, values: Numbers) -> LogMean:
        """Return the first of resampled `values` with the scatter of the others.

        Where these lie askew around the first one, as where a target is crossed late or never, the variance is such that a normal
        distribution would reach as far as they do on the farther side.
        """
        logs = np.log(values)
        found = resampled(logs, len(self.losses))
        if not found.parts:
            return found
        ends = np.quantile(logs[1:], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        reach = float(np.abs(ends - logs[0]).max()) / float(special.ndtri((1 + CONFIDENCE) / 2))
        return LogMean(found.mean, (Spread(max(found.variance, reach**2), found.parts[0].degrees),))

    @property
    def training_seconds(self) -> float:
        """Seconds of a whole training."""
        return float(self.budget_steps * np.exp(np.log(self.seconds_per_step).mean()))

    def loss_estimate(self, confidence: float = CONFIDENCE) -> Estimate:
        """Return the mean loss with its t interval, as a factor, over draws and, where these share validation rows, over rows."""
        return self._about(self._variance() / len(self.losses), confidence)

    def loss_of_one_more(self, confidence: float = CONFIDENCE) -> Estimate:
        """Return the interval in which the loss of one further training falls."""
        return self._about(self._variance() * (1 + 1 / len(self.losses)), confidence)

    def _variance(self) -> float:
        return math.inf if self.diverged else float(self.losses.var(ddof=1))

    def _about(self, variance: float, confidence: float) -> Estimate:
        if self.diverged:
            return Estimate(value=math.inf, low=0.0, high=math.inf)
        over_rows, freedom = (0.0, 0.0) if self.portions is None else variance_over_rows(self.portions)
        total, degrees = variance + over_rows, len(self.losses) - 1
        lost = variance**2 / degrees + (over_rows**2 / freedom if freedom else 0.0)
        reach = float(special.stdtrit(total**2 / lost if lost else degrees, 0.5 + confidence / 2)) * math.sqrt(total)
        if self.loss <= 0:  # a loss of one's own may be nothing
            return Estimate(value=self.loss, low=self.loss - reach, high=self.loss + reach)
        factor = math.exp(min(reach / self.loss, LARGEST))  # losses lie askew: more above the mean than below
        return Estimate(value=self.loss, low=self.loss / factor, high=self.loss * factor)


def resampled(logs: Numbers, draws: int) -> LogMean:
    """Return the first logarithm with the variance of the others, which are those of `draws` drawn again with replacement."""
    if len(logs) < 3 or draws < 2:
        return LogMean(float(logs[0]), ())
    return LogMean(float(logs[0]), (Spread(float(logs[1:].var(ddof=1)) * draws / (draws - 1), draws - 1),))


def ratio_of_resamples(one: Numbers, other: Numbers, draws: int) -> LogMean:
    """Return the ratio of two resampled quantities whose resamples belong together."""
    return resampled(np.log(one) - np.log(other), draws)


def _ratio_of_steps(one: Outcome, other: Outcome) -> LogMean:
    """Return the ratio of seconds a step: round by round, or where one of them was not timed in rounds of means."""
    tops, bottoms = one.seconds_per_step, other.seconds_per_step
    if len(tops) == len(bottoms):
        return ratio(tops, bottoms)
    below = log_mean(bottoms)
    return log_mean(tops).times(LogMean(-below.mean, below.parts))


@dataclass(frozen=True)
class Measure:
    """What settings are ranked by, and another setting's value over this one's."""

    value: Callable[[Outcome], Estimate]
    over: Callable[[Outcome, Outcome], LogMean]
    rank: Callable[[Outcome], float]
    needs_target: bool = True


PAGES_BYTES = 8192
"""Memory comes in pages, so a peak is known to about two of them."""


def _to_pages(*items: Outcome) -> LogMean:
    """Return the uncertainty of peaks that come in pages, as a factor."""
    return LogMean(0.0, (Spread(float(sum((PAGES_BYTES / np.mean(item.peak_bytes)) ** 2 for item in items)), math.inf),))


_TIME = Measure(
    value=lambda item: item.seconds().interval(),
    over=lambda a, b: ratio_of_resamples(a.least_steps, b.least_steps, len(b.losses)).times(_ratio_of_steps(a, b)),
    rank=lambda item: item.seconds().mean,
)
_LOSS = Measure(
    value=Outcome.loss_estimate,
    over=lambda a, b: ratio(a.losses, b.losses),
    rank=lambda item: item.loss,
    needs_target=False,
)
MEASURES: dict[Objective, Measure] = {
    "best": _TIME,
    "time": _TIME,
    "rows": Measure(
        value=lambda item: item.to_target(item.least_rows).interval(),
        over=lambda a, b: ratio_of_resamples(a.least_rows, b.least_rows, len(b.losses)),
        rank=lambda item: item.to_target(item.least_rows).mean,
    ),
    "memory": Measure(
        value=lambda item: log_mean(item.peak_bytes).times(_to_pages(item)).interval(),
        over=lambda a, b: ratio(a.peak_bytes, np.full(len(a.peak_bytes), np.exp(np.log(b.peak_bytes).mean()))).times(_to_pages(a, b)),
        rank=lambda item: log_mean(item.peak_bytes).mean,
    ),
    "loss": _LOSS,
}
"""What settings are compared by once their loss is good enough; `loss` compares nothing else."""
assert set(MEASURES) == set(get_args(Objective))


class Pair(Result):
    """Another setting's value over the recommended one's, with its 97.5% interval, unbounded above where the other never got there; and
    its loss over the recommended one's, with the same."""

    label: str
    ratio: float
    ratio_ci: tuple[float, float]
    at_least: bool
    loss_ratio: float
    loss_ratio_ci: tuple[float, float]

    @property
    def detectable(self) -> bool:
        """Whether the interval of the value's ratio excludes equality."""
        return not self.ratio_ci[0] <= 1 <= self.ratio_ci[1]

    @property
    def worse(self) -> bool:
        """Whether its loss is detectably higher, by more than what is negligible."""
        return self.loss_ratio_ci[0] > 1 + NEGLIGIBLE


class Choice(Result):
    """The recommended setting and its comparisons.

    `loss` is its mean validation loss, `one_more` the interval in which the loss of a further training falls; `seconds` those to the
    target. `best` is the setting with the lowest loss and `best_loss` that; `as_good` are the settings that are neither detectably nor by
    more than the margin worse, and `ties` those of them that cannot be told from the recommended one in what the objective goes by.
    `value` is loss, seconds, rows or bytes, as the objective says. `cheap`: every whole training takes less than a second, so cost
    decides nothing. `sure`: the recommended setting reached the target.
    """

    label: str
    objective: Objective
    value: Estimate
    loss: Estimate
    one_more: Estimate
    seconds: Estimate
    best: str
    best_loss: Estimate
    as_good: tuple[str, ...]
    ties: tuple[str, ...]
    cheap: bool
    sure: bool
    runner_up: Pair | None
    full_batch: Pair | None


def chosen(outcomes: Sequence[Outcome], objective: Objective = "best", margin: float = 0.01) -> Choice | None:
    """Return the recommended setting with its comparisons; None when all diverged or were left behind.

    `best`: of the settings whose loss is neither detectably nor by more than `margin` worse than the lowest, and not detectably worse than
    any other, the cheapest in seconds; the one with the lowest loss where cost decides nothing. `loss`: the lowest loss. Others: the least
    among those that reach the target.
    """
    alive = [item for item in outcomes if item.status not in ("diverged", "behind")]
    if not alive:
        return None
    lead = min(range(len(alive)), key=lambda place: alive[place].loss)
    apart = differences([Sample(item.losses, item.portions) for item in alive], lead)
    near = [item for item, found in zip(alive, apart, strict=True) if is_as_good(found, margin)]
    good = [item for item in near if item is alive[lead] or not any(_is_worse(item, other) for other in alive)]
    cheap = max(item.training_seconds for item in alive) < CHEAP_SECONDS
    by = MEASURES["loss"] if objective == "loss" or (objective == "best" and cheap) else MEASURES[objective]
    pool = good if objective in ("best", "loss") else [item for item in alive if item.status == "reached"] or good
    ranked = sorted(pool, key=by.rank)
    if (plain := _without_a_loader(ranked, objective)) is not None:
        ranked = [plain, *(item for item in ranked if item is not plain)]
    best = ranked[0]
    others = ranked[1:] + sorted((item for item in alive if item not in ranked), key=lambda item: item.loss)
    pairs = {item.label: paired(item, best, objective) for item in others}
    ties = [item.label for item in ranked[1:] if by is _LOSS or not pairs[item.label].detectable]
    return Choice(
        label=best.label,
        objective=objective,
        value=best.loss_estimate() if objective == "best" else MEASURES[objective].value(best),
        loss=best.loss_estimate(),
        one_more=best.loss_of_one_more(),
        seconds=_TIME.value(best),
        best=alive[lead].label,
        best_loss=alive[lead].loss_estimate(),
        as_good=tuple(item.label for item in good if item is not best),
        ties=tuple(ties),
        cheap=cheap,
        sure=best.status == "reached",
        runner_up=next(iter(pairs.values()), None),
        full_batch=next((pairs[item.label] for item in others if item.name == "full_batch"), None),
    )


def _without_a_loader(ranked: Sequence[Outcome], objective: Objective) -> Outcome | None:
    """Return the mini-batch that makes the very updates of the loader which ranks first, unless the loader is detectably ahead."""
    first = ranked[0]
    twins = (item for item in ranked if item.name == "mini_batch" and np.array_equal(item.losses, first.losses))
    twin = next(twins, None) if first.name == "data_loader" else None
    return None if twin is None or paired(twin, first, objective).detectable else twin


def is_as_good(found: Difference, margin: float) -> bool:
    """Whether a loss is neither detectably (95%) nor by more than the margin worse than the one it is compared with."""
    return found.value <= margin and found.low((1 - CONFIDENCE) / 2) <= NEGLIGIBLE


def _loss_apart(other: Outcome, best: Outcome, overlap: float = 0.0) -> Difference:
    return differences([Sample(best.losses, best.portions, overlap), Sample(other.losses, other.portions)], 0)[1]


def _is_worse(item: Outcome, other: Outcome) -> bool:
    """Whether its loss is detectably higher than the other's; the setting with the lowest may not tell, where its own scatters."""
    return other.loss < item.loss and _loss_apart(item, other).low((1 - PAIR_CONFIDENCE) / 2) > NEGLIGIBLE


def paired(other: Outcome, best: Outcome, objective: Objective) -> Pair:
    """Return how many times the best setting's value and loss the other one's are."""
    measure = MEASURES[objective]
    apart = _loss_apart(other, best, best.overlap)
    error = (1 - PAIR_CONFIDENCE) / 2
    loss = (1 + apart.value, (max(1 + apart.low(error), 0.0), 1 + apart.high(error)))
    if other.diverged:
        loss = (math.inf, (0.0, math.inf))
    bound = measure.needs_target and objective != "memory" and other.status != "reached"
    found = measure.over(other, best).interval(PAIR_CONFIDENCE) if not other.diverged else None
    if found is None or not math.isfinite(found.value):
        return Pair(label=other.label, ratio=math.inf, ratio_ci=(0.0, math.inf), at_least=False, loss_ratio=loss[0], loss_ratio_ci=loss[1])
    high = math.inf if bound else found.high
    return Pair(label=other.label, ratio=found.value, ratio_ci=(found.low, high), at_least=bound, loss_ratio=loss[0], loss_ratio_ci=loss[1])
