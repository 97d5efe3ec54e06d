"""Champion and challenger on the same held-out rows, each as it was saved: what the gate decides by."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batchlab.engine.losses import Loss
from batchlab.errors import BadInput, UnknownName
from batchlab.files.mapped import gathered
from batchlab.retraining.carrying import relaid
from batchlab.retraining.challenger import Challenger
from batchlab.retraining.drift import Drift
from batchlab.retraining.fresh import Mark, rows_within, unusable_share
from batchlab.retraining.gate import Contestant, Holdout, decide
from batchlab.retraining.promotion import Promotion
from batchlab.retraining.saved import Saved
from batchlab.rows.split import times_of
from batchlab.scoring.evaluation import row_losses
from batchlab.table import PackedTable
from batchlab.threads import one_torch_thread

if TYPE_CHECKING:
    from torch import nn

Rows = NDArray[np.int64]
MOST_JUDGED, ROWS_AT_ONCE = 1_000_000, 8192
"""Of more rows a random sample decides."""
TIMED_ROWS, TIMES = 4096, 7


@dataclass(frozen=True)
class Registered:
    """A saved model as it is served: its exported graph, its number in the registry and its size."""

    saved: Saved
    graph: "nn.Module"
    number: int
    size_bytes: int

    def predicted(self, table: PackedTable, rows: Rows) -> NDArray[np.float64]:
        """Return predictions for rows of any table that has the model's columns: `[rows, 1]`, or a probability for each of its classes."""
        import torch

        seen = 1 if self.saved.sequence is None else self.saved.sequence.rows
        if seen != table.span:
            raise BadInput(
                f"the champion sees {seen:,} rows at once, the table is packed for {table.span:,}; set columns.window.rows to what it was, "
                "or train another model (--model)."
            )
        columns, portions = table.schema.columns, [np.zeros((0, max(1, len(self.saved.lineage.classes))))]
        with torch.no_grad():
            for start in range(0, len(rows), ROWS_AT_ONCE):
                packed = table.seen(rows[start : start + ROWS_AT_ONCE])
                each = relaid(packed.reshape(-1, len(table.schema.packed_names)), self.saved.columns, columns)
                portions.append(self.graph(torch.from_numpy(each.reshape(len(packed), -1))).numpy())
        return self._in_order(np.concatenate(portions), table.schema.target.classes)

    def losses(self, table: PackedTable, rows: Rows, predictions: NDArray[np.float64], loss: Loss) -> NDArray[np.float64]:
        """Return the losses `[rows]` of these predictions for rows of the table, in the target's unit."""
        return row_losses(gathered(table.target, rows), predictions, loss, self.saved.preparation.target_scale)

    def unseen(self, table: PackedTable, rows: Rows) -> NDArray[np.bool_]:
        """Return which of the rows are later than all that trained the model: its old holdout and what has come since."""
        return np.asarray(times_of(table)[rows]) > self.saved.lineage.held_out.after

    def _in_order(self, outputs: NDArray[np.float64], classes: Sequence[str]) -> NDArray[np.float64]:
        """Return probabilities in the order of the table's classes: 0 for one that the model does not know."""
        own = self.saved.lineage.classes
        if tuple(classes) == own:
            return outputs
        if not own or not classes:
            raise BadInput(
                f"the champion predicts {said_classes(own)}, the table's target is {said_classes(classes)}; set `task` to what it was, or "
                "train another model (--model)."
            )
        ordered = np.zeros((len(outputs), len(classes)))
        for place, name in enumerate(classes):
            if name in own:
                ordered[:, place] = outputs[:, own.index(name)]
        return ordered


def judged(
    challenger: Challenger,
    registered: Registered,
    champion: Registered | None,
    drift: Drift | None,
    old_too: bool = False,
    mark: Mark | None = None,
) -> Promotion:
    """Return the gate's decision on the challenger's held-out rows that are new since the `mark`; with `old_too` also by the champion's
    old holdout (an update)."""
    experiment = challenger.experiment
    table, rows = experiment.table, judging_rows(experiment.table, experiment.split.rows("test", MOST_JUDGED), champion)
    old = rows_within(table, champion.saved.lineage.held_out)[:MOST_JUDGED] if champion is not None and old_too else np.zeros(0, np.int64)
    old = old[table.has_history(old)]
    judge = _Judge(challenger, rows, old)
    sides = [] if champion is None else [champion]
    seconds = _seconds_per_row([*sides, registered], table, rows)
    found = [judge.contestant(side, taken) for side, taken in zip([*sides, registered], seconds, strict=True)]
    return decide(
        found[0] if champion is not None else None,
        found[-1],
        [judge.seed_loss(number) for number in range(len(challenger.results))],
        judge.holdout(drift, unusable_share(table, mark)),
        experiment.profile.retraining.gate,
        challenger.validation_losses.tolist(),
    )


def judging_rows(table: PackedTable, rows: Rows, champion: Registered | None) -> Rows:
    """Return the rows in the order of time, without those that may have trained the champion: one that was quicker, on later rows, has seen
    some of them. Where it may have seen all, they judge all the same, to its advantage."""
    times = np.asarray(times_of(table)[rows])
    unseen = np.ones(len(rows), bool) if champion is None else champion.unseen(table, rows)
    kept = unseen if unseen.any() else ~unseen
    return rows[kept][np.argsort(times[kept], kind="stable")]


@dataclass(frozen=True)
class _Judge:
    """What both sides are judged by: the challenger's experiment, the held-out rows in time order, and those of the old holdout."""

    challenger: Challenger
    rows: Rows
    old: Rows

    def losses(self, rows: Rows, predictions: NDArray[np.float64]) -> NDArray[np.float64]:
        experiment = self.challenger.experiment
        truth = gathered(experiment.table.target, rows)
        return row_losses(truth, predictions, experiment.loss, experiment.preparation.target_scale)

    def contestant(self, side: Registered, seconds_per_row: float) -> Contestant:
        table = self.challenger.experiment.table
        predictions = side.predicted(table, self.rows)
        old = self.losses(self.old, side.predicted(table, self.old)) if len(self.old) else None
        return Contestant(self.losses(self.rows, predictions), predictions, side.number, seconds_per_row, side.size_bytes, old)

    def seed_loss(self, number: int) -> float:
        """Return the mean loss on the held-out rows of one seed's training; infinite for one that diverged."""
        from batchlab.scoring.shipping import predicted

        experiment, result = self.challenger.experiment, self.challenger.results[number]
        if result.diverged_at is not None:
            return float("inf")
        return float(self.losses(self.rows, predicted(experiment.ship(result), experiment.table.seen, self.rows)).mean())

    def holdout(self, drift: Drift | None, quarantined_share: float) -> Holdout:
        experiment = self.challenger.experiment
        table, schema = experiment.table, experiment.table.schema
        classes = len(schema.target.classes)
        train = gathered(table.target, experiment.split.rows("train", MOST_JUDGED))
        constant = np.bincount(train, minlength=classes) / len(train) if classes else np.array([train.mean()])
        by = experiment.profile.retraining.gate.by
        return Holdout(
            truth=gathered(table.target, self.rows),
            classes=classes,
            labels={} if by is None else {by: labels_of(table, by, self.rows)},
            constant_losses=self.losses(self.rows, np.tile(constant, (len(self.rows), 1))),
            quarantined_share=quarantined_share,
            drift=drift,
        )


def said_classes(classes: Sequence[str]) -> str:
    """Return classes for people: the first ten of them, or that they are numbers."""
    return ", ".join(classes[:10]) + (" …" if len(classes) > 10 else "") if classes else "numbers"


def labels_of(table: PackedTable, name: str, rows: Rows) -> list[str | None]:
    """Return the values of a category column `[rows]`, None for missing ones; raises BadInput for a column that holds none."""
    place = 0
    for column in table.schema.columns:
        if column.name == name and column.kind == "category":
            codes = gathered(table.features, rows)[:, place]
            words: list[str | None] = [*column.vocabulary, "others"]
            return [None if np.isnan(code) else words[min(int(code), len(words) - 1)] for code in codes]
        place += len(column.packed_names)
    known = [column.name for column in table.schema.columns if column.kind == "category"]
    raise UnknownName("retraining.gate.by: category column", name, known)


def _seconds_per_row(sides: Sequence[Registered], table: PackedTable, rows: Rows) -> list[float]:
    """Return the seconds that each side takes a row, timed in turns on the same rows: the fastest of several.

    They are those of one thread's processor: on a busy machine the clock on the wall has told tenfold differences that were none.
    """
    few, taken = rows[:TIMED_ROWS], [[float("inf")] for _ in sides]
    with one_torch_thread():
        for _ in range(TIMES):
            for number, side in enumerate(sides):
                taken[number].append(_timed(lambda side=side: side.predicted(table, few)))  # type: ignore[misc]
    return [min(found) / max(1, len(few)) for found in taken]


def _timed(work: Callable[[], Any]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began
