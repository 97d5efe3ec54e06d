"""What a search tries: settings, the lines of the table that they stand for, and further settings where the curves point.

Another kind of thing to try (a weight decay, say) is another optimizer in `optimizers_of`, or another field of `Setting`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchlab.engine import rates
from batchlab.engine.optimizers import Adam, Optimizer, Sgd
from batchlab.strategies import Strategy
from batchlab.strategies.mini_batch import MiniBatch

if TYPE_CHECKING:
    from batchlab.config import Profile

SMALLEST, RATIO, RATIO_OF_MANY, MANY = 8, 4, 8, 65_536
"""The grid of batch sizes: 8, 32, 128, … up to half of the training rows; 8, 64, 512, … from 65,536 training rows on."""

USUAL_SIZE = 32
"""Where time affords few settings, batch sizes near this one begin first."""

Branch = tuple[Strategy, Optimizer]


@dataclass(frozen=True)
class Setting:
    """One way to train: which rows make an update, by which optimizer, at which learning rate. `typed`: what people type by default.

    Strategies that update alike and differ in delivery and memory (`full_batch`, `accumulated`) share a setting and its trials.
    """

    updates: Strategy
    optimizer: Optimizer
    learning_rate: float
    typed: bool = False

    @property
    def branch(self) -> Branch:
        """What trains together, stacked."""
        return self.updates, self.optimizer


@dataclass(frozen=True)
class Line:
    """A line of the table: a strategy of the profile at one batch size, or (`typed`) what people type, whose setting is fixed."""

    name: str
    label: str
    strategy: Strategy
    batch_rows: int
    typed: Setting | None = None

    def holds(self, setting: Setting) -> bool:
        """Whether the setting is one of those that this line may show."""
        return setting == self.typed if self.typed is not None else not setting.typed and setting.updates == self.strategy.updates


def batch_grid(row_count: int) -> tuple[int, ...]:
    """Return a geometric grid of batch sizes for so many training rows."""
    ratio = RATIO if row_count < MANY else RATIO_OF_MANY
    sizes = [min(SMALLEST, row_count)]
    while sizes[-1] * ratio <= row_count / 2:
        sizes.append(sizes[-1] * ratio)
    return tuple(sizes)


def lines_of(profile: "Profile", row_count: int) -> tuple[Line, ...]:
    """Return every strategy of the profile, those without a batch size of their own once a size of the grid; then the defaults."""
    sizes = profile.search.batch_rows or batch_grid(row_count)
    found = [line for name, strategy in profile.strategies.items() for line in _of_strategy(name, strategy, sizes, row_count)]
    return (*found, *(typed_by_default(row_count) if profile.search.defaults else ()))


def _of_strategy(name: str, strategy: Strategy, sizes: Sequence[int], row_count: int) -> list[Line]:
    if not strategy.takes_grid:
        return [Line(name, name, strategy, strategy.rows_per_step(row_count))]
    variants = [(size, strategy.model_copy(update={"batch_rows": size})) for size in sizes]
    return [Line(name, f"{name} {size}", variant, variant.rows_per_step(row_count)) for size, variant in variants]


def typed_by_default(row_count: int) -> tuple[Line, ...]:
    """Return what people type without a search: batches of 32 with Adam at 0.001, and the notebook's batches of 10 with SGD at 0.01."""
    common, notebook = (MiniBatch(batch_rows=min(rows, row_count)) for rows in (32, 10))
    return (
        _typed(f"typed batch {common.batch_rows} adam 0.001", common, Adam(), 0.001),
        _typed(f"typed batch {notebook.batch_rows} sgd 0.01", notebook, Sgd(), 0.01),
    )


def _typed(label: str, strategy: MiniBatch, optimizer: Optimizer, rate: float) -> Line:
    return Line("mini_batch", label, strategy, strategy.batch_rows, Setting(strategy.updates, optimizer, rate, typed=True))


def optimizers_of(profile: "Profile") -> tuple[Optimizer, ...]:
    """Return the optimizers to try: the one that training was told to use, or those of the search."""
    return (profile.train.optimizer,) if profile.train.optimizer is not None else tuple(dict.fromkeys(profile.search.optimizers))


def first_settings(profile: "Profile", lines: Iterable[Line]) -> tuple[Setting, ...]:
    """Return what a race begins with: what people type, then every way to update with every optimizer at its first rates."""
    lines = tuple(lines)
    typed = [line.typed for line in lines if line.typed is not None]
    updates = dict.fromkeys(line.strategy.updates for line in lines if line.typed is None)
    given, count = profile.train.learning_rate, profile.search.rates
    searched = [
        Setting(update, optimizer, rate)
        for update in updates
        for optimizer in optimizers_of(profile)
        for rate in given or rates.first(optimizer, count)
    ]
    return (*typed, *searched)


def widely(settings: Iterable[Setting], row_count: int) -> list[Setting]:
    """Return the settings so that any number of the first of them covers the space: what people type; then middle rates before outer ones
    and those between, batch sizes near the usual one, optimizers that adapt and those with momentum first."""
    settings = tuple(settings)
    branches = of_branches(settings)

    def rank(setting: Setting) -> tuple[object, ...]:
        if setting.typed:
            return (False,)
        own, optimizer = branches[setting.branch], setting.optimizer
        off = abs(own.index(setting) - len(own) // 2)
        size = abs(math.log2(setting.updates.rows_per_step(row_count) / USUAL_SIZE))
        momentum = optimizer.momentum if isinstance(optimizer, Sgd) else 1.0
        return True, off and 1 + off % 2, size, -momentum

    return sorted(settings, key=rank)


def of_branches(settings: Iterable[Setting]) -> dict[Branch, list[Setting]]:
    """Return the searched settings of each branch, lowest rate first."""
    found: dict[Branch, list[Setting]] = {}
    for setting in sorted((item for item in settings if not item.typed), key=lambda item: item.learning_rate):
        found.setdefault(setting.branch, []).append(setting)
    return found


@dataclass(frozen=True)
class Candidate:
    """A row of the table: a line with the setting that it shows."""

    name: str
    label: str
    strategy: Strategy
    batch_rows: int
    optimizer: Optimizer
    learning_rate: float
    typed: bool = False

    @property
    def setting(self) -> Setting:
        """What decides its weights, whatever delivers the rows."""
        return Setting(self.strategy.updates, self.optimizer, self.learning_rate, self.typed)


def rows_of_table(lines: Iterable[Line], settings: Iterable[Setting]) -> tuple[Candidate, ...]:
    """Return the rows of the table: each line with the settings it may show, the first by the line's own label."""
    settings = tuple(settings)
    found = []
    for line in lines:
        held = [setting for setting in settings if line.holds(setting)]
        for place, setting in enumerate(held):
            label = line.label if place == 0 else f"{line.label} {optimizer_words(setting.optimizer)} {setting.learning_rate:g}"
            found.append(
                Candidate(line.name, label, line.strategy, line.batch_rows, setting.optimizer, setting.learning_rate, setting.typed)
            )
    return tuple(found)


def optimizer_words(optimizer: Optimizer) -> str:
    """Return the optimizer as the table names it: its kind, and a momentum that it has."""
    momentum = optimizer.momentum if isinstance(optimizer, Sgd) else 0.0
    return f"{optimizer.kind} with momentum {momentum:g}" if momentum else optimizer.kind


def lines_for(settings: Iterable[Setting], lines: Sequence[Line]) -> tuple[Line, ...]:
    """Return the lines with further ones for settings at batch sizes that none of them holds."""
    template = next(
        (line for line in lines if isinstance(line.strategy, MiniBatch) and line.strategy.shuffled and line.typed is None), None
    )
    found = list(lines)
    for setting in settings:
        if template is None or setting.typed or not isinstance(setting.updates, MiniBatch) or any(line.holds(setting) for line in found):
            continue
        size = setting.updates.batch_rows
        strategy = template.strategy.model_copy(update={"batch_rows": size})
        found.insert(found.index(template) + 1, Line(template.name, f"{template.name} {size}", strategy, size))
    return tuple(found)
