"""What a search tries: every strategy at every batch size, and what people type by default."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batchlab.engine.optimizers import Adam, Optimizer, Sgd
from batchlab.strategies import Strategy
from batchlab.strategies.mini_batch import MiniBatch

if TYPE_CHECKING:
    from batchlab.config import Profile

SMALLEST, RATIO, RATIO_OF_MANY, MANY = 8, 4, 8, 65_536
"""The grid of batch sizes: 8, 32, 128, … up to half of the training rows; 8, 64, 512, … from 65,536 training rows on."""


@dataclass(frozen=True)
class Candidate:
    """One setting up to its learning rate: `name` is the strategy's in the profile, `label` tells its batch sizes apart. `rates` holds
    learning rates that are not searched for; `typed` says that this is what people type by default."""

    name: str
    label: str
    strategy: Strategy
    batch_rows: int
    optimizer: Optimizer
    rates: tuple[float, ...] | None = None
    typed: bool = False


@dataclass(frozen=True)
class Group:
    """Candidates whose weights move alike, so that one set of trials serves all: they differ in delivery and memory."""

    members: tuple[Candidate, ...] = field(default=())

    @property
    def first(self) -> Candidate:
        return self.members[0]

    @property
    def label(self) -> str:
        """The first member's label."""
        return self.first.label


def batch_grid(row_count: int) -> tuple[int, ...]:
    """Return a geometric grid of batch sizes for so many training rows."""
    ratio = RATIO if row_count < MANY else RATIO_OF_MANY
    sizes = [min(SMALLEST, row_count)]
    while sizes[-1] * ratio <= row_count / 2:
        sizes.append(sizes[-1] * ratio)
    return tuple(sizes)


def candidates(profile: "Profile", row_count: int) -> tuple[Candidate, ...]:
    """Return every strategy of the profile, those without a batch size of their own once a size of the grid; then the defaults."""
    sizes = profile.search.batch_rows or batch_grid(row_count)
    found = []
    for name, strategy in profile.strategies.items():
        variants = [(name, strategy)]
        if strategy.takes_grid:
            variants = [(f"{name} {size}", strategy.model_copy(update={"batch_rows": size})) for size in sizes]
        for label, variant in variants:
            rows = variant.rows_per_step(row_count)
            found.append(Candidate(name, label, variant, rows, profile.train.optimizer, profile.train.learning_rate))
    return (*found, *(typed_by_default(row_count) if profile.search.defaults else ()))


def typed_by_default(row_count: int) -> tuple[Candidate, ...]:
    """Return what people type without a search: batches of 32 with Adam at 0.001, and the notebook's batches of 10 with SGD at 0.01."""
    common, notebook = (MiniBatch(batch_rows=min(rows, row_count)) for rows in (32, 10))
    return (
        Candidate("typed", f"batch {common.batch_rows}, Adam 0.001", common, common.batch_rows, Adam(), (0.001,), typed=True),
        Candidate("typed", f"notebook: batch {notebook.batch_rows}, SGD 0.01", notebook, notebook.batch_rows, Sgd(), (0.01,), typed=True),
    )


def grouped(found: Sequence[Candidate]) -> tuple[Group, ...]:
    """Return the candidates in groups that share their trials, in order of their first members."""
    groups: dict[tuple[Strategy, Optimizer, tuple[float, ...] | None], list[Candidate]] = {}
    for candidate in found:
        groups.setdefault((candidate.strategy.updates, candidate.optimizer, candidate.rates), []).append(candidate)
    return tuple(Group(tuple(members)) for members in groups.values())
