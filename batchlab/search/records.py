"""Findings as the records that JSON, MLflow and the terminal take."""

import math
from typing import Any

import numpy as np
import pandas as pd

from batchlab.analysis.estimates import Estimate
from batchlab.engine.records import TrialResult
from batchlab.experiment import Experiment
from batchlab.results import Interval, TrainingFacts, Verdict
from batchlab.search.findings import Finding, Findings
from batchlab.search.known import Known
from batchlab.search.space import Setting, optimizer_words

MOST_NAMED = 50
"""Of a model with more inputs their names are not kept beside the verdict."""


def verdict_of(found: Findings, text: str) -> Verdict:
    """Return the verdict as one frozen record; `text` is what it says in words."""
    choice, best, fit = found.choice, found.best, found.frontier
    up, full = (choice.runner_up, choice.full_batch) if choice is not None else (None, None)
    sound = fit is not None and not fit.poor and fit.within
    return Verdict(
        strategy=None if best is None else best.candidate.name,
        batch_rows=None if best is None else best.candidate.batch_rows,
        optimizer=None if best is None else optimizer_words(best.candidate.optimizer),
        learning_rate=None if best is None else best.learning_rate,
        rows=None if best is None else int(best.outcome.budget_rows),
        objective=found.objective,
        margin=found.margin,
        value=None if choice is None else choice.value.value,
        ci=None if choice is None else ends(choice.value),
        loss=None if choice is None else choice.loss.value,
        loss_ci=None if choice is None else ends(choice.loss),
        one_training_ci=None if choice is None else ends(choice.one_more),
        seconds_to_target=None if choice is None or not choice.sure else choice.seconds.value,
        seconds_to_target_ci=None if choice is None or not choice.sure else ends(choice.seconds),
        test_loss=None if best is None else _finite(float(best.outcome.test_loss.mean())),
        best_loss=None if choice is None else choice.best_loss.value,
        as_good=() if choice is None else choice.as_good,
        runner_up=None if up is None else up.label,
        ratio=None if up is None else _finite(up.ratio),
        ratio_ci=None if up is None else _bounded(*up.ratio_ci),
        detectable=up is not None and up.detectable,
        ties=() if choice is None else choice.ties,
        full_batch_ratio=None if full is None else _finite(full.ratio),
        full_batch_ratio_ci=None if full is None else _bounded(*full.ratio_ci),
        critical_batch=fit.critical_batch.value if fit is not None and sound else None,
        critical_batch_ci=ends(fit.critical_batch) if fit is not None and sound else None,
        throughput_knee=found.throughput_knee,
        memory_ceiling=found.memory_ceiling,
        target_loss=found.target_loss,
        trainings=found.trials,
        search_seconds=found.seconds,
        left_out=tuple(f"{name}: {why}" for name, why in found.left_out.items()),
        periods=tuple(found.periods),
        yardsticks=tuple(found.yardsticks),
        fetching=found.fetching,
        processes=found.steps_over_processes,
        notes=tuple(found.notes),
        text=text,
        settings=None if best is None else _settings(best),
        training=found.training,
    )


def _settings(best: Finding) -> dict[str, Any]:
    """Return the recommended setting as keys of a profile."""
    candidate = best.candidate
    train = {
        "optimizer": candidate.optimizer.model_dump(mode="json"),
        "learning_rate": [best.learning_rate],
        "max_rows": int(best.outcome.budget_rows),
    }
    return {"strategies": {candidate.name: candidate.strategy.model_dump(mode="json")}, "train": train}


def training_facts(experiment: Experiment, train_rows: int) -> TrainingFacts:
    """Return what the experiment's trainings are made of; an epoch has so many rows."""
    plan, (inputs, outputs) = experiment.profile.train, experiment.shape
    return TrainingFacts(
        model=experiment.model.model_dump(mode="json"),
        inputs=inputs,
        outputs=outputs,
        loss=experiment.loss.name,
        huber_delta=experiment.loss.delta,
        scaled=bool(experiment.profile.scale),
        loss_unit=experiment.loss_unit,
        averaging=plan.averaging,
        schedule=plan.schedule.model_dump(mode="json"),
        train_rows=train_rows,
        input_names=experiment.preparation.names if inputs <= MOST_NAMED else (),
        window=experiment.table.span,
        target_mean=experiment.preparation.target_mean,
        target_scale=experiment.preparation.target_scale,
        versions=experiment.data.versions,
        horizon=0 if experiment.table.schema.sequence is None else experiment.table.schema.sequence.horizon,
    )


def to_target(item: Finding) -> dict[str, Any]:
    """Return what it takes to reach the target, by the names of `StrategyResult`."""
    reached, timed = item.outcome.status == "reached", item.timings.step()
    fields: dict[str, Any] = {
        "status": item.outcome.status,
        "draws": len(item.outcome.losses),
        "seconds_per_step": timed.value,
        "seconds_per_step_ci": ends(timed),
        "delivery_share": item.timings.delivery_share,
        "peak_bytes": _finite(float(np.median(item.outcome.peak_bytes))),
        "noise_scale": None if item.noise_scale is None else _finite(item.noise_scale.value),
        "noise_scale_ci": None if item.noise_scale is None else ends(item.noise_scale),
        "mean_validation_loss": _finite(item.outcome.loss),
        "mean_test_loss": _finite(float(item.outcome.test_loss.mean())),
    }
    if item.outcome.status == "diverged":
        return fields | {f"{name}_to_target{end}": None for name in ("steps", "rows", "seconds") for end in ("", "_ci")}
    for name, estimate in (("steps", item.steps), ("rows", item.rows), ("seconds", item.seconds)):
        fields[f"{name}_to_target"] = estimate.value if reached else None
        fields[f"{name}_to_target_ci"] = ends(estimate) if reached else (estimate.value, None)  # what was spent: a lower bound
    return fields


def ends(estimate: Estimate) -> Interval:
    """Return both ends of an interval; None for one that is unbounded above."""
    return _bounded(estimate.low, estimate.high)


def _bounded(low: float, high: float) -> Interval:
    return low if math.isfinite(low) else 0.0, _finite(high)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def trials_frame(known: Known, unit: float) -> pd.DataFrame:
    """Return every trial of the search, one row each; losses in the target's unit (`unit` turns those of training into it), curves as
    lists."""
    rows = [
        {"phase": phase, **_trial_row(setting, result, unit)}
        for phase, known_trials in (
            ("race", {setting: entry.trials for setting, entry in known.standings.entries.items()}),
            ("confirming", known.confirmed),
        )
        for setting, results in known_trials.items()
        for result in results
    ]
    return pd.DataFrame(rows)


def _trial_row(setting: Setting, result: TrialResult, unit: float) -> dict[str, Any]:
    curve = result.curve
    return {
        "strategy": setting.updates.kind,
        "batch_rows": getattr(setting.updates, "batch_rows", None),
        "optimizer": optimizer_words(setting.optimizer),
        "typed": setting.typed,
        "learning_rate": result.trial.learning_rate,
        "seed": result.trial.seed,
        "division": result.trial.division,
        "status": "diverged" if result.diverged_at is not None else result.stopped or "completed",
        "diverged_at_step": result.diverged_at,
        "steps": result.steps,
        "rows_seen": result.rows_seen,
        "validation_loss": _finite(curve.validation_loss[-1] * unit),
        "curve_rows_seen": curve.rows_seen,
        "curve_train_loss": (np.array(curve.train_loss) * unit).tolist(),
        "curve_validation_loss": (np.array(curve.validation_loss) * unit).tolist(),
        "curve_last_validation_loss": (np.array(curve.last_validation_loss) * unit).tolist(),
    }
