"""MLflow runs that end truthfully, and what is written into them: buffered, in batches. What it imports is little (tasks/opening.py)."""

import json
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks import outages, progress, store
from tasks.provenance import OWNER, owner_is_gone, provenance

if TYPE_CHECKING:
    from mlflow.entities import Metric

    from batchlab.config import Profile
    from batchlab.experiment import Experiment
    from batchlab.search.known import Known
    from batchlab.serving.batchlab_serving import PackedColumn
    from batchlab.table import Schema

SECONDS = "x_axis/wall_seconds"
METRICS_A_BATCH, PARAMS_A_BATCH = 1000, 100


@contextmanager
def recorded_run(experiment: str, name: str, tags: Mapping[str, str]) -> Iterator[str]:
    """Open an MLflow run and yield its id; it ends FINISHED, FAILED on an error, or KILLED on an interruption."""
    run_id = created_run(experiment, name, tags)
    with ended_on_error(run_id):
        yield run_id
    store.client().set_terminated(run_id, "FINISHED")


def created_run(experiment: str, name: str, tags: Mapping[str, str]) -> str:
    """Make an MLflow run and return its id."""
    return str(store.client().create_run(experiment, run_name=name, tags={**provenance(), **tags}).info.run_id)


@contextmanager
def ended_on_error(run_id: str) -> Iterator[None]:
    """End an MLflow run FAILED on an error and KILLED on an interruption; its good end is its owner's to tell, once all is recorded."""
    try:
        yield
    except Exception:
        end_if_possible(run_id, "KILLED" if progress.stopping.is_set() else "FAILED")
        raise
    except BaseException:
        progress.stopping.set()
        end_if_possible(run_id, "KILLED")
        raise


def end_if_possible(run_id: str, status: str) -> None:
    """End a run whose work has failed; where the store has failed, too, the next command ends it (tasks/abandoned.py)."""
    if not outages.store_answers():
        return
    try:
        with outages.impatient():
            store.client().set_terminated(run_id, status)
    except Exception as error:
        if outages.reason_of(error) is None:
            raise


def end_abandoned() -> None:
    """End the runs that are open but whose process on this machine is gone."""
    client = store.client()
    experiments = [item.experiment_id for item in client.search_experiments()]
    running = client.search_runs(experiments, "attributes.status = 'RUNNING'") if experiments else []
    for run in running:
        if owner_is_gone(run.data.tags.get(OWNER)):
            client.set_terminated(run.info.run_id, "KILLED")


def reopened(run_id: str, tags: Mapping[str, str]) -> None:
    """Open an MLflow run again that did not come to its end, for this process."""
    client = store.client()
    for key, value in {**provenance(), **tags}.items():
        client.set_tag(run_id, key, value)
    client.update_run(run_id, "RUNNING")


def is_gone(run_id: str) -> bool:
    """Whether somebody has deleted the run, or the store knows nothing of it."""
    client = store.client()  # before any part of MLflow: one thread at a time may import it for the first time
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_run(run_id).info.lifecycle_stage) == "deleted"
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return True


def remove_children(experiment_id: str, run_id: str, label: str | None = None) -> None:
    """Remove what a run has recorded of single settings, or of the one with this label, with its models."""
    client = store.client()
    for child in client.search_runs([experiment_id], f"tags.mlflow.parentRunId = '{run_id}'"):
        if label is None or child.info.run_name == label:
            for model in client.search_logged_models([experiment_id], f"source_run_id = '{child.info.run_id}'"):
                client.delete_logged_model(model.model_id)
            client.delete_run(child.info.run_id)


def log_params(run_id: str, params: Mapping[str, Any]) -> None:
    """Write parameters, in batches."""
    log_batches(run_id, params, [])


def log_metrics(run_id: str, metrics: Mapping[str, float | None], step: int = 0, moment: float | None = None) -> None:
    """Write single metrics at `step`; those without a value are left out. Written again at the same `moment` they are not doubled."""
    log_batches(run_id, {}, metrics_at(metrics, step, moment=moment))


def log_samples(run_id: str) -> None:
    """Write what was sampled of the machine during the search; written again it is not doubled."""
    from mlflow.entities import Metric

    from tasks import spool

    samples = [
        Metric(f"system/{key}", value, int(sample["moment"]), step)
        for step, sample in enumerate(spool.samples_of(run_id))
        for key, value in sample.items()
        if key != "moment"
    ]
    log_batches(run_id, {}, samples)


def log_batches(run_id: str, params: Mapping[str, Any], metrics: Sequence["Metric"]) -> None:
    """Write parameters and metrics together, in as few batches as MLflow takes: each waits for the disk."""
    from mlflow.entities import Param

    entities = [Param(key, str(value)[:6000]) for key, value in params.items()]
    count = max(-(-len(entities) // PARAMS_A_BATCH), -(-len(metrics) // METRICS_A_BATCH))
    for number in range(count):
        store.client().log_batch(
            run_id,
            metrics=metrics[number * METRICS_A_BATCH : (number + 1) * METRICS_A_BATCH],
            params=entities[number * PARAMS_A_BATCH : (number + 1) * PARAMS_A_BATCH],
        )


def metrics_at(metrics: Mapping[str, float | None], step: int, model: str | None = None, moment: float | None = None) -> list["Metric"]:
    """Return single metrics at `step` as MLflow takes them, those of the `model` at that address, too; without those that have no value."""
    from mlflow.entities import Metric

    now, names = int(1000 * (time.time() if moment is None else moment)), metric_names(metrics)
    model_id = None if model is None else model.removeprefix("models:/")
    return [Metric(names[key], value, now, step, model_id=model_id) for key, value in metrics.items() if value is not None]


def metric_names(keys: Iterable[str]) -> dict[str, str]:
    """Return a name that MLflow takes for each key, all different: class labels are the user's text, of any length and sign."""
    names: dict[str, str] = {}
    for key in keys:
        group, slash, label = key.partition("/")
        plain = re.sub(r"[^A-Za-z0-9_ -]", "_", label)[:100].strip() or "_"
        name = group + slash + plain if slash else group
        while name in names.values():
            name += "_"
        names[key] = name
    return names


def metrics_along(curve: Mapping[str, Sequence[float]], began: float) -> list["Metric"]:
    """Return every column of the curve as a metric at its `step`, so that any can be the x-axis of another.

    `began` is a moment in seconds since 1970; each point is stamped with the seconds of training after it.
    """
    from mlflow.entities import Metric

    columns = {name: values for name, values in curve.items() if name != "step"}
    entities = []
    for position, step in enumerate(curve["step"]):
        moment = int((began + curve[SECONDS][position]) * 1000)
        entities += [Metric(name, values[position], moment, int(step)) for name, values in columns.items()]
    return entities


def dataset_of(schema: "Schema", profile: "Profile") -> dict[str, str]:
    """Return where the rows came from, with the packed table's digest, as MLflow describes a data set."""
    place = profile.source.identity
    columns = [{"name": column.name, "type": type_of(column)} for column in schema.columns]
    target = {"name": schema.target.name, "type": "string" if schema.target.classes else "double"}
    return {
        "name": schema.source,
        "digest": schema.digest,
        "source_type": "local",
        "source": json.dumps({**profile.source.model_dump(mode="json"), **({"place": place} if place else {})}),
        "schema": json.dumps({"mlflow_colspec": [*columns, target]}),
        "profile": json.dumps({"num_rows": schema.rows, "num_elements": schema.rows * (len(columns) + 1)}),
    }


def log_dataset(run_id: str, dataset: Mapping[str, str], context: str) -> None:
    """Write what data set a run took, as `dataset_of` describes it, and what for."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    store.client().log_inputs(run_id, [DatasetInput(Dataset(**dataset), [InputTag("mlflow.data.context", context)])])


def type_of(column: "PackedColumn") -> str:
    """Return MLflow's name for what a raw column holds."""
    if column.kind == "number":
        return "long" if column.integer else "double"
    return {"boolean": "boolean", "datetime": "string" if column.text else "datetime", "category": "string"}[column.kind]


def settings_of(experiment: "Experiment") -> dict[str, Any]:
    """Return every setting by its key, as `--set` takes it, with what `auto` and defaults came to on this data and machine."""
    schema = experiment.table.schema
    return flattened(experiment.profile) | {
        "target": schema.target.name,
        "task": schema.target.task,
        "device": str(experiment.device),
        "train.loss": experiment.loss.name,
        "table_digest": schema.digest,
        "split_digest": experiment.split.digest,
    }


def flattened(profile: "Profile") -> dict[str, Any]:
    """Return every setting of the profile by its key."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else key, inner)
        else:
            flat[prefix] = value

    walk("", profile.model_dump(mode="json"))
    return flat


def log_trials(run_id: str, known: "Known", loss_unit: float) -> None:
    """Write every trial that was trained so far as a Parquet table."""
    from batchlab.search.records import trials_frame

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "trials.parquet"
        trials_frame(known, loss_unit).to_parquet(path)
        store.client().log_artifact(run_id, str(path))
