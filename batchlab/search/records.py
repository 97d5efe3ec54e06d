"""Findings as the records that JSON, MLflow and the terminal take."""

import math
from typing import Any

import numpy as np
import pandas as pd

from batchlab.analysis.estimates import Estimate
from batchlab.engine.records import TrialResult
from batchlab.report.wording import verdict_text
from batchlab.results import Interval, Verdict
from batchlab.search.findings import Finding, Findings
from batchlab.search.search import Search
from batchlab.search.trials import lowest, rows_to, steps_to


def verdict_of(found: Findings) -> Verdict:
    """Return the verdict as one frozen record."""
    choice, best, fit = found.choice, found.best, found.frontier
    up, full = (choice.runner_up, choice.full_batch) if choice is not None and choice.sure else (None, None)
    sound = fit is not None and not fit.poor and fit.within
    return Verdict(
        strategy=None if best is None else best.candidate.name,
        batch_rows=None if best is None else best.candidate.batch_rows,
        learning_rate=None if best is None else best.learning_rate,
        objective="time" if choice is None else choice.objective,
        value=None if choice is None else choice.value.value,
        ci=None if choice is None else ends(choice.value),
        one_training_ci=None if choice is None else ends(choice.one_more),
        runner_up=None if up is None else up.label,
        ratio=None if up is None else up.ratio,
        ratio_ci=None if up is None else _bounded(*up.ratio_ci),
        detectable=up is not None and up.detectable,
        ties=choice.ties if choice is not None and choice.sure else (),
        full_batch_ratio=None if full is None else full.ratio,
        full_batch_ratio_ci=None if full is None else _bounded(*full.ratio_ci),
        critical_batch=fit.critical_batch.value if fit is not None and sound else None,
        critical_batch_ci=ends(fit.critical_batch) if fit is not None and sound else None,
        throughput_knee=found.throughput_knee,
        memory_ceiling=found.memory_ceiling,
        target_loss=found.target_loss,
        trials=found.trials,
        search_seconds=found.seconds,
        periods=tuple(found.periods),
        notes=tuple(found.notes),
        text=verdict_text(found),
        settings=None if best is None else _settings(best),
    )


def _settings(best: Finding) -> dict[str, Any]:
    """Return the recommended setting as keys of a profile."""
    candidate = best.candidate
    train = {"optimizer": candidate.optimizer.model_dump(mode="json"), "learning_rate": [best.learning_rate]}
    return {"strategies": {candidate.name: candidate.strategy.model_dump(mode="json")}, "train": train}


def to_target(item: Finding) -> dict[str, Any]:
    """Return what it takes to reach the target, by the names of `StrategyResult`."""
    reached, timed = item.outcome.status == "reached", item.timings.step()
    fields: dict[str, Any] = {
        "status": item.outcome.status,
        "seeds": len(item.outcome.steps),
        "seeds_reached": item.outcome.seeds_reached,
        "seconds_per_step": timed.value,
        "seconds_per_step_ci": ends(timed),
        "delivery_share": item.timings.delivery_share,
        "peak_bytes": _finite(float(np.median(item.outcome.peak_bytes))),
        "noise_scale": None if item.noise_scale is None else _finite(item.noise_scale.value),
        "noise_scale_ci": None if item.noise_scale is None else ends(item.noise_scale),
    }
    for name, estimate in (("steps", item.steps), ("rows", item.rows), ("seconds", item.seconds)):
        fields[f"{name}_to_target"] = estimate.value if reached else None
        fields[f"{name}_to_target_ci"] = ends(estimate) if reached else (estimate.value, None)  # a mean of what was spent: a lower bound
    return fields


def ends(estimate: Estimate) -> Interval:
    """Return both ends of an interval; None for one that is unbounded above."""
    return _bounded(estimate.low, estimate.high)


def _bounded(low: float, high: float) -> Interval:
    return low if math.isfinite(low) else 0.0, _finite(high)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def trials_frame(search: Search) -> pd.DataFrame:
    """Return every trial of the search, one row each; losses in the target's unit, curves as lists."""
    rows = [
        {"phase": phase, **_trial_row(search, result), "settings": ", ".join(member.label for member in item.group.members)}
        | {"batch_rows": item.group.first.batch_rows, "optimizer": item.group.first.optimizer.kind}
        for item in search.groups.values()
        for phase, results in (("tuning", item.tuned), ("confirming", item.confirmed))
        for result in results
    ]
    return pd.DataFrame(rows)


def _trial_row(search: Search, result: TrialResult) -> dict[str, Any]:
    unit, curve = search.experiment.loss_unit, result.curve
    return {
        "learning_rate": result.trial.learning_rate,
        "seed": result.trial.seed,
        "status": "diverged" if result.diverged_at is not None else result.stopped or "completed",
        "diverged_at_step": result.diverged_at,
        "steps": result.steps,
        "rows_seen": result.rows_seen,
        "steps_to_target": _finite(steps_to(result, search.target)),
        "rows_to_target": _finite(rows_to(result, search.target)),
        "lowest_validation_loss": _finite(lowest(result) * unit),
        "curve_rows_seen": curve.rows_seen,
        "curve_train_loss": (np.array(curve.train_loss) * unit).tolist(),
        "curve_validation_loss": (np.array(curve.validation_loss) * unit).tolist(),
    }
