"""Numbers and verdicts as people read them."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, get_args

from batchlab.analysis.estimates import Estimate
from batchlab.analysis.objectives import Objective
from batchlab.analysis.verdict import Pair
from batchlab.analysis.yardsticks import FITTED
from batchlab.report.dividing import dividing_text
from batchlab.report.fetching import fetching_text
from batchlab.search.space import optimizer_words
from batchlab.snippets.quantities import memory, number, seconds, unit_of

if TYPE_CHECKING:
    from batchlab.results import YardstickResult
    from batchlab.search.findings import Finding, Findings
    from batchlab.search.space import Branch, Setting
    from batchlab.search.standings import Left

FEW = 0.5
"""A setting that saw less than this share of the recommended one's rows is told with its rows."""
SAME = 5e-4
"""Losses closer than this are written as the same."""


class Words(NamedTuple):
    """How an objective is told: a setting is `better` than another or `dearer`, and it reaches the target `at` an `amount`."""

    better: str
    dearer: str
    at: str
    amount: Callable[[Estimate], str]


def interval(estimate: Estimate, what: Objective = "rows") -> str:
    """Return low–high, in the unit that the value is shown in."""
    size = unit_of(estimate.value)[0] if what == "time" else 1.0
    return f"{number(estimate.low / size)}–{number(estimate.high / size)}"


_TIME = Words("faster than", "slower than", "in", lambda value: f"{seconds(value.value)} (95% CI {interval(value, 'time')})")
WORDS: dict[Objective, Words] = {
    "best": _TIME,
    "time": _TIME,
    "rows": Words("fewer rows than", "more rows than", "after", lambda value: f"{number(value.value)} rows (95% CI {interval(value)})"),
    "memory": Words("less memory than", "more memory than", "with a peak of", lambda value: memory(value.value)),
    "loss": _TIME,
}
"""What the recommended setting costs, in words; where the loss alone decides, the cost beside it is told in seconds too."""
assert set(WORDS) == set(get_args(Objective))


def interval_of_loss(estimate: Estimate) -> str:
    """Return low–high, in four digits."""
    return f"{estimate.low:.4g}–{estimate.high:.4g}" if math.isfinite(estimate.high) else f"{estimate.low:.4g}–∞"


def verdict_text(found: "Findings") -> str:
    """Return the verdict in a few lines: the setting, its loss, its cost, and what stands beside it."""
    return "\n".join([*recommendation(found), *beside_it(found)])


def beside_it(found: "Findings") -> list[str]:
    """Return what stands beside the recommendation: batch sizes, what people type, the best yardstick, and the search itself."""
    limit = "" if found.limit_minutes is None else f" of the {number(found.limit_minutes)} min that it was given"
    search = f"The search itself: {found.trials:,} trainings, {seconds(found.seconds)}{limit}.{_left_out(found)}"
    return [
        *_batch_sizes(found),
        *_typed(found),
        *_unbeaten(found),
        *fetching_text(found.fetching),
        *dividing_text(found.steps_over_processes),
        search,
    ]


def _left_out(found: "Findings") -> str:
    """Name the parts that were not made, those with the same reason together."""
    by_reason: dict[str, list[str]] = {}
    for name, why in found.left_out.items():
        by_reason.setdefault(why, []).append(name)
    said = "; ".join(f"{listed(names)} ({why})" for why, names in by_reason.items())
    return f" Left out: {said}." if said else ""


def recommendation(found: "Findings") -> list[str]:
    """Return the recommended setting, the yardstick that is better where one is, its loss and its cost, a line each."""
    choice, best = found.choice, found.best
    if choice is None or best is None:
        return [_nothing(found)]
    lines = [_headline(found, best), *_beaten(found)]
    ends = f"95% CI {interval_of_loss(choice.loss)}; of a single training {interval_of_loss(choice.one_more)}"
    lines.append(f"Its validation loss is {choice.loss.value:.4g} ({ends}){_of_best(found)}{_on_test_rows(found)}")
    return [*lines, *_cost(found)]


def _nothing(found: "Findings") -> str:
    """Say why nothing is recommended."""
    if found.trials == 0:
        return "The time was too short to train anything: nothing is recommended. Give the search more."
    return "Every setting that was searched diverged: nothing is recommended; see the reasons."


def _headline(found: "Findings", best: "Finding") -> str:
    """Say what to train with and for how long; of a training that time ended on its way, how far that was."""
    averaged = " and averaged weights" if found.training is not None and found.training.averaging else ""
    if_at_all = f"if it is to be this {_model(found)}, " if any(item.beats for item in found.yardsticks) else ""
    what, length = sentence(f"{if_at_all}train with {setting(best)}{averaged}"), _length(found, best)
    if not found.cut_short:
        return f"{what}, for {length}."
    falling = f", and over their second half its loss still fell by {best.fall / (1 + best.fall):.0%}" if best.falls else ""
    return f"{what}; but there was time for {length} only{falling}: a longer search finds a lower loss, and perhaps another setting."


def _model(found: "Findings") -> str:
    return "model" if found.training is None else f"{found.training.model['kind']} model"


def _beaten(found: "Findings") -> list[str]:
    """Say which yardstick is better than the recommended setting, the best where several are."""
    better = sorted((item for item in found.yardsticks if item.beats), key=lambda item: item.difference or 0.0)
    if not better:
        return []
    item, others = better[0], [other.name for other in better[1:]]
    some = f" on {item.rows:,} of {item.of_rows:,} rows" if item.rows < item.of_rows else ""
    also = f" {sentence(listed(others))} {'is' if len(others) == 1 else 'are'} better too." if others else ""
    compared = f"{sentence(_named(item))} has a test loss of {_beside_test_loss(found, item)}, fitted in {seconds(item.seconds)}{some}"
    other = "compare a network with --set model.kind=mlp" if _model(found) == "linear model" else "compare another model"
    other = "give the search more time" if found.cut_short else other
    return [f"{compared}: use that, or {other}.{also}"]


def _unbeaten(found: "Findings") -> list[str]:
    """Say what the best yardstick comes to, where none is better than the recommended setting."""
    compared = sorted((item for item in found.yardsticks if item.difference is not None), key=lambda item: item.difference or 0.0)
    if found.best is None or not compared or any(item.beats for item in compared):
        return []
    best = compared[0]
    missed = [name for name in FITTED if name in found.left_out]
    some = f" of those that there was time for (not {listed(missed)})" if missed else ""
    lower = best.difference_ci is not None and best.difference_ci[1] < 0
    better = f"better by more than the margin of {found.margin:.1%}" if lower else "detectably better"
    return [f"No yardstick{some} is {better}; the best one, {_named(best)}, has a test loss of {_beside_test_loss(found, best)}."]


def _named(item: "YardstickResult") -> str:
    return f"{item.name} ({item.note})" if item.note else item.name


def _beside_test_loss(found: "Findings", item: "YardstickResult") -> str:
    best = found.best
    assert best is not None
    assert item.test_loss is not None
    return f"{item.test_loss:.4g} against {float(best.outcome.test_loss.mean()):.4g}, {beside_it_in_loss(item)}"


def beside_it_in_loss(item: "YardstickResult") -> str:
    """Say by how much a yardstick's test loss is lower or higher than the recommended setting's, with the interval."""
    if item.difference is None:
        return "not compared"
    sign = -1 if item.difference < 0 else 1
    said = f"{number(100 * abs(item.difference))}% {'lower' if sign < 0 else 'higher'}"
    if item.difference_ci is None:
        return said
    low, high = sorted(100 * sign * end for end in item.difference_ci)
    ways = ("lower", "higher") if sign < 0 else ("higher", "lower")
    if low < 0 < high:
        return f"{said} (95% CI {number(-low)}% {ways[1]} to {number(high)}% {ways[0]})"
    return f"{said} (95% CI {number(low)} to {number(high)}%)"


def sentence(text: str) -> str:
    """Return the text with a capital letter at its beginning."""
    return text[:1].upper() + text[1:]


def setting(item: "Finding") -> str:
    """Return a setting in words: strategy, batch size, optimizer and rate."""
    candidate = item.candidate
    optimizer = optimizer_words(candidate.optimizer)
    return f"{candidate.name}, batch_rows {candidate.batch_rows}, {optimizer} at learning rate {candidate.learning_rate:g}"


def _length(found: "Findings", best: "Finding") -> str:
    """Say how many rows a training sees, and how many epochs and steps these are: steps are what it costs in another loop."""
    rows, steps = best.outcome.budget_rows, best.outcome.budget_steps
    epochs = rows / found.row_count
    return (
        f"{rows:,.0f} rows ({number(epochs)} epoch{'' if f'{epochs:.3g}' == '1' else 's'}, {number(steps)} step{'' if steps == 1 else 's'})"
    )


def _of_best(found: "Findings") -> str:
    """Say how the recommended loss compares with the lowest one."""
    choice = found.choice
    assert choice is not None
    all_of_them = "of all that were confirmed" if found.confirmed else "so far"
    if choice.best == choice.label:
        return f", the lowest {all_of_them}"
    above = choice.loss.value / choice.best_loss.value - 1
    as_good = choice.objective in ("best", "loss") or above < SAME  # the others choose among all that reach the target
    how = "as good as" if as_good else f"{above:.1%} above"
    return f", {how} the lowest {all_of_them} ({choice.best_loss.value:.4g}, {choice.best})"


def _on_test_rows(found: "Findings") -> str:
    best = found.best
    assert best is not None
    tested = float(best.outcome.test_loss.mean())
    return f"; on the test rows {tested:.4g}." if math.isfinite(tested) else "."


def _cost(found: "Findings") -> list[str]:
    """Say what the recommended setting costs, and what others cost beside it; nothing where cost does not matter."""
    choice, best = found.choice, found.best
    assert choice is not None
    assert best is not None
    if found.target_loss is None or found.cut_short:
        return []
    if choice.cheap and choice.objective in ("best", "loss"):
        tied = f" No difference detectable from {_ties(found, choice.ties)}." if choice.ties else ""
        return [
            f"Every training takes this engine less than a second, so what one costs does not matter, and the lowest loss decides.{tied}"
        ]
    target = f"validation loss {found.target_loss:.4g}" + ("" if found.target_given else f" (the best loss plus {found.margin:.1%})")
    if not choice.sure:
        return [_missed(found, target)]
    words = WORDS[choice.objective]
    return [f"It reaches {target} {words.at} {words.amount(choice.seconds if words is _TIME else choice.value)}{_compared(found)}."]


def _missed(found: "Findings", target: str) -> str:
    """Say that the recommended setting does not get to the target, and who does."""
    reached = [item.candidate.label for item in (*found.settings, *found.typed) if item.outcome.status == "reached"]
    if reached:
        return f"It does not reach {target}; {listed(reached)} {'does' if len(reached) == 1 else 'do'}."
    return f"No setting reached {target} within {found.budget_rows:,} rows. Train longer, or set a higher target_loss."


def _compared(found: "Findings") -> str:
    """Say how it compares with the runner-up and with full batch, and from which settings it cannot be told."""
    choice = found.choice
    assert choice is not None
    pairs = [choice.runner_up] if choice.runner_up is not None else []
    if choice.full_batch is not None and (not pairs or choice.full_batch.label != pairs[0].label):
        pairs.append(choice.full_batch)
    parts = [against(pair, choice.objective) for pair in pairs if (pair.worse if choice.objective == "loss" else pair.detectable)]
    if choice.ties:
        parts.append(f"no difference detectable from {_ties(found, choice.ties)}")
    return ": " + "; ".join(parts) if parts else ""


def _ties(found: "Findings", labels: Sequence[str]) -> str:
    """Name settings; of those of the recommended one's strategy and batch size what tells them apart from it."""
    best, full = found.best, {}
    for item in found.settings:
        own = item.candidate
        if best is not None and (own.name, own.batch_rows) == (best.candidate.name, best.candidate.batch_rows):
            full[own.label] = f"{own.name} {own.batch_rows} {optimizer_words(own.optimizer)} {own.learning_rate:g}"
    return listed([full.get(label, label) for label in labels])


def against(pair: Pair, objective: Objective = "time") -> str:
    """Say how many times better than another setting, or how many times dearer than one that is cheaper and worse."""
    if objective == "loss":
        return f"{1 - 1 / pair.loss_ratio:.1%} lower loss than {pair.label}"
    bound, (low, high) = "at least " if pair.at_least else "", pair.ratio_ci
    if pair.ratio < 1 and not pair.at_least:
        return f"{number(1 / pair.ratio)}× {WORDS[objective].dearer} {pair.label} ({number(1 / high)}–{number(1 / low)}){_higher(pair)}"
    ends = f"over {number(low)}" if math.isinf(high) else f"{number(low)}–{number(high)}"
    return f"{bound}{number(pair.ratio)}× {WORDS[objective].better} {pair.label} ({ends})"


def _higher(pair: Pair) -> str:
    """Say why a cheaper setting is not the recommended one."""
    return f", whose loss is {pair.loss_ratio - 1:.1%} higher" if pair.loss_ratio > 1 else ""


def listed(names: Sequence[str]) -> str:
    """Join names as a sentence does, the first few of many."""
    shown = list(names[:4]) + ([f"{len(names) - 4} more"] if len(names) > 4 else [])
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _batch_sizes(found: "Findings") -> list[str]:
    parts = [critical(found)]
    if found.throughput_knee is not None:
        parts.append(f"throughput knee {number(found.throughput_knee)}")
    parts.append(f"memory ceiling {number(found.memory_ceiling)} rows")
    return ["; ".join(parts) + "."]


def critical(found: "Findings") -> str:
    """Say the critical batch size at the target, or why there is none."""
    fit = found.frontier
    if fit is None:
        return "No critical batch size: fewer than three batch sizes reached the target in more than one step"
    size, at = fit.critical_batch, "" if found.target_loss is None else f" at loss {found.target_loss:.4g}"
    if fit.poor:
        return f"No critical batch size: steps over batch sizes do not follow its law (off by {math.expm1(fit.misfit):.0%})"
    if size.value < min(fit.batch_rows):
        return f"Critical batch size{at} below {number(min(fit.batch_rows))} rows, the fewest tried"
    if size.value > max(fit.batch_rows):
        return f"Critical batch size{at} above {number(max(fit.batch_rows))} rows, the most tried"
    return f"Critical batch size{at} {number(size.value)} rows ({interval(size)})"


def _typed(found: "Findings") -> list[str]:
    if not found.typed or found.best is None:
        return []
    return [
        "What people type: "
        + "; ".join(f"{item.candidate.label.removeprefix('typed ')} {beside(found, item)}" for item in found.typed)
        + "."
    ]


def beside(found: "Findings", item: "Finding") -> str:
    """Say how what people type compares with the recommended setting: in loss, and in seconds where these matter."""
    if item is found.best:
        return "is the recommended setting"
    if item.outcome.status == "diverged":
        return "diverged" if item.left is None else left_words(item.left, found.loss_unit)
    if item.outcome.status == "behind":
        return f"was {why(found, item)}"
    pair = next(pair for pair in found.against_typed if pair.label == item.candidate.label)
    apart = pair.loss_ratio - 1
    if not found.confirmed:
        ways = "the same" if abs(apart) < SAME else f"{abs(apart):.1%} {'higher' if apart > 0 else 'lower'}"
        return f"was not confirmed either: its loss was {ways} after {number(item.outcome.budget_rows)} rows of the race"
    if abs(apart) < SAME:
        said = "has the same loss"
    elif pair.worse or _just_worse(found, pair):
        seen = f" (the recommended one saw {number(found.best.outcome.budget_rows)})" if found.best and cut(found, item) else ""
        said = f"has a loss {apart:.1%} higher{cut(found, item)}{seen}"
    elif pair.loss_ratio_ci[1] >= 1:
        said = f"has a loss that cannot be told from it ({apart:+.1%})"
    else:
        said = f"has a loss {-apart:.1%} lower"
    return said + _in_seconds(found, pair)


def _just_worse(found: "Findings", pair: Pair) -> bool:
    """Whether a loss within the margin does not count as as good, since it is surely higher when all settings are compared at once."""
    choice = found.choice
    return choice is not None and SAME <= pair.loss_ratio - 1 <= found.margin and pair.label not in choice.as_good


def cut(found: "Findings", item: "Finding") -> str:
    """Say after how many rows a setting has its loss, where time ended it on its way: more would lower it."""
    best, rows = found.best, item.outcome.budget_rows
    whole = best is None or (rows >= FEW * best.outcome.budget_rows and not found.cut_short)
    return "" if whole else f" after {number(rows)} rows"


def _in_seconds(found: "Findings", pair: Pair) -> str:
    """Say how many times as long as the recommended setting it takes to the target, where cost matters."""
    choice = found.choice
    if choice is None or choice.cheap or not choice.sure or found.target_loss is None:
        return ""
    if not pair.detectable:
        return "" if pair.at_least else " and takes as long to the target"
    return f" and takes {'at least ' if pair.at_least else ''}{number(pair.ratio)}× as long to the target"


def status(item: "Finding") -> str:
    """Return the setting's status in words: only one that left because its loss was higher was behind."""
    if item.outcome.status == "behind" and (item.left is None or item.left.why != "behind"):
        return "left"
    return item.outcome.status.replace("_", " ")


def left_words(left: "Left", unit: float) -> str:
    """Say why and when a setting left the race, with both losses."""
    if left.why == "diverged":
        return f"diverged within {left.rows:,} rows"
    why = "behind" if left.why == "behind" else "left for lack of time"
    further = f" after {left.leader_rows:,}" if left.leader_rows != left.rows else ""
    return f"{why} after {left.rows:,} rows: loss {left.loss * unit:.4g} against the leader's {left.leader_loss * unit:.4g}{further}"


def why(found: "Findings", item: "Finding") -> str | None:
    """Say why a setting was not trained to the end, with the losses; None for one that was."""
    if item.reason:
        return item.reason
    if item.left is not None:
        return left_words(item.left, found.loss_unit)
    if item.outcome.status != "behind":
        return None
    return f"not confirmed for lack of time: loss {item.outcome.loss:.4g} after {item.outcome.budget_rows:,.0f} rows of the race"


def in_short(setting: "Setting") -> str:
    """Return a setting of the race in a few words: updates, batch size, optimizer, rate."""
    return f"{lane(setting.branch)}, rate {setting.learning_rate:g}{' (typed)' if setting.typed else ''}"


def lane(branch: "Branch") -> str:
    """Return what trains together in a few words: updates, batch size, optimizer."""
    updates, optimizer = branch
    rows = getattr(updates, "batch_rows", None)
    size = "" if rows is None else f" {rows}"
    return f"{updates.kind}{size}, {optimizer_words(optimizer)}"
