"""The sweep that a comparison is made of: 8 learning rates × 8 seeds, batch 256, 20,000 rows, and who gets it done when."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from batchlab.engine.loop import train
from batchlab.engine.losses import Loss
from batchlab.engine.records import Plan, Trial
from batchlab.models.mlp import Mlp
from batchlab.strategies.mini_batch import MiniBatch
from benchmarks.grid import Tell
from benchmarks.peers import lightning, notebook_loader, scikit_mlp
from benchmarks.problems import Work

RATES = [0.001 * 2**number for number in range(8)]
WORK = Work(Mlp(widths=(64, 64)), batch_rows=256, epochs=2)


def engine(seeds: int, epochs: int = WORK.epochs) -> float:
    """Return the seconds of all trainings, stacked, evaluated once at the start and once at the end."""
    trials = [Trial(rate, seed) for rate in RATES for seed in range(seeds)]
    plan = Plan(epochs=epochs, evaluations=1)
    started = time.perf_counter()
    train(WORK.data, WORK.model, MiniBatch(batch_rows=WORK.batch_rows), trials, plan, Loss("mse"), torch.device("cpu"))
    return time.perf_counter() - started


def optuna_lightning(seeds: int) -> float:
    """Return the seconds of an Optuna study over the same grid, each trial a Lightning training."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.GridSampler({"rate": RATES, "seed": list(range(seeds))}, seed=0))

    def objective(trial: Any) -> float:
        work = replace(WORK, first_seed=trial.suggest_categorical("seed", list(range(seeds))))
        return lightning(work, trial.suggest_categorical("rate", RATES))[1][0]

    started = time.perf_counter()
    study.optimize(objective, n_trials=len(RATES) * seeds)
    return time.perf_counter() - started


def one_by_one(run: Callable[[Work], Any], seeds: int) -> float:
    """Return the seconds of a peer's loop over all trainings."""
    started = time.perf_counter()
    for seed in range(seeds):
        for _ in RATES:  # a rate changes no time
            run(replace(WORK, first_seed=seed))
    return time.perf_counter() - started


def measured(quick: bool, repeats: int, tell: Tell) -> dict[str, Any]:
    """Measure the sweep, everybody in turn; in the quick form with one seed instead of eight."""
    seeds = 1 if quick else 8
    contenders: dict[str, Callable[[], float]] = {
        "batchlab": lambda: engine(seeds),
        "optuna with lightning": lambda: optuna_lightning(seeds),
        "notebook, DataLoader": lambda: one_by_one(notebook_loader, seeds),
        "scikit-learn MLPRegressor": lambda: one_by_one(scikit_mlp, seeds),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    engine(1)
    for turn in range(repeats):
        for name, run in contenders.items():
            tell(f"{len(RATES) * seeds} trainings, {name}, {turn + 1} of {repeats}")
            seconds[name].append(run())
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    tell("the same in a fresh process, kernels cached and not")
    return {
        "trainings": len(RATES) * seeds,
        "seconds": {name: [min(values), medians[name], max(values)] for name, values in seconds.items()},
        "ratios": {name: median / medians["batchlab"] for name, median in medians.items() if name != "batchlab"},
        "fresh_process_seconds": {"cached": fresh_process(seeds, None), "cold": fresh_process(seeds, "cold")},
    }


def fresh_process(seeds: int, cache: str | None) -> float:
    """Return the seconds of the sweep's call in a process of its own, importing apart; with `cache` cold it compiles first."""
    code = f"from benchmarks.sweep import engine; import torch, numba, scipy; print(engine({seeds}))"
    with tempfile.TemporaryDirectory() as empty:
        environment = {**os.environ, **({"NUMBA_CACHE_DIR": empty} if cache == "cold" else {})}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])
