"""How often the gate errs, with real trainings: writes docs/gate.md.

`python -m benchmarks.gate` (`--repetitions`: of each experiment; fewer than 100 write nothing).
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import make_friedman1
from torch.func import functional_call

from batchlab.engine.backends.base import seeded_network
from batchlab.engine.data import TrainingData
from batchlab.engine.loop import train
from batchlab.engine.losses import Loss
from batchlab.engine.optimizers import Adam
from batchlab.engine.records import Plan, Trial, TrialResult
from batchlab.models import Model
from batchlab.models.linear import Linear
from batchlab.models.mlp import Mlp
from batchlab.retraining.gate import Contestant, Holdout, decide
from batchlab.retraining.promotion import Promotion
from batchlab.rules.retraining import GateRule, RetrainingRule
from batchlab.scoring.evaluation import row_losses
from batchlab.strategies import Population
from batchlab.strategies.mini_batch import MiniBatch
from benchmarks.gate_page import page, row

PAGE = Path(__file__).resolve().parent.parent / "docs" / "gate.md"
REPETITIONS, SEEDS = 100, RetrainingRule().seeds
VALIDATION_ROWS, HOLDOUT_ROWS, TRUTH_ROWS = 2_000, 4_000, 50_000
"""The losses on so many further rows stand for the true ones, from which the planted error is sized."""
MSE = Loss("mse")

Numbers = NDArray[np.float64]
Rows = tuple[Numbers, Numbers]


@dataclass(frozen=True)
class Case:
    """By how much the challenger is better than the champion, and the gate that is to tell."""

    planted: float
    rule: GateRule

    @property
    def name(self) -> str:
        return f"planted {100 * self.planted:.3g}%" if self.planted else "A/A"


@dataclass(frozen=True)
class Problem:
    """A way of drawing rows (count, seed), how a model trains on them, and what the gate is asked."""

    name: str
    drawn: Callable[[int, int], Rows]
    model: Model
    train_rows: int
    batch_rows: int
    epochs: int
    rate: float
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Outcome:
    """One repetition of a case: what the gate said, and by how much the challenger truly was better."""

    promotion: Promotion
    true_improvement: float


def linear_rows(count: int, seed: int) -> Rows:
    """Return 20 standard normal features and a target that is linear in them, with noise of variance 1."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((count, 20))
    return features, features @ np.linspace(-1, 1, 20) + rng.standard_normal(count)


def friedman_rows(count: int, seed: int) -> Rows:
    """Return Friedman's first problem (1991) with noise of variance 4: ten features of which five count, not linearly; all numbers
    standardised."""
    features, target = make_friedman1(count, noise=2.0, random_state=seed)
    return (features - 0.5) * np.sqrt(12), (target - 14.4) / 5


def two_effects(minimum_effect: float) -> Case:
    """Return the case of an improvement of two minimum effects."""
    return Case(2 * minimum_effect, GateRule(minimum_effect=minimum_effect))


DEFAULT = GateRule()
CASES = (Case(0.0, DEFAULT), two_effects(DEFAULT.minimum_effect))
MLP_CASES = (*CASES, Case(0.07, DEFAULT), two_effects(0.025), two_effects(0.03))
PROBLEMS = (
    Problem("linear, 20 features", linear_rows, Linear(), 4_000, 32, 10, 0.003, CASES),
    Problem("Friedman 1, mlp 32-32", friedman_rows, Mlp(widths=(32, 32)), 10_000, 64, 10, 0.001, MLP_CASES),
)


def repeated(problem: Problem, number: int) -> list[Outcome]:
    """Train a champion and a challenger on the same rows with other seeds; return what the gate says of them in every case."""
    counts = (problem.train_rows, VALIDATION_ROWS, HOLDOUT_ROWS, TRUTH_ROWS)
    train_rows, validation, holdout, truth = (problem.drawn(count, 4 * number + place) for place, count in enumerate(counts))
    results = trained(problem, [train_rows, validation], number)
    champion, challenger = (min(side, key=lambda result: result.validation_loss) for side in (results[:SEEDS], results[SEEDS:]))
    seed_losses = [float(losses(holdout, predicted(problem.model, result, holdout[0])).mean()) for result in results[SEEDS:]]
    validation_losses = [result.validation_loss for result in results[SEEDS:]]
    outputs, true_outputs = ([predicted(problem.model, side, rows[0]) for side in (champion, challenger)] for rows in (holdout, truth))
    true_loss = [float(losses(truth, made).mean()) for made in true_outputs]

    def outcome(case: Case) -> Outcome:
        wanted = true_loss[1] / (1 - case.planted) if case.planted else true_loss[0]
        error = weight_error(truth, true_outputs[0], number, wanted)
        sides = (outputs[0] + holdout[0] @ error, outputs[1])
        contestants = [Contestant(losses(holdout, made), made[:, None], version) for version, made in enumerate(sides, start=1)]
        true_champion = losses(truth, true_outputs[0] + truth[0] @ error).mean()
        promotion = decide(*contestants, seed_losses, Holdout(holdout[1]), case.rule, validation_losses)
        return Outcome(promotion, 1 - true_loss[1] / true_champion)

    return [outcome(case) for case in problem.cases]


def trained(problem: Problem, parts: list[Rows], number: int) -> list[TrialResult]:
    """Train twice as many seeds as a side has, the champion's first."""
    tensors = [torch.from_numpy(array).float() for part in parts for array in part]
    data = TrainingData(*tensors, Population(problem.train_rows), output_count=1)
    plan = Plan(epochs=problem.epochs, optimizer=Adam(), evaluations=10, keep="settled")
    trials = [Trial(problem.rate, 1000 * number + place) for place in range(2 * SEEDS)]
    device = torch.device("cpu")
    return train(data, problem.model, MiniBatch(batch_rows=problem.batch_rows), trials, plan, MSE, device)


def predicted(model: Model, result: TrialResult, features: Numbers) -> Numbers:
    """Return the trained model's outputs `[rows]`."""
    network = seeded_network(model, (features.shape[1], 1), seed=0).double()
    weights = {name: torch.from_numpy(array) for name, array in result.weights.items()}
    with torch.no_grad():
        return np.asarray(functional_call(network, weights, (torch.from_numpy(features),))[:, 0])


def losses(rows: Rows, outputs: Numbers) -> Numbers:
    """Return each row's squared error."""
    return row_losses(rows[1], outputs[:, None], MSE, 1.0)


def weight_error(rows: Rows, outputs: Numbers, seed: int, wanted: float) -> Numbers:
    """Return an error of linear weights `[features]`, in a random direction, that brings the mean loss up to what is `wanted`, or as near
    to it as an error can; none where it is there already."""
    direction = np.random.default_rng(seed).standard_normal(rows[0].shape[1])
    along = rows[0] @ direction
    square, slope, rise = (along**2).mean(), (2 * (outputs - rows[1]) * along).mean(), wanted - losses(rows, outputs).mean()
    if rise == 0:
        return np.zeros_like(direction)
    return np.asarray(direction * (-slope + np.sqrt(max(slope**2 + 4 * square * rise, 0.0))) / (2 * square))


def main() -> None:
    """Make all experiments and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    repetitions, rows = parser.parse_args().repetitions, []
    for problem in PROBLEMS:
        began = time.perf_counter()
        done = [repeated(problem, number) for number in range(repetitions)]
        for place, case in enumerate(problem.cases):
            outcomes = [all_cases[place] for all_cases in done]
            true = np.array([outcome.true_improvement for outcome in outcomes])
            rows.append(row((problem.name, case.name), [outcome.promotion for outcome in outcomes], true))
        print(*rows[-len(problem.cases) :], f"{time.perf_counter() - began:.0f} s", sep="\n", flush=True)
    if repetitions >= REPETITIONS:
        PAGE.write_text(page(rows, repetitions))


if __name__ == "__main__":
    main()
