"""Opening a comparison's parent run, and the report that closes it: in MLflow, in Prefect, and as a value."""

import os
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.settings import PREFECT_UI_URL

from batchlab.config import Profile
from batchlab.experiment import Experiment
from batchlab.report import figures
from batchlab.report.markdown import report
from batchlab.results import Comparison, ComparisonFacts, RowCounts, StrategyResult, table
from tasks import progress, store
from tasks.data import opened
from tasks.provenance import machine
from tasks.tracking import end_abandoned_runs, log_dataset, log_metrics, log_params, recorded_run, settings_of
from tasks.training import ComparisonRun, Trained

CURVE_METRICS = ("train_loss", "validation_loss", "epoch", "rows_seen", "wall_seconds")


@contextmanager
def comparison_run(profile: Profile, packed: Path, parts: Path) -> Iterator[ComparisonRun]:
    """Open the parent run of a comparison; runs that a killed process left RUNNING are ended first."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    progress.stopping.clear()
    store.client()
    end_abandoned_runs()
    experiment = opened(profile, packed, parts)
    source = profile.source.name
    experiment_id = store.experiment_id(f"comparison-{source}")
    tags = {"batchlab.kind": "comparison", "prefect.flow_run_id": flow_run.id or "", "prefect.flow_run_url": _prefect_link() or ""}
    with recorded_run(experiment_id, f"comparison of {len(profile.strategies)} strategies on {source}", tags) as run_id:
        # MLflow's UI opens in its GenAI view unless told otherwise.
        links = {"MLflow run": f"{mlflow_ui()}/#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"}
        if link := _prefect_link():
            links["Prefect flow run"] = link
        log_params(run_id, settings_of(experiment) | machine())
        log_dataset(run_id, experiment.table.schema, profile, "comparison")
        monitor = SystemMetricsMonitor(run_id, sampling_interval=2)
        monitor.start()
        try:
            yield ComparisonRun(profile=profile, table=packed, split=parts, experiment_id=experiment_id, run_id=run_id, links=links)
        finally:
            monitor.finish()


def mlflow_ui() -> str:
    """Return the address of the MLflow UI: where MLFLOW_UI_URL says, else where `batchlab ui` serves it."""
    return os.environ.get("MLFLOW_UI_URL", "http://127.0.0.1:5000")


def _prefect_link() -> str | None:
    """Return the address of this flow run in the Prefect UI; None without a server that has one."""
    base = PREFECT_UI_URL.value()
    return f"{base}/runs/flow-run/{flow_run.id}" if base and flow_run.id else None


def outcome(trained: PrefectFuture[Trained], scored: PrefectFuture[StrategyResult]) -> StrategyResult | BaseException:
    """Wait for one strategy and return its result, or the error that ended its training or its scoring."""
    first = trained.result(raise_on_failure=False)
    return first if isinstance(first, BaseException) else scored.result(raise_on_failure=False)


@task(cache_policy=NO_CACHE)
def conclude(comparison: ComparisonRun, outcomes: Sequence[StrategyResult | BaseException]) -> Comparison:
    """Write the report of the strategies that succeeded to MLflow and Prefect; then raise the first failure, if there was one."""
    experiment = opened(comparison.profile, comparison.table, comparison.split)
    strategies = tuple(outcome for outcome in outcomes if isinstance(outcome, StrategyResult))
    result = Comparison(comparison=_facts(comparison, experiment), strategies=strategies)
    schema = experiment.table.schema
    text = report(f"{schema.target.name} of {schema.source}: {len(strategies)} batching strategies", result, comparison.links)
    _to_mlflow(comparison, experiment, result, text)
    _to_prefect(comparison, result, text)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return result


def _facts(comparison: ComparisonRun, experiment: Experiment) -> ComparisonFacts:
    return ComparisonFacts(
        mlflow_run_id=comparison.run_id,
        mlflow_experiment_id=comparison.experiment_id,
        prefect_flow_run_id=flow_run.id,
        task=experiment.table.schema.target.task,
        device=str(experiment.device),
        rows=RowCounts(**experiment.split.sizes()),
        split_digest=experiment.split.digest,
    )


def _to_mlflow(comparison: ComparisonRun, experiment: Experiment, result: Comparison, text: str) -> None:
    client, run_id, schema = store.client(), comparison.run_id, experiment.table.schema
    client.set_tag(run_id, "mlflow.note.content", text)
    client.log_text(run_id, text, "report.md")
    client.log_text(run_id, result.model_dump_json(indent=2), "comparison.json")
    client.log_figure(run_id, figures.data_overview(experiment.table, experiment.split), "plots/data.png")
    unit = "nats" if schema.target.classes else f"{schema.target.name}²"
    curves = {item.name: curve_of(item.mlflow_run_id) for item in result.strategies}
    if curves:
        client.log_figure(run_id, figures.loss_curves(curves, unit), "plots/loss_curves.png")
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    seconds = sum(item.train_seconds for item in result.strategies)
    log_metrics(run_id, {"strategies": len(result.strategies), "train_seconds": seconds, "peak_resident_bytes": peak_bytes})


def curve_of(run_id: str) -> dict[str, list[float]]:
    """Return the curve that a child run recorded, by metric, in order of steps."""
    client = store.client()
    return {name: [point.value for point in client.get_metric_history(run_id, name)] for name in CURVE_METRICS} | {
        "step": [float(point.step) for point in client.get_metric_history(run_id, "train_loss")]
    }


def _to_prefect(comparison: ComparisonRun, result: Comparison, text: str) -> None:
    headings, rows = table(result.comparison.task, result.strategies)
    create_markdown_artifact(text, key="comparison-report", description="What was compared, and what came of it")
    create_table_artifact(pd.DataFrame(rows, columns=headings).to_dict("records"), key="comparison-table", description="One row a strategy")
    create_link_artifact(
        comparison.links["MLflow run"], link_text="The comparison in MLflow (start its UI with `batchlab ui`)", key="mlflow-run"
    )
