"""What a step costs: each setting trained alone and undisturbed, in turn with all others, delivery and compute apart."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from batchlab.analysis.estimates import Estimate, log_mean
from batchlab.engine.data import TrainingData
from batchlab.engine.delivery import loaded
from batchlab.engine.loop import train
from batchlab.engine.records import Plan, Trial, TrialResult
from batchlab.experiment import Experiment
from batchlab.search.candidates import Candidate
from batchlab.search.trials import rows_to
from batchlab.strategies import Indices

if TYPE_CHECKING:
    from batchlab.search.progression import Progression

LEAST_SECONDS = 0.03
"""A timing makes enough steps to take so long."""
MOST_STEPS = 200_000
FETCHED_ROWS, ORDERS_DRAWN = 2**16, 5
MANY_ROWS = 1_000_000
"""Of so many rows an order is drawn once: it takes long enough to be measured."""
FEWEST_STEPS, MOST_TRAININGS = 8, 20


@dataclass
class Timings:
    """Seconds a step of one setting, one number a round; seconds of them spent on delivery; seconds of one evaluation."""

    steps: int = 1
    seconds_per_step: list[float] = field(default_factory=list)
    delivery_per_step: list[float] = field(default_factory=list)
    seconds_per_evaluation: list[float] = field(default_factory=list)

    def step(self) -> Estimate:
        """Return the seconds of a step with their interval."""
        return log_mean(self.seconds_per_step).interval()

    @property
    def delivery_share(self) -> float:
        """How much of a step is drawing the order of rows and fetching them, measured alone; the rest is compute."""
        return min(1.0, float(np.median(self.delivery_per_step) / np.median(self.seconds_per_step)))


class Stopwatch:
    """Times settings in rounds: every round has each of them once, so that whatever slows the machine down slows all alike."""

    def __init__(self, experiment: Experiment, data: TrainingData) -> None:
        self.experiment, self.data = experiment, data
        self.timings: dict[Candidate, Timings] = {}
        self.ordering: dict[Candidate, float] = {}

    def sitting(self, known: "Sequence[Progression]", rounds: int, target: float | None, plan: Plan) -> None:
        """Time every member of the groups so many times. Two sittings, before and after other work, see how the machine drifts."""
        timed = [(candidate, item.rate or 0.0) for item in known for candidate in item.group.members]
        for item in known:
            for candidate in item.group.members:
                if candidate not in self.timings:
                    self.timings[candidate] = Timings(self._enough(candidate, item, target, plan))
        for number in range(rounds):
            for candidate, rate in timed[number:] + timed[:number]:
                self._time(candidate, rate, self.timings[candidate], plan, with_delivery=number == 0)

    def _enough(self, candidate: Candidate, item: "Progression", target: float | None, plan: Plan) -> int:
        """Return how many steps to time: enough to take `LEAST_SECONDS`; of a growing batch, the rows that it takes to the target."""
        if candidate.strategy.grows:
            of_rate = [result for result in item.tuned if result.trial.learning_rate == item.rate]
            reached = [rows for result in of_rate if np.isfinite(rows := rows_to(result, target))]
            return max(1, int(np.median(reached or [plan.max_rows or 1])))
        steps, ordering = FEWEST_STEPS, self.order_seconds(candidate)
        while steps < MOST_STEPS:
            seconds = self._seconds(candidate, item.rate or 0.0, plan, steps)[0] - ordering
            if seconds >= LEAST_SECONDS:
                break
            steps = int(steps * min(10.0, max(2.0, 1.2 * LEAST_SECONDS / max(seconds, 1e-9))))
        at_once = self._steps_drawn_at_once(candidate)
        # what passes through a buffer is read and shuffled a buffer at a time: time whole ones
        return steps if at_once >= self._steps_an_epoch(candidate) else -(-steps // at_once) * at_once

    def _time(self, candidate: Candidate, rate: float, timings: Timings, plan: Plan, with_delivery: bool) -> None:
        if candidate.strategy.grows:
            self._time_growing(candidate, rate, timings, plan)
            return
        seconds, result = self._seconds(candidate, rate, plan, timings.steps)
        steps = max(min(result.steps, timings.steps), 1)
        ordering, at_once = self.order_seconds(candidate), self._steps_drawn_at_once(candidate)
        too_many = -(-steps // at_once) - steps / at_once  # of the order that was drawn last only a part was used
        timings.seconds_per_step.append(max(seconds - ordering * too_many, 0.1 * seconds) / steps)
        if with_delivery:
            timings.delivery_per_step.append(ordering / at_once + self._fetch_seconds(candidate))
        timings.seconds_per_evaluation.append(result.evaluation_seconds / len(result.curve.step))

    def _time_growing(self, candidate: Candidate, rate: float, timings: Timings, plan: Plan) -> None:
        """Time whole trainings up to the target, as many as `LEAST_SECONDS` hold: their steps differ."""
        seconds, steps, trainings = 0.0, 0, 0
        while seconds < LEAST_SECONDS and trainings < MOST_TRAININGS:
            result = self._trained(candidate, rate, plan, {"max_rows": timings.steps, "max_steps": None})
            epochs = result.rows_seen / self.data.population.row_count
            unused = self.order_seconds(candidate) * (math.ceil(epochs) - epochs)
            seconds += max(result.train_seconds - unused, 0.1 * result.train_seconds)
            steps, trainings = steps + max(result.steps, 1), trainings + 1
        timings.seconds_per_step.append(seconds / steps)
        timings.delivery_per_step.append(0.0)
        timings.seconds_per_evaluation.append(result.evaluation_seconds / len(result.curve.step))

    def _seconds(self, candidate: Candidate, rate: float, plan: Plan, steps: int) -> tuple[float, TrialResult]:
        """Return the seconds of so many steps. With loader workers these follow as many others, in which the workers start."""
        limits = {"max_rows": None, "epochs": 2**31}
        if not candidate.strategy.loader_workers:
            result = self._trained(candidate, rate, plan, {"max_steps": steps, **limits})
            return result.train_seconds, result
        result = self._trained(candidate, rate, plan, {"max_steps": 2 * steps, "evaluations": 2, **limits})
        clock = result.curve.wall_seconds
        return max(clock[-1] - clock[-2], 1e-9), result

    def _trained(self, candidate: Candidate, rate: float, plan: Plan, limits: dict[str, int | None]) -> TrialResult:
        exp = self.experiment
        changes = {"evaluations": 1, "spacing": "even", "hopeless_after": 1.0, "patience": None, "optimizer": candidate.optimizer, **limits}
        trial = Trial(rate, exp.profile.seed)
        return train(
            self.data, exp.model, candidate.strategy, [trial], plan.model_copy(update=changes), exp.loss, exp.device, weights=False
        )[0]

    def _steps_an_epoch(self, candidate: Candidate) -> int:
        return -(-self.data.population.row_count // candidate.batch_rows)

    def _steps_drawn_at_once(self, candidate: Candidate) -> int:
        return -(-candidate.strategy.rows_drawn_at_once(self.data.population.row_count) // candidate.batch_rows)

    def order_seconds(self, candidate: Candidate) -> float:
        """Return the seconds that drawing as much of the order as is drawn at once takes: the median of a few."""
        if candidate not in self.ordering:
            population, seconds = self.data.population, []
            share = candidate.strategy.rows_drawn_at_once(population.row_count) / population.row_count
            for epoch in range(ORDERS_DRAWN if population.row_count < MANY_ROWS else 1):
                began = time.perf_counter()
                candidate.strategy.order(population, self.experiment.profile.seed, epoch)
                seconds.append(time.perf_counter() - began)
            self.ordering[candidate] = share * float(np.median(seconds))
        return self.ordering[candidate]

    def _fetch_seconds(self, candidate: Candidate) -> float:
        """Return the seconds that fetching one step's rows takes, by itself: gathered from the packed rows, or through the loader.

        The kernels gather as they go; many steps' rows at once take as long.
        """
        order = next(candidate.strategy.pieces(self.data.population, self.experiment.profile.seed, 0))
        workers = candidate.strategy.loader_workers
        if workers is not None:
            return loader_seconds(self.data, list(islice(order, 64)), workers)
        rows = np.resize(order.rows, FETCHED_ROWS)
        features, target = self.data.features.numpy(), self.data.target.numpy()
        began = time.perf_counter()
        _ = features.take(rows, axis=0), target.take(rows)
        return (time.perf_counter() - began) * candidate.batch_rows / FETCHED_ROWS


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
