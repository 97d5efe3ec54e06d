"""What a step costs: each setting trained alone and undisturbed, in turn with all others, delivery and compute apart."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np

from batchlab.engine.data import TrainingData
from batchlab.engine.delivery import loaded
from batchlab.engine.loop import train
from batchlab.engine.records import Plan, Trial, TrialResult
from batchlab.experiment import Experiment
from batchlab.files.mapped import gathered
from batchlab.search.hands import Trains
from batchlab.search.space import Candidate
from batchlab.search.timings import Timings
from batchlab.strategies import Indices

LEAST_SECONDS = 0.03
"""A timing makes enough steps to take so long."""
MOST_STEPS = 200_000
FETCHED_ROWS, ORDERS_DRAWN = 2**16, 5
MANY_ROWS = 1_000_000
"""Of so many rows an order is drawn once: it takes long enough to be measured."""
FEWEST_STEPS, MOST_TRAININGS = 8, 20


class Stopwatch:
    """Times settings in rounds: every round has each of them once, so that whatever slows the machine down slows all alike."""

    def __init__(
        self, experiment: Experiment, data: TrainingData, plan: Plan, is_over: Callable[[], bool] = lambda: False, trains: Trains = train
    ) -> None:
        self.experiment, self.data, self.plan, self.is_over, self.trains = experiment, data, plan, is_over, trains
        self.steps: dict[Candidate, int] = {}
        self.ordering: dict[Candidate, float] = {}

    def sitting(
        self, candidates: Sequence[Candidate], rounds: int, growing_rows: Mapping[Candidate, int], before: Mapping[Candidate, Timings]
    ) -> dict[Candidate, Timings]:
        """Return the timings after so many more rounds; two sittings, before and after other work, see how the machine drifts.

        `growing_rows` says how many rows a batch that grows sees up to the target. A round that time does not allow to end is left out
        for all, so that each has the same rounds.
        """
        found = dict(before)
        for candidate in candidates:
            if candidate not in self.steps and not self.is_over():
                self.steps[candidate] = self._enough(candidate, growing_rows.get(candidate))
        timed = [candidate for candidate in candidates if candidate in self.steps]
        for number in range(rounds):
            in_round = {}
            for candidate in timed[number:] + timed[:number]:
                if self.is_over():
                    return found
                in_round[candidate] = self._time(candidate, with_delivery=number == 0)
            found |= {candidate: _joined(found.get(candidate, Timings()), fresh) for candidate, fresh in in_round.items()}
        return found

    def _enough(self, candidate: Candidate, growing_rows: int | None) -> int:
        """Return how many steps to time: enough to take `LEAST_SECONDS`; of a growing batch, the rows that it takes to the target."""
        if candidate.strategy.grows:
            return max(1, growing_rows or self.plan.max_rows or 1)
        steps, ordering = FEWEST_STEPS if candidate.strategy.loader_workers else 1, self.order_seconds(candidate)
        self._seconds(candidate, steps)  # the first time may load a kernel
        while steps < MOST_STEPS:
            seconds = self._seconds(candidate, steps)[0] - ordering
            if seconds >= LEAST_SECONDS:
                break
            steps = int(steps * min(10.0, max(2.0, 1.2 * LEAST_SECONDS / max(seconds, 1e-9))))
        at_once = self._steps_drawn_at_once(candidate)
        # what passes through a buffer is read and shuffled a buffer at a time: time whole ones
        return steps if at_once >= self._steps_an_epoch(candidate) else -(-steps // at_once) * at_once

    def _time(self, candidate: Candidate, with_delivery: bool) -> Timings:
        if candidate.strategy.grows:
            return self._time_growing(candidate)
        planned = self.steps[candidate]
        seconds, result = self._seconds(candidate, planned)
        steps = max(min(result.steps, planned), 1)
        ordering, at_once = self.order_seconds(candidate), self._steps_drawn_at_once(candidate)
        too_many = -(-steps // at_once) - steps / at_once  # of the order that was drawn last only a part was used
        return Timings(
            (max(seconds - ordering * too_many, 0.1 * seconds) / steps,),
            (ordering / at_once + self._fetch_seconds(candidate),) if with_delivery else (),
            (result.evaluation_seconds / len(result.curve.step),),
        )

    def _time_growing(self, candidate: Candidate) -> Timings:
        """Time whole trainings up to the target, as many as `LEAST_SECONDS` hold: their steps differ."""
        seconds, steps, trainings = 0.0, 0, 0
        while seconds < LEAST_SECONDS and trainings < MOST_TRAININGS:
            result = self._trained(candidate, {"max_rows": self.steps[candidate], "max_steps": None})
            epochs = result.rows_seen / self.data.population.row_count
            unused = self.order_seconds(candidate) * (math.ceil(epochs) - epochs)
            seconds += max(result.train_seconds - unused, 0.1 * result.train_seconds)
            steps, trainings = steps + max(result.steps, 1), trainings + 1
        return Timings((seconds / steps,), (0.0,), (result.evaluation_seconds / len(result.curve.step),))

    def _seconds(self, candidate: Candidate, steps: int) -> tuple[float, TrialResult]:
        """Return the seconds of so many steps. With loader workers these follow as many others, in which the workers start."""
        limits = {"max_rows": None, "epochs": 2**31}
        if not candidate.strategy.loader_workers:
            result = self._trained(candidate, {"max_steps": steps, **limits})
            return result.train_seconds, result
        result = self._trained(candidate, {"max_steps": 2 * steps, "evaluations": 2, **limits})
        clock = result.curve.wall_seconds
        return max(clock[-1] - clock[-2], 1e-9), result

    def _trained(self, candidate: Candidate, limits: dict[str, int | None]) -> TrialResult:
        exp = self.experiment
        changes = {"evaluations": 1, "spacing": "even", "patience": None, "optimizer": candidate.optimizer, **limits}
        trial, plan = Trial(candidate.learning_rate, exp.profile.seed), self.plan.model_copy(update=changes)
        return self.trains(self.data, exp.model, candidate.strategy, [trial], plan, exp.loss, exp.device, weights=False)[0]

    def _steps_an_epoch(self, candidate: Candidate) -> int:
        return -(-self.data.population.row_count // candidate.batch_rows)

    def _steps_drawn_at_once(self, candidate: Candidate) -> int:
        return -(-candidate.strategy.rows_drawn_at_once(self.data.population.row_count) // candidate.batch_rows)

    def order_seconds(self, candidate: Candidate) -> float:
        """Return the seconds that drawing as much of the order as is drawn at once takes: the median of a few."""
        if candidate not in self.ordering:
            population, seconds = self.data.population, []
            in_pieces = candidate.strategy.rows_drawn_at_once(population.row_count) < population.row_count
            for epoch in range(ORDERS_DRAWN if population.row_count < MANY_ROWS else 1):
                began = time.perf_counter()
                if in_pieces:
                    next(candidate.strategy.pieces(population, self.experiment.profile.seed, epoch))
                else:
                    candidate.strategy.order(population, self.experiment.profile.seed, epoch)
                seconds.append(time.perf_counter() - began)
            self.ordering[candidate] = float(np.median(seconds))
        return self.ordering[candidate]

    def _fetch_seconds(self, candidate: Candidate) -> float:
        """Return the seconds that fetching one step's rows takes, by itself: gathered from the packed rows, or through the loader.

        The kernels gather as they go; many steps' rows at once take as long.
        """
        order = next(candidate.strategy.pieces(self.data.population, self.experiment.profile.seed, 0))
        workers = candidate.strategy.loader_workers
        if workers is not None:
            return loader_seconds(self.data, list(islice(order, 64)), workers)
        rows = self.data.in_pool(np.resize(order.rows, (1, FETCHED_ROWS)), np.zeros(1, np.intp), (0,))[0]
        features, target = (self.data.features.numpy(), self.data.target.numpy()) if self.data.stored is None else self.data.stored.arrays
        began = time.perf_counter()
        _ = gathered(features, rows), gathered(target, rows)
        return (time.perf_counter() - began) * candidate.batch_rows / FETCHED_ROWS


def _joined(before: Timings, fresh: Timings) -> Timings:
    return Timings(
        before.seconds_per_step + fresh.seconds_per_step,
        before.delivery_per_step + fresh.delivery_per_step,
        before.seconds_per_evaluation + fresh.seconds_per_evaluation,
    )


def loader_seconds(data: TrainingData, steps: "Sequence[Sequence[Indices]]", workers: int) -> float:
    """Return the seconds that a DataLoader with so many workers takes to deliver a step, once it is under way."""
    import torch

    def blocks() -> Iterator[Indices]:
        for step in steps:
            yield from (block[None] for block in step)

    batches = loaded(data.features, data.target, blocks, torch.device("cpu"), workers)
    next(batches)
    began = time.perf_counter()
    count = sum(1 for _ in batches)
    return (time.perf_counter() - began) / max(count, 1)
