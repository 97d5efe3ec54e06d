"""Learning rates to try: 1, 3, 10, … half a decade apart, 1.7 and 5.5 between them: numbers that people can type."""

import math
from collections.abc import Sequence

from batchlab.engine.optimizers import Optimizer, Sgd

DIGITS = (1.0, 1.7, 3.0, 5.5)
"""Quarters of a decade."""
HIGHEST = {"sgd": 0, "momentum": -4, "adam": -6}
"""Where the first grid ends, in quarters of a decade: at 1, 0.1 and 0.03. An edge that does best moves."""
MOST_ADAPTIVE = 1.0
"""Adam moves every weight by about its rate at every step, whatever the gradients: inputs and targets of unit scale ask for no more than
this, and a weight decay of 0.01 takes a hundredth of the weights there, all of them at a rate of 100."""


def rate_at(quarter: int) -> float:
    """Return the rate so many quarters of a decade above 1."""
    return float(f"{DIGITS[quarter % 4] * 10.0 ** (quarter // 4):.3g}")


def quarter_of(rate: float) -> int:
    """Return which quarter of a decade the rate is nearest to, by ratio."""
    nearest = round(4 * math.log10(rate))
    return min(range(nearest - 1, nearest + 2), key=lambda place: abs(math.log(rate / rate_at(place))))


def first(optimizer: Optimizer, count: int) -> tuple[float, ...]:
    """Return the `count` rates that a search begins with, half a decade apart, lowest first."""
    kind = "adam" if optimizer.adaptive else "momentum" if isinstance(optimizer, Sgd) and optimizer.momentum else "sgd"
    return tuple(rate_at(HIGHEST[kind] - 2 * back) for back in reversed(range(count)))


def worth_trying(optimizer: Optimizer, rate: float) -> bool:
    """Whether a search may propose the rate; a user may ask for any."""
    return not optimizer.adaptive or rate <= MOST_ADAPTIVE


def at_edge(tried: Sequence[float], best: float) -> bool:
    """Whether the best rate is the lowest or the highest of those tried."""
    return best in (min(tried), max(tried))


def beyond(tried: Sequence[float], best: float) -> tuple[float, ...]:
    """Return the next rate beyond the edge where the best of those tried lies; none where it lies inside."""
    found = []
    if best == max(tried):
        found.append(rate_at(quarter_of(best) + 2))
    if best == min(tried):
        found.append(rate_at(quarter_of(best) - 2))
    return tuple(rate for rate in found if rate not in tried)


def between(tried: Sequence[float], best: float) -> tuple[float, ...]:
    """Return the rates a quarter of a decade to both sides of the best that were not tried."""
    place = quarter_of(best)
    return tuple(rate for step in (-1, 1) if (rate := rate_at(place + step)) not in tried)
