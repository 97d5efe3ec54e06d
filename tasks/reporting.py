"""Opening a comparison's parent run, and the report that closes it: in MLflow, in Prefect, and as a value."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cache, partial
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL

from batchlab.config import Profile
from batchlab.experiment import Experiment
from batchlab.report.markdown import report
from batchlab.report.wording import verdict_text
from batchlab.results import Comparison, ComparisonFacts, RowCounts, StrategyResult
from batchlab.search.records import verdict_of
from tasks import drawing, opening, prefect_reports, progress, spool, store, unfinished, warming
from tasks.abandoned import end_flow_runs
from tasks.data import opened
from tasks.drawing import Drawn, page_links, page_title
from tasks.opening import Opened, Wanted
from tasks.outages import Patience
from tasks.provenance import machine, provenance
from tasks.recording import Recording
from tasks.sampling import sampling
from tasks.tracking import (
    dataset_of,
    end_if_possible,
    ended_on_error,
    log_metrics,
    log_params,
    log_samples,
    log_trials,
    settings_of,
)
from tasks.unfinished import ComparisonRun


@contextmanager
def comparison_run(profile: Profile, packed: Path, parts: Path, fresh: bool) -> Iterator[ComparisonRun]:
    """Open the parent run of a comparison; runs that a killed process left RUNNING are ended first.

    It is the run of one of the same rows, settings and code that did not come to its end, where there is one, unless a `fresh` one is asked
    for. `conclude` ends it, once all is recorded.
    """
    progress.renewed()
    end_flow_runs()
    experiment = opened(profile, packed, parts)
    found = _opened_run(experiment, fresh)
    run_id, experiment_id = found.run_id, found.experiment_id
    with ended_on_error(run_id):
        if found.failure is not None:
            progress.announce(f"MLflow fails ({found.failure}); the search goes on, and is recorded at its end")
        # MLflow's UI opens in its GenAI view unless told otherwise.
        links = {"MLflow run": f"{store.ui_url()}/#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"}
        if link := prefect_link():
            links["Prefect flow run"] = link
        run = ComparisonRun(
            profile=profile,
            table=packed,
            split=parts,
            experiment_id=experiment_id,
            run_id=run_id,
            links=links,
            store=store.tracking_uri(),
            prefect=PREFECT_API_URL.value() or None,
            flow_run_id=None if flow_run.id is None else str(flow_run.id),
            of_its_own=flow_run.flow_name == "comparison",
            taken_up=found.taken_up,
        )
        # MLflow, which samples, is imported after a search that has no time to spare.
        with sampling(run_id) if profile.search.max_minutes >= warming.LEAST_MINUTES else nullcontext():
            yield run


def _opened_run(experiment: Experiment, fresh: bool) -> Opened:
    """Return the run that records the comparison, which may take up one that was ended."""
    key = unfinished.key_of(experiment)
    found = opening.opened(_wanted(experiment, None if fresh else unfinished.left_by(key)))
    if found.taken_up:
        spool.begin_again(found.run_id)  # what it had told already is told and recorded again, in the same run
    unfinished.begin(key, found.run_id)
    return found


def _wanted(experiment: Experiment, before: str | None = None) -> Wanted:
    """Return what a comparison's run says from its beginning: what is compared, on which machine, for which flow run."""
    source = experiment.profile.source.name
    tags = {"batchlab.kind": "comparison", "prefect.flow_run_id": str(flow_run.id or ""), "prefect.flow_run_url": prefect_link() or ""}
    return Wanted(
        experiment=f"comparison-{source}",
        name=f"comparing on {source}",
        tags=provenance() | tags,
        params={key: str(value) for key, value in (settings_of(experiment) | machine()).items()},
        dataset=dataset_of(experiment.table.schema, experiment.profile),
        before=before,
    )


def prefect_link() -> str | None:
    """Return the address of this flow run in the Prefect UI; None without a server that has one."""
    base = PREFECT_UI_URL.value()
    return f"{base}/runs/flow-run/{flow_run.id}" if base and flow_run.id else None


@task(cache_policy=NO_CACHE)
def conclude(recording: Recording, results: Sequence[StrategyResult]) -> Comparison:
    """Write the verdict, its page and all trials to MLflow and Prefect, and return the whole result; what cannot be written stays kept."""
    return concluded(recording, results)


def concluded(recording: Recording, results: Sequence[StrategyResult]) -> Comparison:
    """Write what closes a comparison, each part once; what MLflow or Prefect lacks then is told in a line."""
    comparison, search = recording.comparison, recording.search
    typed = {item.candidate.label for item in search.findings.typed}
    result = Comparison(
        comparison=_facts(comparison, search.experiment),
        verdict=verdict_of(search.findings, verdict_text(search.findings)),
        strategies=tuple(item for item in results if item.label not in typed),
        typed=tuple(item for item in results if item.label in typed),
    )
    drawn = cache(
        partial(drawing.drawn, drawing.wanted_of(comparison, search.experiment), search.findings, search.experiment, recording.seconds)
    )
    recording.patience.tried(lambda: _to_mlflow(recording, result, drawn), None)
    if recording.patience.reason is not None:
        end_if_possible(comparison.run_id, "FAILED")
        _tell_what_waits(recording, recording.patience)
        return result
    told = recording.told.model_copy(update={"result": result})
    with suppress(OSError):  # should Prefect fail and the disk be full, Prefect's part is lost
        spool.note(told)
    patience = Patience("Prefect", lambda: prefect_reports.answers(comparison), comparison.prefect is not None and recording.waits)
    patience.tried(lambda: prefect_reports.tell(told, page_title(search.experiment), page_links(comparison)), None)
    if patience.reason is not None:
        _tell_what_waits(recording, patience)
        return result
    spool.forget(comparison.run_id)
    unfinished.forget(comparison.run_id)
    return result


def _tell_what_waits(recording: Recording, patience: Patience) -> None:
    kept = spool.holds(recording.comparison.run_id)
    then = f"what it lacks is kept in {store.spool()}; the next batchlab command records it, or `batchlab record`"
    progress.announce(f"{patience.name} fails ({patience.reason}): {then if kept else 'what it lacks could not be kept'}")


def _facts(comparison: ComparisonRun, experiment: Experiment) -> ComparisonFacts:
    return ComparisonFacts(
        mlflow_run_id=comparison.run_id,
        mlflow_experiment_id=comparison.experiment_id,
        prefect_flow_run_id=comparison.flow_run_id,
        task=experiment.table.schema.target.task,
        device=str(experiment.device),
        rows=RowCounts(**experiment.split.sizes()),
        split_digest=experiment.split.digest,
    )


def _to_mlflow(recording: Recording, result: Comparison, drawn: Callable[[], Drawn]) -> None:
    """Write the verdict to the parent run and end it; written again, whole or in part, it is there once."""
    comparison, search, verdict = recording.comparison, recording.search, result.verdict
    client, run_id, experiment = store.client(), comparison.run_id, search.experiment
    text = report(page_title(experiment), result, page_links(comparison))
    opening.describe(run_id, _wanted(experiment))
    client.set_tag(run_id, "mlflow.note.content", text)
    with tempfile.TemporaryDirectory() as scratch:
        for name, content in _files(text, result, drawn()).items():
            path = Path(scratch) / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        client.log_artifacts(run_id, scratch)
    log_trials(run_id, search.known, experiment.loss_unit)
    log_samples(run_id)
    recommended = ("strategy", "batch_rows", "optimizer", "learning_rate", "rows")
    log_params(run_id, {f"verdict.{key}": getattr(verdict, key) for key in recommended})
    numbers = ("value", "loss", "best_loss", "test_loss", "target_loss", "seconds_to_target", "ratio", "full_batch_ratio")
    metrics = {f"verdict_{name}": getattr(verdict, name) for name in numbers}
    metrics |= {"compare/mean_validation_loss": verdict.loss, "compare/mean_test_loss": verdict.test_loss}
    metrics |= {"compare/seconds_to_target": verdict.seconds_to_target}
    metrics |= {f"sizes/{name}": getattr(verdict, name) for name in ("critical_batch", "throughput_knee", "memory_ceiling")}
    metrics |= {f"yardstick/{item.key}_test_loss": item.test_loss for item in verdict.yardsticks}
    metrics |= {"search/seconds": verdict.search_seconds, "search/trainings": verdict.trainings}
    metrics |= {"search/peak_resident_mib": recording.told.peak_mib}
    log_metrics(run_id, metrics, moment=recording.told.moment)
    client.set_tag(run_id, "mlflow.runName", _name(experiment, result))
    client.set_terminated(run_id, "FINISHED")


def _files(text: str, result: Comparison, drawn: Drawn) -> dict[str, bytes]:
    """Return what the run keeps as files, by their paths in it."""
    texts = {
        "report.md": text,
        "comparison.json": result.model_dump_json(indent=2),
        "verdict.json": result.verdict.model_dump_json(indent=2),
        drawing.PAGE: drawn.page,
        drawing.DATA_PAGE: drawn.data_page,
    }
    return {name: content.encode() for name, content in texts.items()} | drawn.pictures


def _name(experiment: Experiment, result: Comparison) -> str:
    """Return what the run is called once its verdict is known: runs of one data set are told apart by it."""
    verdict, source = result.verdict, experiment.profile.source.name
    if verdict.loss is None:
        return f"{source}: every setting diverged"
    return f"{source}: {verdict.strategy} {verdict.batch_rows}, {verdict.optimizer} {verdict.learning_rate:g}, loss {verdict.loss:.4g}"
