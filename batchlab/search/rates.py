"""Learning rates to try: a coarse logarithmic grid, then finer about the best, or further where the best lies at the edge."""

from collections.abc import Sequence

import numpy as np

from batchlab.engine.optimizers import Optimizer, Sgd

HALF_DECADE = 10**0.5
HIGHEST_SGD, HIGHEST_ADAM = 1.0, 0.1


def coarse(optimizer: Optimizer, count: int) -> tuple[float, ...]:
    """Return `count` rates, half a decade apart, up to 1 for SGD and 0.1 for Adam."""
    highest = HIGHEST_SGD if isinstance(optimizer, Sgd) else HIGHEST_ADAM
    return tuple(_rounded(highest / HALF_DECADE**back) for back in reversed(range(count)))


def at_edge(tried: Sequence[float], best: float) -> bool:
    """Whether the best rate is the lowest or the highest of those tried."""
    return best in (min(tried), max(tried))


def further(tried: Sequence[float], best: float, count: int) -> tuple[float, ...]:
    """Return `count` new rates: beyond the edge, half a decade apart, where the best lies there; else between it and its neighbours."""
    known = sorted(tried)
    if at_edge(known, best):
        factor = HALF_DECADE if best == known[-1] else 1 / HALF_DECADE
        return tuple(sorted(_rounded(best * factor ** (place + 1)) for place in range(count)))
    below, above = known[known.index(best) - 1], known[known.index(best) + 1]
    inner = np.arange(1, count // 2 + 1) / (count // 2 + 1)
    rates = [*(best * (below / best) ** inner), *(best * (above / best) ** inner)]
    return tuple(sorted(_rounded(rate) for rate in rates))


def _rounded(rate: float) -> float:
    """Three digits are enough to set a learning rate by, and can be typed."""
    return float(f"{rate:.3g}")
