"""Yardsticks beside the verdict: cheap ways to predict, fitted on the split's own training rows, capped, and scored as every setting is."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from batchlab.analysis import yardsticks as ways
from batchlab.analysis.yardsticks import Numbers, Yardstick
from batchlab.engine.backends.base import PORTIONS
from batchlab.experiment import MOST_TESTED, Experiment
from batchlab.rows.split import Part
from batchlab.rows.timeline import TIMED
from batchlab.rows.training_data import tensors
from batchlab.scoring.evaluation import row_losses
from batchlab.search.models import TESTED_ROWS
from batchlab.search.remembering import Remembered

BOOSTED_VALUES, LINEAR_VALUES, LEAST_SQUARES_WORK = 1_000_000, 5_000_000, 5e9
"""Boosting is fitted on at most so many values (rows × columns × classes), a linear model on so many (rows × inputs × classes), least
squares also on no more rows than keep rows × inputs × the smaller of both below this: seconds on one core."""
MOST_SECONDS, FEWEST_SECONDS, FEWEST_ROUNDS = 5.0, 0.5, 20
"""Boosting takes no longer than this; it has fewer values where it has less, and is left out with fewer rounds than this. What has to be
fitted is left out where there are fewer seconds for it."""
FEWEST_A_CLASS = 10
"""What the caps leave fewer rows for each class of says nothing, and is left out."""
SCORED_VALUES = 2**22
"""Rows are scored in portions of so many values."""
MOST_CATEGORIES = 255
"""Categories of more values than scikit-learn takes are numbers to it."""
NO_TIME = "no time"


class CannotFit(Exception):
    """Why a yardstick cannot be had."""


@dataclass(frozen=True)
class Fitted:
    """What predicts for rows of the table by their numbers `[rows]`, from so many `values` a row; the seconds that fitting took, and on how
    many rows."""

    predict: Callable[[NDArray[np.int64]], Numbers]
    values: int
    seconds: float
    rows: int
    note: str = ""


@dataclass(frozen=True)
class Fitting:
    """Fits and scores yardsticks on an experiment's split. `left` says how many seconds there are for one."""

    experiment: Experiment
    left: Callable[[], float]

    def all(self) -> tuple[tuple[Yardstick, ...], dict[str, str]]:
        """Return the yardsticks, cheap ones first, and why others could not be had, by name. They compute on one core: where others use
        the machine too, several threads wait for each other."""
        found, missing = [], {}
        for key, (name, fit) in self._known().items():
            try:
                if self.left() <= (0.0 if key == "constant" else FEWEST_SECONDS):
                    raise CannotFit(NO_TIME)
                with threadpool_limits(1):
                    found.append(self._scored(key, name, fit()))
            except CannotFit as error:
                missing[name] = str(error)
            except (ValueError, np.linalg.LinAlgError) as error:  # of rows that these libraries cannot take
                missing[name] = f"it cannot be fitted: {error}"
        return tuple(found), missing

    def _known(self) -> dict[str, tuple[str, Callable[[], Fitted]]]:
        """Return what each yardstick of these rows is called in sentences, and what fits it."""
        classes = bool(self._classes)
        last = {"last_known": ("the last known value", self.last_known)} if self.experiment.profile.split.kind in TIMED else {}
        return {
            "constant": ("always predicting the classes' shares" if classes else "always predicting the mean", self.constant),
            **last,
            "linear": (ways.LOGISTIC if classes else ways.LEAST_SQUARES, self.linear),
            "boosting": (ways.BOOSTING, self.boosting),
        }

    def constant(self) -> Fitted:
        """Always predict the training rows' mean, or their shares of classes."""
        rows, began = self._train(MOST_TESTED), time.perf_counter()
        found = ways.constant(self._truth(rows), self._classes)
        return Fitted(lambda wanted: np.tile(found, (len(wanted), 1)), found.shape[1], time.perf_counter() - began, len(rows))

    def last_known(self) -> Fitted:
        """Predict what the target was last known to be."""
        began, remembered = time.perf_counter(), Remembered(self.experiment, self._train(TESTED_ROWS))
        if not remembered.affordable:
            raise CannotFit("the table is too large")
        held = self._held("validation")
        losses = {name: float(self._losses(held, remembered.predicted(name, held)).mean()) for name in remembered.groupings}
        best = min(losses, key=lambda name: losses[name])
        note = f"of the same {best}" if best else ""
        rows = len(self.experiment.table.target)
        return Fitted(lambda wanted: remembered.predicted(best, wanted), 1, time.perf_counter() - began, rows, note)

    def linear(self) -> Fitted:
        """Fit a linear model to the inputs that one would train on: scaled, filled, categories one-hot."""
        preparation, classes = replace(self.experiment.preparation, embedded=False), self._classes

        def inputs(wanted: NDArray[np.int64]) -> Numbers:
            import torch

            return np.asarray(tensors(self.experiment.table, wanted, preparation, torch.float64)[0].numpy(), np.float64)

        width = self.experiment.table.span * preparation.width
        rows = self._capped(linear_rows(width, classes))
        prepared, truth, began = inputs(rows), self._truth(rows), time.perf_counter()
        predict, converged = ways.logistic(prepared, truth, classes) if classes else (ways.least_squares(prepared, truth), True)
        note, seconds = "" if converged else "not converged in its 100 iterations", time.perf_counter() - began
        return Fitted(lambda wanted: predict(inputs(wanted)), width, seconds, len(rows), note)

    def boosting(self) -> Fitted:
        """Fit gradient boosting to the packed columns: numbers as they are, categories as such, what is missing as NaN."""
        width, classes, seconds = len(self._sizes()), self._classes, min(MOST_SECONDS, self.left())
        values = BOOSTED_VALUES * min(1.0, self.left() / 5.0)
        rows, sizes = self._capped(int(values / (width * max(1, classes)))), self._sizes()
        features, truth, began = self._columns(rows), self._truth(rows), time.perf_counter()
        predict, rounds = ways.boosted(
            features, truth, classes, (sizes > 0) & (sizes <= MOST_CATEGORIES), self.experiment.profile.seed % 2**32, seconds
        )
        note = "" if rounds == ways.ROUNDS else f"{rounds} of its {ways.ROUNDS} rounds in the {seconds:.2g} s that it had"
        if rounds < FEWEST_ROUNDS:
            raise CannotFit(f"{NO_TIME}: {note}")
        return Fitted(lambda wanted: predict(self._columns(wanted)), max(width, classes), time.perf_counter() - began, len(rows), note)

    def _scored(self, key: str, name: str, fitted: Fitted) -> Yardstick:
        """Score it on the validation and the test rows, while there is time for that."""
        losses = {part: np.concatenate(list(self._portions(self._held(part), fitted))) for part in ("validation", "test")}
        bounds = np.arange(min(PORTIONS, len(losses["test"])) + 1) * len(losses["test"]) // min(PORTIONS, len(losses["test"]))
        return Yardstick(
            key=key,
            name=name,
            validation_loss=float(losses["validation"].mean()),
            test_loss=float(losses["test"].mean()),
            portions=np.add.reduceat(losses["test"], bounds[:-1]) / np.diff(bounds),
            seconds=fitted.seconds,
            rows=fitted.rows,
            of_rows=max(fitted.rows, self.experiment.split.sizes()["train"]),
            note=fitted.note,
        )

    def _portions(self, rows: NDArray[np.int64], fitted: Fitted) -> Iterator[Numbers]:
        size = max(1, SCORED_VALUES // fitted.values)
        for start in range(0, len(rows), size):
            if start and self.left() <= 0:
                raise CannotFit(NO_TIME)
            yield self._losses(rows[start : start + size], fitted.predict(rows[start : start + size]))

    def _losses(self, rows: NDArray[np.int64], predictions: Numbers) -> Numbers:
        return row_losses(self._truth(rows), predictions, self.experiment.loss, self.experiment.preparation.target_scale)

    def _held(self, part: Part) -> NDArray[np.int64]:
        """Return the rows of a part that yardsticks are scored on: of the test rows those that settings are."""
        return self.experiment.split.rows(part, TESTED_ROWS)

    def _capped(self, most: int) -> NDArray[np.int64]:
        """Return at most so many training rows."""
        rows, all_rows = self._train(most), self.experiment.split.sizes()["train"]
        if len(rows) < min(all_rows, FEWEST_A_CLASS * self._classes):
            raise CannotFit(f"with {self._classes:,} classes it would see {len(rows):,} of {all_rows:,} rows")
        return rows

    def _train(self, most: int) -> NDArray[np.int64]:
        return self.experiment.split.rows("train", max(most, 2), self.experiment.profile.seed)

    @property
    def _classes(self) -> int:
        return len(self.experiment.table.schema.target.classes)

    def _truth(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        return self.experiment.truth(rows)

    def _columns(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return packed columns `[rows, columns]`, those of all rows that a model sees; NaN for what is missing, infinite or a category
        outside the vocabulary."""
        values, sizes = self.experiment.table.seen(rows), self._sizes()
        return np.where(np.isfinite(values) & ((sizes == 0) | (values < sizes)), values, np.float32(np.nan))

    def _sizes(self) -> NDArray[np.int64]:
        """Return the number of values of each packed column's category `[columns]`, 0 for a number."""
        columns = self.experiment.table.schema.columns
        kinds = [(len(column.vocabulary) if column.kind == "category" else 0, len(column.packed_names)) for column in columns]
        return np.tile(np.repeat([size for size, _ in kinds], [count for _, count in kinds]), self.experiment.table.span)


def linear_rows(width: int, classes: int) -> int:
    """Return on how many rows at most a linear model of so many inputs is fitted."""
    most = LINEAR_VALUES // (width * max(1, classes))
    few, many = int((LEAST_SQUARES_WORK / width) ** 0.5), int(LEAST_SQUARES_WORK / width**2)
    return most if classes else min(most, few if few < width else many)
