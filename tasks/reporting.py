"""Opening a comparison's parent run, and the report that closes it: in MLflow, in Prefect, and as a value."""

import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.settings import PREFECT_UI_URL

from batchlab.config import Profile
from batchlab.experiment import Experiment
from batchlab.report import figures
from batchlab.report.data_section import data_page
from batchlab.report.markdown import report
from batchlab.report.page import page
from batchlab.report.pictures import overview
from batchlab.report.tables import table
from batchlab.report.wording import verdict_text
from batchlab.results import Comparison, ComparisonFacts, RowCounts, StrategyResult
from batchlab.search.records import verdict_of
from batchlab.search.search import Search
from batchlab.search.space import optimizer_words, optimizers_of
from tasks import progress, store, unfinished
from tasks.abandoned import end_abandoned_runs
from tasks.data import opened
from tasks.provenance import machine
from tasks.recording import ComparisonRun, Recording
from tasks.tracking import log_dataset, log_metrics, log_params, log_trials, recorded_run, resumed_run, settings_of

PAGE, DATA_PAGE = "verdict.html", "data.html"


@contextmanager
def comparison_run(profile: Profile, packed: Path, parts: Path, fresh: bool) -> Iterator[ComparisonRun]:
    """Open the parent run of a comparison; runs that a killed process left RUNNING are ended first.

    It is the run of one of the same rows, settings and code that did not come to its end, where there is one, unless a `fresh` one is asked
    for.
    """
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    progress.renewed()
    store.client()
    end_abandoned_runs()
    experiment = opened(profile, packed, parts)
    source = profile.source.name
    experiment_id = store.experiment_id(f"comparison-{source}")
    tags = {"batchlab.kind": "comparison", "prefect.flow_run_id": flow_run.id or "", "prefect.flow_run_url": prefect_link() or ""}
    key = unfinished.key_of(experiment)
    before = None if fresh else unfinished.left_by(key)
    begun = recorded_run(experiment_id, f"comparing on {source}", tags) if before is None else resumed_run(before, tags)
    with begun as run_id:
        unfinished.begin(key, run_id)
        # MLflow's UI opens in its GenAI view unless told otherwise.
        links = {"MLflow run": f"{store.ui_url()}/#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"}
        if link := prefect_link():
            links["Prefect flow run"] = link
        log_params(run_id, settings_of(experiment) | machine())
        log_dataset(run_id, experiment.table.schema, profile, "comparison")
        monitor = SystemMetricsMonitor(run_id, sampling_interval=2)
        monitor.start()
        try:
            yield ComparisonRun(
                profile=profile,
                table=packed,
                split=parts,
                experiment_id=experiment_id,
                run_id=run_id,
                links=links,
                taken_up=before is not None,
            )
        finally:
            monitor.finish()


def prefect_link() -> str | None:
    """Return the address of this flow run in the Prefect UI; None without a server that has one."""
    base = PREFECT_UI_URL.value()
    return f"{base}/runs/flow-run/{flow_run.id}" if base and flow_run.id else None


@task(cache_policy=NO_CACHE)
def conclude(recording: Recording, results: Sequence[StrategyResult]) -> Comparison:
    """Write the verdict, its page and all trials to MLflow and Prefect, and return the whole result."""
    comparison, search = recording.comparison, recording.search
    experiment = search.experiment
    typed = {item.candidate.label for item in search.findings.typed}
    result = Comparison(
        comparison=_facts(comparison, experiment),
        verdict=verdict_of(search.findings, verdict_text(search.findings)),
        strategies=tuple(item for item in results if item.label not in typed),
        typed=tuple(item for item in results if item.label in typed),
    )
    schema = experiment.table.schema
    title = f"{schema.target.name} of {schema.source}"
    links = comparison.links | {"Report page": _page_link(comparison, PAGE), "Data page": _page_link(comparison, DATA_PAGE)}
    text = report(title, result, links)
    store.client().log_text(comparison.run_id, data_page(experiment, title=title, links=links), DATA_PAGE)
    _to_mlflow(comparison, search, result, text, page_of(comparison, search, title, recording.seconds))
    _to_prefect(links, result, text)
    unfinished.forget(comparison.run_id)
    return result


def page_of(comparison: ComparisonRun, search: Search, title: str, tracking: Mapping[str, float]) -> str:
    """Return the report page."""
    experiment, schema = search.experiment, search.experiment.table.schema
    sizes = experiment.split.sizes()
    facts = {
        "task": schema.target.task,
        "rows": f"{sizes['train']:,} training, {sizes['validation']:,} validation, {sizes['test']:,} test",
        "features": f"{len(schema.features):,}",
        "model": f"{experiment.profile.model.kind}, {experiment.loss.name}",
        "optimizers": ", ".join(optimizer_words(optimizer) for optimizer in optimizers_of(experiment.profile)),
        "device": f"{experiment.device}, {machine()['machine.cores']} cores, {machine()['machine.processor']}",
        "split": experiment.split.digest,
    }
    links = comparison.links | {"Data page": _page_link(comparison, DATA_PAGE)}
    unit = experiment.loss_unit_name
    return page(search.findings, title=title, unit=unit, facts=facts, tracking_seconds=tracking, links=links, experiment=experiment)


def _page_link(comparison: ComparisonRun, name: str) -> str:
    """Return where the MLflow UI shows a page: MLflow serves artifacts of a run at their paths."""
    return f"{comparison.links['MLflow run'].partition('?')[0]}/artifacts/{name}?workflowType=machine_learning"


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


def _to_mlflow(comparison: ComparisonRun, search: Search, result: Comparison, text: str, html: str) -> None:
    client, run_id, experiment = store.client(), comparison.run_id, search.experiment
    verdict = result.verdict
    client.set_tag(run_id, "mlflow.note.content", text)
    client.log_text(run_id, text, "report.md")
    client.log_text(run_id, html, PAGE)
    client.log_text(run_id, result.model_dump_json(indent=2), "comparison.json")
    client.log_text(run_id, verdict.model_dump_json(indent=2), "verdict.json")
    client.log_figure(run_id, figures.data_overview(experiment.table, experiment.split), "plots/data.png")
    client.log_figure(run_id, overview(search.findings, experiment.loss_unit_name), "plots/verdict.png")
    log_trials(run_id, search)
    recommended = ("strategy", "batch_rows", "optimizer", "learning_rate", "rows")
    log_params(run_id, {f"verdict.{key}": getattr(verdict, key) for key in recommended})
    numbers = ("value", "loss", "best_loss", "test_loss", "target_loss", "seconds_to_target", "ratio", "full_batch_ratio")
    metrics = {f"verdict_{name}": getattr(verdict, name) for name in numbers}
    metrics |= {"compare/mean_validation_loss": verdict.loss, "compare/mean_test_loss": verdict.test_loss}
    metrics |= {"compare/seconds_to_target": verdict.seconds_to_target}
    metrics |= {f"sizes/{name}": getattr(verdict, name) for name in ("critical_batch", "throughput_knee", "memory_ceiling")}
    metrics |= {f"yardstick/{item.key}_test_loss": item.test_loss for item in verdict.yardsticks}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    metrics |= {"search/seconds": verdict.search_seconds, "search/trainings": verdict.trainings, "search/peak_resident_mib": peak}
    log_metrics(run_id, metrics)
    client.set_tag(run_id, "mlflow.runName", _name(experiment, result))


def _name(experiment: Experiment, result: Comparison) -> str:
    """Return what the run is called once its verdict is known: runs of one data set are told apart by it."""
    verdict, source = result.verdict, experiment.profile.source.name
    if verdict.loss is None:
        return f"{source}: every setting diverged"
    return f"{source}: {verdict.strategy} {verdict.batch_rows}, {verdict.optimizer} {verdict.learning_rate:g}, loss {verdict.loss:.4g}"


def _to_prefect(links: Mapping[str, str], result: Comparison, text: str) -> None:
    headings, rows = table(result.comparison.task, result.strategies)
    create_markdown_artifact(text, key="comparison-report", description="The verdict and its table")
    create_table_artifact(pd.DataFrame(rows, columns=headings).to_dict("records"), key="comparison-table", description="One row a setting")
    create_link_artifact(links["MLflow run"], link_text="The comparison in MLflow (start its UI with `batchlab ui`)", key="mlflow-run")
    create_link_artifact(links["Report page"], link_text="The verdict's page (start the MLflow UI with `batchlab ui`)", key="report-page")
