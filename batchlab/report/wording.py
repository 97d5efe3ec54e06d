"""Numbers and verdicts as people read them."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from batchlab.analysis.estimates import Estimate
from batchlab.analysis.verdict import Objective, Pair

if TYPE_CHECKING:
    from batchlab.search.findings import Findings

UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
BYTES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "bytes"))
FASTER = {"time": "faster than", "rows": "fewer rows than", "memory": "less memory than", "test_loss": "lower test loss than"}


def number(value: float) -> str:
    """Return three significant digits, thousands with commas, M for millions and G for billions."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "–"
    if abs(value) >= 1e6:
        return f"{value / 1e9:.3g}G" if abs(value) >= 1e9 else f"{value / 1e6:.3g}M"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def seconds(value: float) -> str:
    """Return a duration with its unit."""
    size, name = _unit(value)
    return f"{number(value / size)} {name}"


def memory(value: float) -> str:
    """Return an amount of memory with its unit."""
    size, name = next(((size, name) for size, name in BYTES if value >= size), BYTES[-1])
    return f"{value / size:.3g} {name}"


def interval(estimate: Estimate, what: Objective = "rows") -> str:
    """Return low–high, in the unit that the value is shown in."""
    size = _unit(estimate.value)[0] if what == "time" else 1.0
    return f"{number(estimate.low / size)}–{number(estimate.high / size)}"


def amount(estimate: Estimate, objective: Objective) -> str:
    """Return the value of an objective with its unit and interval."""
    if objective == "time":
        return f"{seconds(estimate.value)} (95% CI {interval(estimate, 'time')})"
    if objective == "memory":
        return memory(estimate.value)
    unit = " rows" if objective == "rows" else ""
    return f"{number(estimate.value)}{unit} (95% CI {interval(estimate)})"


def _unit(value: float) -> tuple[float, str]:
    return next(((size, name) for size, name in UNITS if value >= size), UNITS[-1])


def verdict_text(found: "Findings") -> str:
    """Return the verdict in a few lines."""
    lines = [*_recommendation(found), *_batch_sizes(found), *_typed(found)]
    lines.append(f"The search itself: {found.trials:,} trainings, {seconds(found.seconds)}.")
    return "\n".join(lines)


def _recommendation(found: "Findings") -> list[str]:
    choice, best = found.choice, found.best
    if choice is None or best is None:
        return ["Every setting that was searched diverged; see the reasons."]
    lines = [f"Train with {best.candidate.name}, batch_rows {best.candidate.batch_rows}, learning rate {best.learning_rate:g}."]
    if found.target_loss is None:
        return [*lines, "No setting lowered the validation loss, so there is nothing to choose by: this one ended lowest."]
    if not choice.sure:
        reached, seeds = best.outcome.seeds_reached, len(best.outcome.steps)
        lines.append(
            f"No setting reached validation loss {found.target_loss:.4g} with every seed within {found.budget_rows:,} rows; "
            f"this one did with {reached} of {seeds}. Train longer, or set a higher target_loss."
        )
        return lines
    what = {
        "time": f"Reaches validation loss {found.target_loss:.4g} in",
        "rows": f"Reaches validation loss {found.target_loss:.4g} after",
        "memory": f"Reaches validation loss {found.target_loss:.4g} with a peak of",
        "test_loss": "Its test loss is",
    }[choice.objective]
    return [*lines, f"{what} {amount(choice.value, choice.objective)}{_compared(found)}."]


def _compared(found: "Findings") -> str:
    """Say how it compares with the runner-up and with full batch, and from which settings it cannot be told."""
    choice = found.choice
    assert choice is not None
    pairs = [choice.runner_up] if choice.runner_up is not None else []
    if choice.full_batch is not None and (not pairs or choice.full_batch.label != pairs[0].label):
        pairs.append(choice.full_batch)
    parts = [against(pair, choice.objective) for pair in pairs if pair.detectable]
    if choice.ties:
        parts.append(f"no difference detectable from {listed(choice.ties)}")
    return ": " + "; ".join(parts) if parts else ""


def against(pair: Pair, objective: Objective = "time") -> str:
    """Say how many times better than another setting."""
    if objective == "test_loss":
        change = 1 - 1 / pair.ratio
        return f"{abs(change):.1%} {'lower' if change > 0 else 'higher'} than {pair.label}"
    bound = "at least " if pair.at_least else ""
    ends = f"over {number(pair.ratio_ci[0])}" if math.isinf(pair.ratio_ci[1]) else f"{number(pair.ratio_ci[0])}–{number(pair.ratio_ci[1])}"
    return f"{bound}{number(pair.ratio)}× {FASTER[objective]} {pair.label} ({ends})"


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
        return (
            "No critical batch size: fewer than three batch sizes reached the target with every seed, and every seed in more than one step"
        )
    size = fit.critical_batch
    if fit.poor:
        return f"The points do not follow a frontier (off by {math.expm1(fit.misfit):.0%}), so no critical batch size"
    if size.value < min(fit.batch_rows):
        return f"Critical batch size at that loss below {number(min(fit.batch_rows))} rows, the fewest tried"
    if size.value > max(fit.batch_rows):
        return f"Critical batch size at that loss above {number(max(fit.batch_rows))} rows, the most tried"
    return f"Critical batch size at that loss {number(size.value)} rows ({interval(size)})"


def _typed(found: "Findings") -> list[str]:
    if not found.against_typed or found.target_loss is None or found.choice is None or not found.choice.sure:
        return []
    said = [f"{pair.label} {_beside(found, pair)}" for pair in found.against_typed]
    return ["What people type: " + "; ".join(said) + "."]


def _beside(found: "Findings", pair: Pair) -> str:
    """Say how long what people type takes to the same loss, always in seconds; or how many of its seeds get there."""
    outcome = found.of(pair.label).outcome
    missed = f" ({outcome.seeds_reached} of {len(outcome.steps)} seeds got there)" if pair.at_least else ""
    if pair.at_least and not pair.detectable:
        return f"did not get there with every seed{missed}"
    if not pair.detectable:
        return "takes as long to that loss (no difference detectable)"
    return f"takes {'at least ' if pair.at_least else ''}{number(pair.ratio)}× as long to that loss{missed}"
