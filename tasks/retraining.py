"""Tasks of a retraining: its MLflow run, the challenger's training, and its place in the registry."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from batchlab.engine.records import Progress
from batchlab.experiment import Experiment
from batchlab.records import Record
from batchlab.results import Comparison
from batchlab.retraining.challenger import Challenger, challenged
from batchlab.retraining.dividing import held_out, windows
from batchlab.retraining.recipe import asked_of, followed, recipe_of
from batchlab.retraining.saved import Lineage
from batchlab.rows.split import Split
from batchlab.search.keeping import Kept
from batchlab.table import PackedTable
from tasks import events, progress, registry, store, unfinished
from tasks.models import log_model
from tasks.provenance import hardware, machine
from tasks.registry import Version
from tasks.reporting import prefect_link
from tasks.tracking import dataset_of, log_dataset, log_metrics, log_params, recorded_run, settings_of
from tasks.watching import Study

COMPARISON = "comparison.json"


class RetrainingRun(Record):
    """The retraining that a task works for: what it is to do, and where it is recorded."""

    study: Study
    experiment_id: str
    run_id: str


class Trained(Record):
    """The challenger's place in the registry and what is to be said of its training."""

    version: int
    run_id: str
    start: str
    remarks: tuple[str, ...]
    comparison_run_id: str


@contextmanager
def retraining_run(study: Study) -> Iterator[RetrainingRun]:
    """Open the MLflow run of a retraining; tell of drift first."""
    name = study.standing.name
    if study.drift is not None and study.drift.drifted:
        events.tell_of_model(events.DRIFT_FOUND, name, f"{name}: {study.drift.text}", champion=study.standing.champion)
    experiment_id = store.experiment_id(f"retraining-{name}")
    tags = {"batchlab.kind": "retraining", "batchlab.model": name, "batchlab.mode": study.mode}
    tags |= {"prefect.flow_run_id": flow_run.id or "", "prefect.flow_run_url": prefect_link() or ""}
    with recorded_run(experiment_id, f"{study.mode} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}", tags) as run_id:
        yield RetrainingRun(study=study, experiment_id=experiment_id, run_id=run_id)


@task(cache_policy=NO_CACHE)
def train(run: RetrainingRun, comparison: Comparison | None, seed: int) -> Challenger:
    """Train the challenger with the recommended setting: of the comparison just made, else the champion's."""
    study = run.study
    table, split = PackedTable.open(study.table), Split.open(_split(study))
    profile = study.profile if comparison is None else followed(study.profile, recipe_of(comparison.verdict))
    champion = study.standing.champion
    opened = None if champion is None else registry.opened(registry.version_of(study.standing.name, str(champion))).saved
    progress.moved("challenger", 0.0)
    only_warm, mark = study.mode == "update", study.standing.mark
    latest = () if only_warm or opened is None or mark is None else windows(split, table, profile, mark)
    kept = _kept(run, seed)
    trained = challenged(profile, table, split, opened, seed, _tell, only_warm, latest, kept)
    experiment = trained.experiment
    log_params(run.run_id, settings_of(experiment) | machine() | {"start": trained.start, "fresh_rows": study.fresh_rows})
    log_dataset(run.run_id, dataset_of(table.schema, experiment.profile), "retraining")
    losses = trained.validation_losses
    log_metrics(run.run_id, {f"validation_loss_of_seed_{number}": loss for number, loss in enumerate(losses.tolist())})
    return trained


def compared_before(run: RetrainingRun, seed: int) -> Comparison | None:
    """Return the comparison that a retraining of the same rows, settings and code had made when it was killed; None where there is none."""
    path = _kept(run, seed).folder / COMPARISON
    try:
        found = Comparison.model_validate_json(path.read_text())
    except (OSError, ValueError):
        return None
    progress.announce("taking up a retraining of the same rows, settings and code that did not come to its end: its comparison was made")
    return found


def keep_comparison(run: RetrainingRun, seed: int, comparison: Comparison) -> None:
    """Keep the comparison that this retraining has made, until its challenger is registered."""
    folder = _kept(run, seed).folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{COMPARISON}.part").write_text(comparison.model_dump_json())
    (folder / f"{COMPARISON}.part").replace(folder / COMPARISON)


def _kept(run: RetrainingRun, seed: int) -> Kept:
    """Return what keeps the state of this retraining, and of all that are to do the same."""
    study = run.study
    key = unfinished.digest_of(study.mark.digest, _split(study).name, *unfinished.settings_of(study.profile), study.mode, seed)
    return unfinished.kept(f"retraining-{key}")


def _tell(told: Progress) -> None:
    progress.moved("challenger", told.rows_seen / max(told.rows_total, 1))


@task(cache_policy=NO_CACHE)
def register(run: RetrainingRun, trained: Challenger, comparison: Comparison | None, seed: int) -> Trained:
    """Log the challenger's model and register it as the newest version, with the alias `challenger`; what was kept of its training goes."""
    study, experiment = run.study, trained.experiment
    lineage = _lineage(study, experiment, trained, comparison)
    uri = log_model(run.run_id, experiment, trained.shipped, lineage)
    tags = {"mode": study.mode, "start": trained.start, registry.TABLE: study.mark.digest, "rows": str(study.mark.rows)}
    tags |= {registry.COMPARISON: lineage.comparison_run_id} if comparison is not None else {}
    version = registry.registered(study.standing.name, uri, run.run_id, tags)
    store.client().set_tag(run.run_id, "batchlab.version", str(version.number))
    _kept(run, seed).forget()
    return Trained(
        version=version.number,
        run_id=version.run_id,
        start=trained.start,
        remarks=(*study.remarks, *trained.remarks),
        comparison_run_id=lineage.comparison_run_id,
    )


def _lineage(study: Study, experiment: Experiment, trained: Challenger, comparison: Comparison | None) -> Lineage:
    """Return where the challenger comes from: a comparison just made, or the one whose setting is followed."""
    common = {
        "mark": study.mark,
        "held_out": held_out(experiment.table, experiment.split),
        "classes": experiment.table.schema.target.classes,
        "start": trained.start,
        "target": experiment.table.schema.target.name,
        "source": study.profile.source.identity,
    }
    before = study.standing.followed
    if comparison is not None or before is None:
        assert comparison is not None
        return Lineage(
            recipe=recipe_of(comparison.verdict),
            asked=asked_of(study.profile),
            compared_rows=comparison.comparison.rows.train,
            comparison_run_id=comparison.comparison.mlflow_run_id,
            hardware=hardware(),
            **common,
        )
    return before.model_copy(update=common)


def version_in(run: RetrainingRun, trained: Trained) -> Version:
    """Return the challenger's version."""
    return Version(run.study.standing.name, trained.version, trained.run_id)


def _split(study: Study) -> Path:
    assert study.split is not None
    return study.split
