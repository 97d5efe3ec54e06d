"""How good a shuffle is: what batches in their order tell of the table's order, against drawing rows without replacement."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batchlab.strategies import Order, Population, Strategy

MOST_ROWS, STRETCHES = 2**24, 64
"""Of longer epochs about so many rows are looked at, in at most so many stretches evenly over the epoch."""


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
    stretches = list(_stretches(strategy, row_count, seed, epoch, most_rows))
    mean, variance = (float(values.mean()), float(values.var())) if values is not None else ((row_count - 1) / 2, (row_count**2 - 1) / 12)
    off = [_batch_means(orders, values, batch_rows) - mean for orders, _ in stretches]
    squares = sum(float(part @ part) for part in off)
    batches = sum(len(part) for part in off)
    expected = variance / batch_rows * (row_count - batch_rows) / max(row_count - 1, 1)
    return ShuffleQuality(
        batch_rows=batch_rows,
        batches=batches,
        variance_ratio=squares / batches / expected if expected > 0 and batches else 1.0,
        serial_correlation=sum(float(part[:-1] @ part[1:]) for part in off) / squares if squares > 0 else 0.0,
        rank_correlation=_rank_correlation(stretches),
    )


Stretch = tuple[list[Order], int]
"""Consecutive pieces of an epoch, and how many rows came before them."""


def _stretches(strategy: Strategy, row_count: int, seed: int, epoch: int, most_rows: int) -> Iterator[Stretch]:
    """Yield the whole epoch as one stretch, or where it is too long and made in pieces, some of it at even distances."""
    population, step_rows = Population(row_count), strategy.rows_per_step(row_count)
    if row_count <= most_rows or strategy.rows_per_piece(row_count) >= row_count:
        yield list(strategy.pieces(population, seed, epoch)), 0
        return
    stretches = min(STRETCHES, max(1, most_rows // strategy.rows_per_piece(row_count)))
    for number in range(stretches):
        steps_done = number * (row_count // step_rows) // stretches
        orders, rows = [], 0
        for order in strategy.pieces(population, seed, epoch, steps_done):
            orders.append(order)
            rows += len(order.rows)
            if rows >= most_rows // stretches:
                break
        yield orders, steps_done * step_rows


def _batch_means(orders: list[Order], values: NDArray[np.floating] | None, batch_rows: int) -> NDArray[np.float64]:
    """Return the means of all whole batches; what is left at the end of an epoch varies more, having fewer rows."""
    means = []
    for order in orders:
        of_rows = order.rows if values is None else values[order.rows]
        whole = len(of_rows) // batch_rows
        means.append(of_rows[: whole * batch_rows].reshape(whole, batch_rows).mean(axis=1, dtype=np.float64))
    return np.concatenate(means)


def _rank_correlation(stretches: list[Stretch]) -> float:
    places, ranks = [], []
    for orders, before in stretches:
        rows = np.concatenate([order.rows for order in orders])
        places.append(np.arange(before, before + len(rows), dtype=np.float64))
        ranks.append(rows)
    place, rank = np.concatenate(places), np.concatenate(ranks).astype(np.float64)
    place -= place.mean()
    rank -= rank.mean()
    spread = float(np.sqrt((place @ place) * (rank @ rank)))
    return float(place @ rank) / spread if spread > 0 else 0.0
