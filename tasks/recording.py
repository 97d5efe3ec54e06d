"""The tasks that record the settings of a finished search: a child run each, with curves, numbers, model and scores."""

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prefect import task
from prefect.cache_policies import NO_CACHE

from batchlab.experiment import Experiment
from batchlab.report.ranking import ranked
from batchlab.report.wording import why
from batchlab.results import StrategyResult
from batchlab.search.findings import Finding, Findings, RateSummary
from batchlab.search.known import Known
from batchlab.search.records import to_target
from batchlab.search.search import Search
from batchlab.search.space import optimizer_words
from tasks import address, drawing, progress, spool, store
from tasks.evaluation import PARTS, scored, unseen
from tasks.models import Models
from tasks.outages import Patience, store_answers
from tasks.provenance import owner
from tasks.spool import Told
from tasks.tracking import (
    SECONDS,
    dataset_of,
    log_batches,
    log_dataset,
    metrics_along,
    metrics_at,
    recorded_run,
    remove_children,
    settings_of,
)


@dataclass(frozen=True)
class Ended:
    """A search that has come to its end: what it compared, found and knew."""

    experiment: Experiment
    findings: Findings
    known: Known


class Recording:
    """What recording the settings of a finished search needs once for all of them."""

    def __init__(self, search: Ended, told: Told, waits: bool = True) -> None:
        self.search, self.told, self.comparison = search, told, told.comparison
        self.models = Models(search.experiment)
        # What retraining goes by is no setting of a training; without it one call to MLflow takes all.
        self.settings = {key: value for key, value in settings_of(search.experiment).items() if not key.startswith("retraining.")}
        self.dataset = dataset_of(search.experiment.table.schema, search.experiment.profile)
        self.waits = waits
        self.patience = Patience("MLflow", store_answers, waits and address.is_server(told.comparison.store))
        self.complete = spool.settings_of(told.comparison.run_id)
        self.seconds: dict[str, float] = {}
        self.hurry = threading.Event()

    def share(self) -> float:
        """Return the share of the settings that are recorded."""
        return len(self.complete) / len(self.search.findings.labels)

    def hurried(self) -> str:
        """Leave the settings that are not recorded yet, other than the recommended one, unrecorded; returns what to tell of that."""
        self.hurry.set()
        return "beside the recommended setting, those that are not recorded yet are left out; Ctrl-C once more leaves at once"


def best_first(found: Findings) -> list[str]:
    """Return the labels of the settings in the order of their records: the best first, should somebody be in a hurry."""
    return [item.candidate.label for item in ranked(found)]


@task(cache_policy=NO_CACHE)
def plan_recording(search: Search, told: Told) -> Recording:
    """Return what records the settings of a finished search, which Prefect takes as it is: an `Ended` it would search for futures. Their
    pages are drawn meanwhile, unless memory is bounded: it would be a second process to bound."""
    if search.experiment.profile.memory_gib is None:
        drawing.want(drawing.wanted_of(told.comparison, search.experiment))
    return Recording(Ended(search.experiment, search.findings, search.known), told)


@task(task_run_name="record {label}", cache_policy=NO_CACHE)
def record(label: str, recording: Recording) -> StrategyResult:
    """Record one setting in a child run: its numbers with intervals, its curves over draws, what its rates came to, its model and scores.

    A setting whose turn comes after somebody was in a hurry, other than the recommended one, or after MLflow was given up, is not recorded.
    """
    return recorded_setting(label, recording)


def recorded_setting(label: str, recording: Recording) -> StrategyResult:
    """Record one setting unless that is done; what an attempt that failed has left of it is replaced."""
    search, item = recording.search, recording.search.findings.of(label)
    if label in recording.complete:
        return recording.complete[label]
    progress.begin(f"recording {label}", recording.share, recording.hurried)
    plain = result_of(item, search)
    if recording.hurry.is_set() and item is not search.findings.best:
        return plain
    result = recording.patience.tried(lambda: _in_child_run(label, item, recording), plain)
    if recording.patience.reason is None:
        recording.complete[label] = result
        with suppress(OSError):  # a disk that is full: should this process be killed, too, the setting is recorded again in its place
            spool.note_setting(recording.comparison.run_id, result)
    return result


def _in_child_run(label: str, item: Finding, recording: Recording) -> StrategyResult:
    search, comparison, began = recording.search, recording.comparison, time.time()
    if recording.patience.failed or comparison.taken_up or recording.told.owner != owner():
        remove_children(comparison.experiment_id, comparison.run_id, label)
    tags = {"mlflow.parentRunId": comparison.run_id, "strategy": item.candidate.name}
    tags |= {"batchlab.recommended": "yes"} if item is search.findings.best else {}
    with recorded_run(comparison.experiment_id, label, tags) as run_id:
        log_dataset(run_id, recording.dataset, "training")
        model = None
        if item.shown.weights and item.outcome.status != "diverged":
            model = recording.models.logged(run_id, item.shown)
        losses, scores = ({}, {}) if model is None else scored(recording.models, model, run_id, item is search.findings.best)
        final = {f"final_{key}" if key != "test_loss" else key: value for key, value in losses.items()}
        tested = {f"test_{key}": value for key, value in scores.items()}
        # first, so that the comparison view begins with them
        metrics = metrics_at(_own_metrics(item) | final | tested, item.shown.steps, model)
        curve = metrics_along(curve_of(item, search.findings), began)
        log_batches(run_id, _own_params(item) | recording.settings, [*metrics, *curve])
        rates = [_rate_row(rate, search.findings.loss_unit) for rate in item.rates]
        if rates:
            store.client().log_table(run_id, {key: [row[key] for row in rates] for key in rates[0]}, "rates.json")
    recording.seconds[label] = time.time() - began
    return result_of(item, search, run_id, losses, scores)


def result_of(
    item: Finding,
    search: Ended | Search,
    run_id: str | None = None,
    losses: Mapping[str, float | None] = MappingProxyType({}),
    scores: Mapping[str, float | None] = MappingProxyType({}),
) -> StrategyResult:
    """Return the setting's row of the table, with the losses and scores of its saved model where there is one."""
    found, candidate, shown = search.findings, item.candidate, item.shown
    return StrategyResult(
        name=candidate.name,
        label=candidate.label,
        kind=candidate.strategy.kind,
        batch_rows=candidate.batch_rows,
        optimizer=optimizer_words(candidate.optimizer),
        learning_rate=item.learning_rate,
        recommended=item is found.best,
        reason="; ".join(filter(None, (why(found, item), unseen(search.experiment)))) or None,
        **to_target(item),
        **{f"{part}_loss": losses.get(f"{part}_loss") for part in PARTS},
        metrics=dict(scores),
        steps=shown.steps,
        epochs=shown.epochs,
        rows_seen=shown.rows_seen,
        train_seconds=found.seconds_of(candidate.label),
        mlflow_run_id=run_id,
    )


def _own_params(item: Finding) -> dict[str, Any]:
    return {
        "strategy": item.candidate.name,
        "setting": item.candidate.label,
        "batch_rows": item.candidate.batch_rows,
        "learning_rate": item.learning_rate,
        "optimizer": optimizer_words(item.candidate.optimizer),
        "status": item.outcome.status,
    }


COMPARED = ("mean_validation_loss", "mean_test_loss", "seconds_to_target", "seconds_per_step")
GROUPS = {name: f"compare/{name}" for name in COMPARED} | {
    "peak_bytes": "compare/peak_mib",
    "noise_scale": "noise/noise_scale",
    "delivery_share": "search/delivery_share",
    "draws": "search/draws",
}
"""MLflow draws one chart a metric, by groups in the order of their names: first what people compare."""


def _own_metrics(item: Finding) -> dict[str, float | None]:
    """Return the numbers that the comparison view shows; `interval/…_low` and `…_high` are the ends of the 95% intervals.

    What it takes to reach the target is a lower bound where `status` says that it was not reached: MLflow compares runs by what they all
    have.
    """
    found = {name: value for name, value in to_target(item).items() if name != "status"}
    ways = (("steps", item.steps), ("rows", item.rows), ("seconds", item.seconds))
    found |= {f"{name}_to_target": estimate.value for name, estimate in ways}
    found["peak_bytes"] = None if found["peak_bytes"] is None else found["peak_bytes"] / 2**20
    metrics: dict[str, float | None] = {}
    for name, value in found.items():
        if name.endswith("_ci"):
            low, high = value or (None, None)
            metrics |= {f"interval/{name.removesuffix('_ci')}_low": low, f"interval/{name.removesuffix('_ci')}_high": high}
        else:
            metrics[GROUPS.get(name, name)] = value
    return {name: None if value is None else _plain(value) for name, value in metrics.items()}


def _rate_row(rate: RateSummary, unit: float) -> dict[str, Any]:
    """Return what an optimizer and rate came to in the race, in the target's unit."""
    return {
        "optimizer": rate.optimizer,
        "learning_rate": rate.learning_rate,
        "draws": rate.draws,
        "rows_seen": rate.rows,
        "validation_loss": _plain(rate.loss * unit),
        "left": "" if rate.left is None else rate.left.why,
    }


def _plain(value: float) -> float | None:
    return value if np.isfinite(value) else None


def curve_of(item: Finding, found: Findings) -> dict[str, list[float]]:
    """Return the curve over draws: mean losses with the lowest and highest of the draws, in the target's unit, and every x-axis.

    Seconds are steps × the undisturbed seconds of a step. Its points are those of the draw that has the fewest; the others are
    interpolated in logarithms of rows.
    """
    curves = [result.curve for result in item.results if result.diverged_at is None] or [item.shown.curve]
    rows = np.asarray(min(curves, key=lambda curve: len(curve.rows_seen)).rows_seen, np.float64)

    def over_draws(name: str) -> NDArray[np.float64]:
        return np.array([np.interp(np.log1p(rows), np.log1p(curve.rows_seen), getattr(curve, name)) for curve in curves])

    columns = {"step": over_draws("step").mean(0).round(), "x_axis/epoch": over_draws("epoch").mean(0), "x_axis/rows_seen": rows}
    columns[SECONDS] = columns["step"] * item.timings.step().value
    for name in ("train_loss", "validation_loss", "last_validation_loss"):
        losses = over_draws(name) * found.loss_unit
        columns |= {name: losses.mean(0), f"interval/{name}_low": losses.min(0), f"interval/{name}_high": losses.max(0)}
    return {name: values.tolist() for name, values in columns.items()}
