"""How good a shuffle is: what batches in their order tell of the table's order, against drawing rows without replacement."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from batchlab.files.mapped import gathered, portion
from batchlab.strategies import Order, Population, Strategy

MOST_ROWS, STRETCHES = 2**24, 64
"""Of longer epochs about so many rows are looked at, in at most so many stretches evenly over the epoch."""
PORTION_ROWS = 2**20


@dataclass(frozen=True)
class ShuffleQuality:
    """How the means of batches vary: `variance_ratio` and `serial_correlation` of batches, `rank_correlation` of rows; see `measured`."""

    batch_rows: int
    batches: int
    variance_ratio: float
    serial_correlation: float
    rank_correlation: float

    @property
    def text(self) -> str:
        """The quality in a sentence for people."""
        return (
            f"Batches of {self.batch_rows} vary {self.variance_ratio:.3g} times as much as after a global shuffle "
            f"(1: as good; a sorted table as it stands: about {self.batch_rows}); one tells {self.serial_correlation:.2g} of the next, "
            f"place in the epoch {self.rank_correlation:.2g} of place in the table (correlations, 0: nothing)."
        )


def measured(
    strategy: Strategy,
    row_count: int,
    seed: int = 0,
    epoch: int = 0,
    values: NDArray[np.floating] | None = None,
    most_rows: int = MOST_ROWS,
) -> ShuffleQuality:
    """Return the quality of one epoch's order, in bounded memory where the strategy makes its order in pieces.

    With m a whole batch's mean of `values` `[row_count]` (by default the row's place in the table), μ and σ² the values' mean and
    variance, B rows a batch, N rows in all:

    - variance_ratio = mean (m − μ)² / [(σ²/B)(N − B)/(N − 1)], 1 for drawing without replacement, about B for sorted rows in their order;
    - serial_correlation = Σ (mᵢ − μ)(mᵢ₊₁ − μ) / Σ (mᵢ − μ)² over consecutive batches;
    - rank_correlation: Spearman's, of a row's place in the epoch and its place in the table.
    """
    batch_rows = strategy.rows_per_step(row_count)
    mean, variance = ((row_count - 1) / 2, (row_count**2 - 1) / 12) if values is None else _moments(values)
    batches, rows = _Batches(), _Ranks(row_count)
    for orders in _stretches(strategy, row_count, seed, epoch, most_rows):
        batches.begin()
        for order, before in orders:
            batches.add(_batch_means(order, values, batch_rows) - mean)
            rows.add(order, before)
    expected = variance / batch_rows * (row_count - batch_rows) / max(row_count - 1, 1)
    return ShuffleQuality(
        batch_rows=batch_rows,
        batches=batches.count,
        variance_ratio=batches.squares / batches.count / expected if expected > 0 and batches.count else 1.0,
        serial_correlation=batches.products / batches.squares if batches.squares > 0 else 0.0,
        rank_correlation=rows.correlation,
    )


@dataclass
class _Batches:
    """Sums over batches of how far their means are off: squares, and products of each with the next of its stretch."""

    count: int = 0
    squares: float = 0.0
    products: float = 0.0
    last: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def begin(self) -> None:
        self.last = np.zeros(0)

    def add(self, off: NDArray[np.float64]) -> None:
        following = np.concatenate([self.last, off])
        self.count, self.squares = self.count + len(off), self.squares + float(off @ off)
        self.products += float(following[:-1] @ following[1:])
        self.last = following[-1:]


class _Ranks:
    """Sums of places in the epoch and in the table, and of their squares and products; about the middle, that they do not cancel."""

    def __init__(self, row_count: int) -> None:
        self.middle, self.count, self.sums, self.products = (row_count - 1) / 2, 0, np.zeros(2), np.zeros((2, 2))

    def add(self, order: Order, before: int) -> None:
        pair = np.stack([np.arange(before, before + len(order.rows), dtype=np.float64), order.rows]) - self.middle
        self.count, self.sums, self.products = self.count + len(order.rows), self.sums + pair.sum(axis=1), self.products + pair @ pair.T

    @property
    def correlation(self) -> float:
        if self.count < 2:
            return 0.0
        spread = self.products - np.outer(self.sums, self.sums) / self.count
        scale = float(np.sqrt(spread[0, 0] * spread[1, 1]))
        return float(spread[0, 1]) / scale if scale > 0 else 0.0


def _moments(values: NDArray[np.floating]) -> tuple[float, float]:
    """Return mean and variance of values that may be too many for a second copy."""
    starts = range(0, len(values), PORTION_ROWS)
    mean = sum(float(portion(values, start, start + PORTION_ROWS).sum(dtype=np.float64)) for start in starts) / max(len(values), 1)
    off = (portion(values, start, start + PORTION_ROWS).astype(np.float64) - mean for start in starts)
    return mean, sum(float(part @ part) for part in off) / max(len(values), 1)


Stretch = Iterator[tuple[Order, int]]
"""Consecutive pieces of an epoch, each with how many rows came before it."""


def _stretches(strategy: Strategy, row_count: int, seed: int, epoch: int, most_rows: int) -> Iterator[Stretch]:
    """Yield the whole epoch as one stretch, or where it is too long and made in pieces, some of it at even distances."""
    step_rows = strategy.rows_per_step(row_count)
    if row_count <= most_rows or strategy.rows_per_piece(row_count) >= row_count:
        yield _pieces(strategy, row_count, (seed, epoch), 0, row_count)
        return
    stretches = min(STRETCHES, max(1, most_rows // strategy.rows_per_piece(row_count)))
    for number in range(stretches):
        steps_done = number * (row_count // step_rows) // stretches
        yield _pieces(strategy, row_count, (seed, epoch), steps_done, most_rows // stretches)


def _pieces(strategy: Strategy, row_count: int, draw: tuple[int, int], steps_done: int, most_rows: int) -> Stretch:
    rows, before = 0, steps_done * strategy.rows_per_step(row_count)
    for order in strategy.pieces(Population(row_count), *draw, steps_done):
        yield order, before + rows
        rows += len(order.rows)
        if rows >= most_rows:
            break


def _batch_means(order: Order, values: NDArray[np.floating] | None, batch_rows: int) -> NDArray[np.float64]:
    """Return the means of all whole batches; what is left at the end of an epoch varies more, having fewer rows."""
    of_rows = order.rows if values is None else gathered(values, order.rows)
    whole = len(of_rows) // batch_rows
    means: NDArray[np.float64] = of_rows[: whole * batch_rows].reshape(whole, batch_rows).mean(axis=1, dtype=np.float64)
    return means
