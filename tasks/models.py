"""Models as they are saved: what all settings of a comparison share is made once, and each adds its own arrays."""

import filecmp
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from batchlab.engine.records import TrialResult
from batchlab.experiment import Experiment
from batchlab.files.sealing import seal
from batchlab.retraining import saved
from batchlab.retraining.saved import Lineage
from batchlab.table import PackedTable
from tasks import model_files, store
from tasks.tracking import type_of

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import LoggedModel
    from torch import nn
    from torch.export import ExportedProgram

NAME = "model"


class Models:
    """Logs models of one experiment, which take raw columns by name.

    A saved model holds a graph with arrays, one readable file that turns raw columns into the graph's, MLflow's description and
    requirements, and an example of raw rows. The first one is made by MLflow and torch.export; the others differ in their arrays and ids.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self._scratch = tempfile.TemporaryDirectory(prefix="batchlab-model-")
        self._program: ExportedProgram | None = None
        self._graph: nn.Module | None = None

    def logged(self, run_id: str, result: TrialResult, lineage: Lineage | None = None) -> str:
        """Log the trial's model in the run and return its address; with a `lineage` also what retraining needs."""
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus

        client = store.client()
        logged = client.create_logged_model(client.get_run(run_id).info.experiment_id, NAME, source_run_id=run_id)
        try:
            client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
            client.log_model_artifacts(logged.model_id, str(self._filled(result, lineage, logged)))
        except BaseException:
            client.finalize_logged_model(logged.model_id, LoggedModelStatus.FAILED)
            raise
        client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
        return str(logged.model_uri)

    def graph(self, uri: str) -> "nn.Module":
        """Return the graph of the model that was logged last, read back from the store; it maps packed columns to predictions. It is that
        of the one before with other arrays, where the store holds what was sent there, byte for byte."""
        from batchlab.scoring.shipping import GRAPH
        from batchlab.serving import graphs

        with tempfile.TemporaryDirectory(dir=self._scratch.name) as folder:
            stored, sent = model_files.stored_graph(uri, Path(folder)), Path(self._scratch.name) / NAME / model_files.EXPORTED / GRAPH
            if self._graph is None or self._program is None or not filecmp.cmp(stored, sent, shallow=False):
                self._graph = graphs.opened(stored)
            else:
                self._graph.load_state_dict(self._program.state_dict)
        return self._graph

    def _filled(self, result: TrialResult, lineage: Lineage | None, logged: "LoggedModel") -> Path:
        """Return the folder of a saved model with the trial's arrays and the logged model's ids."""
        import mlflow.models

        from batchlab.scoring.shipping import export

        place, exported = Path(self._scratch.name) / NAME, Path(self._scratch.name) / saved.FOLDER
        experiment, schema, inside = self.experiment, self.experiment.table.schema, place / model_files.EXPORTED
        exported.mkdir(exist_ok=True)
        self._program = export(experiment.ship(result), schema.columns, exported, self._program, schema.sequence)
        if lineage is not None:
            saved.save(exported, experiment.preparation, result.weights, lineage)
        seal(exported)
        if not place.exists():
            self._begun(place, exported)
        for path in exported.iterdir():
            path.replace(inside / path.name)
        described = mlflow.models.Model.load(place)
        described.artifact_path, described.run_id = logged.artifact_location, logged.source_run_id
        described.model_id = described.model_uuid = logged.model_id
        described.save(place / "MLmodel")
        return place

    def _begun(self, place: Path, exported: Path) -> None:
        """Let MLflow save the first model."""
        import mlflow
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, Schema, TensorSpec
        from mlflow.types.schema import AnyType

        from batchlab.serving import batchlab_serving

        schema = self.experiment.table.schema
        types = {column.name: type_of(column) for column in schema.columns}
        types |= {} if schema.sequence is None else {name: "string" for name in schema.sequence.names if name not in types}
        # Of any number: MLflow takes no int64 for a double, nor 2.5 for a long.
        inputs: list[ColSpec | TensorSpec] = [ColSpec(AnyType(), name) for name in types]
        outputs: list[ColSpec | TensorSpec] = [ColSpec("double", name) for name in (schema.target.classes or (schema.target.name,))]
        mlflow.pyfunc.save_model(
            path=str(place),
            loader_module=model_files.CARRIED,
            code_paths=[str(batchlab_serving.__file__)],
            data_path=str(exported),
            signature=ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs)),
            input_example=raw_example(self.experiment.table),
            pip_requirements=requirements(),
            metadata={
                "columns": types,
                "classes": list(schema.target.classes),
                "target": schema.target.name,
                "table_digest": schema.digest,
            },
        )


def log_model(run_id: str, experiment: Experiment, result: TrialResult, lineage: Lineage | None = None) -> str:
    """Log the trial's model, one of its kind, and return its address."""
    return Models(experiment).logged(run_id, result, lineage)


def raw_example(table: PackedTable) -> "pd.DataFrame":
    """Return a few raw rows as a person would write them: numbers as numbers, whatever text they were read from."""
    import pandas as pd

    frame = pd.read_parquet(table.example)
    for column in table.schema.columns:
        if column.text and column.kind == "number" and column.decimal == "." and not (column.unit or column.grouping):
            frame[column.name] = pd.to_numeric(frame[column.name], errors="coerce")
        elif column.kind == "number" and pd.api.types.is_timedelta64_dtype(frame[column.name].dtype):
            frame[column.name] = frame[column.name].dt.total_seconds()
    return frame


def requirements() -> list[str]:
    """Return what a process needs to load the model: the versions at work here."""
    from importlib.metadata import version

    return [f"{name}=={version(name)}" for name in ("mlflow", "torch", "numpy", "pandas", "pyarrow")]
