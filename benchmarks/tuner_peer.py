"""The peer: Optuna's TPE with its median pruner over the same space, driving a plain PyTorch loop."""

import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from batchlab.experiment import Experiment
from batchlab.search.draws import VALIDATION_ROWS_EVALUATED, thinned
from batchlab.search.space import batch_grid

RATES = {"sgd": (1e-3, 3.0), "momentum": (1e-4, 1.0), "adamw": (1e-5, 1e-1)}
FIRST_LOOK = 2048
ONE_THREAD = 1024
"""Batches of up to so many rows train fastest on one thread."""


@dataclass
class Best:
    """The best training so far: validation and test loss, in the target's unit, and what it was."""

    validation: float = float("inf")
    test: float = float("inf")
    setting: str = ""


def tuned(experiment: Experiment, seconds: float, budget_rows: int) -> dict[str, Any]:
    """Tune for so many seconds; return the best training's losses, the trials made and the seconds that passed."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    began, best = time.perf_counter(), Best()
    data, unit = thinned(experiment), experiment.loss_unit
    rows = experiment.split.rows("test", 200_000)
    from batchlab.rows.training_data import tensors

    tests = tensors(experiment.table, rows, experiment.preparation, data.features.dtype)
    validation = (data.validation_features[:VALIDATION_ROWS_EVALUATED], data.validation_target[:VALIDATION_ROWS_EVALUATED])
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=experiment.profile.seed), pruner=optuna.pruners.MedianPruner())

    def objective(trial: "optuna.Trial") -> float:
        size = trial.suggest_categorical("batch_rows", [*batch_grid(len(data.target)), len(data.target)])
        kind = trial.suggest_categorical("optimizer", list(RATES))
        rate = trial.suggest_float(f"rate_{kind}", *RATES[kind], log=True)
        loop = Loop(experiment, data.features, data.target, validation, trial.number)
        loss, network = loop.trained(size, kind, rate, budget_rows, began + seconds, trial)
        if loss * unit < best.validation:
            best.validation, best.setting = loss * unit, f"batch {size}, {kind} {rate:.3g}"
            best.test = loop.loss(network, *tests) * unit
        return loss

    study.optimize(objective, timeout=seconds, catch=(FloatingPointError,))
    return {
        "validation_loss": best.validation,
        "test_loss": best.test,
        "setting": best.setting,
        "trials": len(study.trials),
        "seconds": time.perf_counter() - began,
    }


class Loop:
    """A plain training loop: rows shuffled once an epoch and sliced, a fused optimizer, a look whenever the rows seen have doubled."""

    def __init__(self, experiment: Experiment, features: Tensor, target: Tensor, validation: tuple[Tensor, Tensor], seed: int) -> None:
        self.experiment, self.features, self.target, self.validation, self.seed = experiment, features, target, validation, seed
        self.outputs = experiment.data.output_count

    def loss(self, network: nn.Module, features: Tensor, target: Tensor) -> float:
        """Return the mean loss."""
        with torch.no_grad():
            return float(self._per_row(network(features), target).mean())

    def _per_row(self, outputs: Tensor, target: Tensor) -> Tensor:
        return self.experiment.loss.per_row(outputs[None], target[None])[0]

    def trained(self, size: int, kind: str, rate: float, budget_rows: int, deadline: float, trial: Any) -> tuple[float, nn.Module]:
        """Train for the budget of rows, or until the deadline, or until the pruner says so; return the last loss and the network."""
        import optuna

        torch.manual_seed(self.seed)
        torch.set_num_threads(1 if size <= ONE_THREAD else len(os.sched_getaffinity(0)))  # threads only slow small steps down
        network = self.experiment.model.network(self.features.shape[1], self.outputs)
        optimizer = _optimizer(network, kind, rate)
        seen, look, loss = 0, FIRST_LOOK, float("inf")
        while seen < budget_rows:
            order = torch.randperm(len(self.target))
            features, target = self.features[order], self.target[order]
            for start in range(0, len(target), size):
                outputs = network(features[start : start + size])
                optimizer.zero_grad(set_to_none=True)
                self._per_row(outputs, target[start : start + size]).mean().backward()
                optimizer.step()
                seen += min(size, len(target) - start)
                if seen >= look or seen >= budget_rows:
                    look = 2 * seen
                    loss = self.loss(network, *self.validation)
                    if not np.isfinite(loss):
                        raise optuna.TrialPruned
                    trial.report(loss, int(seen))
                    if time.perf_counter() > deadline or seen >= budget_rows:
                        return loss, network
                    if trial.should_prune():
                        raise optuna.TrialPruned
                elif start % (64 * size) == 0 and time.perf_counter() > deadline:
                    return self.loss(network, *self.validation), network
        return loss, network


def _optimizer(network: nn.Module, kind: str, rate: float) -> torch.optim.Optimizer:
    if kind == "adamw":
        return torch.optim.AdamW(network.parameters(), rate, fused=True)
    return torch.optim.SGD(network.parameters(), rate, momentum=0.9 if kind == "momentum" else 0.0, fused=True)
