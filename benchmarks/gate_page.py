"""The page on how often the gate errs."""

import datetime
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from batchlab.retraining.promotion import Promotion
from batchlab.rules.retraining import RetrainingRule

PAGE = """# How often the gate errs

`python -m benchmarks.gate` on {date}: {repetitions} repetitions of each line, with real trainings. A repetition draws its own training,
validation (2,000) and holdout rows (4,000); trains a champion and a challenger on the same rows, each with {seeds} seeds (Adam,
mini-batches; 4,000 training rows for the linear model, 10,000 for the mlp); ships of each side the seed of lowest validation loss; and
asks the gate.

- **A/A**: both as they are. The same training with other seeds should be refused at least 95 times in 100.
- **planted**: the champion gets an error in its weights (for the mlp an added linear function) that makes the challenger truly better by so
  much, as 50,000 further rows tell. An improvement of two minimum effects should be promoted at least 80 times in 100.

| problem | case | minimum effect | true improvement | measured | half the interval | seed scatter | failed guards | promoted |
|---|---|---|---|---|---|---|---|---|
{rows}

Improvements are shares of the champion's mean loss, ± their standard deviation over the repetitions. The seed scatter is by how much the
mean holdout loss of what ships would scatter with other seeds, as the gate estimates it; it and the half interval are medians.

## What the gate can tell

A champion and a challenger are each the best of some trainings that differ in their seed, so an improvement counts only beyond what other
seeds would do as well. With {seeds} seeds the interval reaches {reach:.1f} times the scatter of what ships to each side (√2 ×
{quantile:.2f}, the t quantile of {freedom} degrees of freedom), further where the holdout is small. Linear models hardly scatter, and the
default minimum effect of 1% can be told with a few thousand rows. The seeds of a small network scatter by 1 to 2% of the loss: there an
improvement of 2% is refused, since the same training with other seeds often does as much, and no number of holdout rows changes that. Less
scatter helps (longer training, larger batches), and so do more seeds (`retraining.seeds`: the best of more scatters less, and it is better
known by how much). The champion stays the yardstick, so that small improvements add up until they are seen.

The best of several scatters less than any one of them; by how much follows from how well the validation loss foretells the holdout's,
for normal losses. Losses of networks are bounded below, so that their best scatters still less, which the gate does not count on: it errs
less often in A/A than its confidence allows.
"""


def page(rows: Sequence[str], repetitions: int) -> str:
    """Return the page with the table's `rows`."""
    rule = RetrainingRule()
    quantile = stats.t.ppf(rule.gate.confidence, rule.seeds - 1)
    facts = {"seeds": rule.seeds, "freedom": rule.seeds - 1, "quantile": quantile, "reach": math.sqrt(2) * quantile}
    return PAGE.format(date=datetime.date.today().isoformat(), repetitions=repetitions, rows="\n".join(rows), **facts)


def row(names: tuple[str, str], promotions: Sequence[Promotion], true: NDArray[np.float64]) -> str:
    """Return what came of a case (problem, case) as a line of the table; `true` are the true improvements `[repetitions]`."""
    measured = np.array([promotion.improvement for promotion in promotions], np.float64)
    low, high = np.array([promotion.interval for promotion in promotions], np.float64).T
    failed = Counter(guard.name for promotion in promotions for guard in promotion.failed)
    cells = [
        *names,
        f"{100 * promotions[0].minimum_effect:.3g}%",
        f"{true.mean():.2%} ± {true.std(ddof=1):.2%}",
        f"{measured.mean():.2%} ± {measured.std(ddof=1):.2%}",
        f"{np.median((high - low) / 2):.2%}",
        f"{np.median([promotion.seed_scatter or 0.0 for promotion in promotions]):.2%}",
        ", ".join(f"{guard} {count}" for guard, count in failed.items()) or "none",
        f"**{sum(promotion.wins for promotion in promotions)} of {len(promotions)}**",
    ]
    return "| " + " | ".join(cells) + " |"
