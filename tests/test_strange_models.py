"""Saved models of strangers: their graphs, their files and the code that they carry."""

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from batchlab.errors import BadInput
from batchlab.files.sealing import seal
from batchlab.retraining import saved
from batchlab.scoring.shipping import GRAPH, export
from batchlab.serving import graphs
from tests.test_fuzz import lineage
from tests.test_predict import registered, store_of, trained
from tests.test_security import Touch

MODEL, WEIGHTS, CONSTANTS = (
    f"model/{name}"
    for name in ("models/model.json", "data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model as retraining saves it."""
    made = tmp_path_factory.mktemp("strange")
    experiment, result = trained(made, "band")
    (made / "model").mkdir()
    export(experiment.ship(result), experiment.table.schema.columns, made / "model")
    saved.save(made / "model", experiment.preparation, result.weights, lineage(experiment))
    return made / "model"


def entries(folder: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(folder / GRAPH) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(path: Path, held: dict[str, bytes], **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in held.items():
            archive.writestr(name, content)
    return path


def changed(held: dict[str, bytes], name: str, change: Callable[[Any], object]) -> dict[str, bytes]:
    tree = json.loads(held[name])
    change(tree)
    return {**held, name: json.dumps(tree).encode()}


def pickled(ran: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Touch(ran), buffer)
    return buffer.getvalue()


Attack = Callable[[dict[str, bytes], str, Path], dict[str, bytes]]


def first_weight(tree: Any) -> dict[str, Any]:
    fact: dict[str, Any] = next(iter(tree["config"].values()))
    return fact


def nodes(tree: Any) -> Any:
    return tree["graph_module"]["graph"]["nodes"]


def of_weights(held: dict[str, bytes], code: str, ran: Path) -> dict[str, bytes]:
    path = first_weight(json.loads(held[WEIGHTS]))["path_name"]
    return changed(held, WEIGHTS, lambda tree: first_weight(tree).update(use_pickle=True)) | {f"model/data/weights/{path}": pickled(ran)}


def of_constants(held: dict[str, bytes], code: str, ran: Path) -> dict[str, bytes]:
    fact = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    config = json.dumps({"config": {"x": fact}}).encode()
    return {**held, CONSTANTS: config, "model/data/constants/opaque_obj_0": pickle.dumps(Touch(ran))}


def of_size(held: dict[str, bytes], code: str, ran: Path) -> dict[str, bytes]:
    expression = {"as_expr": {"expr_str": code, "hint": {"as_int": 2}}}
    values = "tensor_values"
    return changed(held, MODEL, lambda tree: tree["graph_module"]["graph"][values]["packed"]["sizes"].__setitem__(0, expression))


def of_name(held: dict[str, bytes], code: str, ran: Path) -> dict[str, bytes]:
    return {**held, MODEL: held[MODEL].decode().replace('"packed"', json.dumps(f"packed={code}")).encode()}


def of_call(target: str) -> Attack:
    return lambda held, code, ran: changed(held, MODEL, lambda tree: nodes(tree)[0].update(target=target))


ATTACKS: dict[str, Attack] = {
    "weights": of_weights,
    "constants": of_constants,
    "example": lambda held, code, ran: {**held, "model/data/sample_inputs/model.pt": pickled(ran)},
    "size": of_size,
    "range": lambda held, code, ran: changed(
        held, MODEL, lambda tree: tree["range_constraints"].update({code: {"min_val": 2, "max_val": 3}})
    ),
    "guard": lambda held, code, ran: changed(held, MODEL, lambda tree: tree.update(guards_code=[code])),
    "name": of_name,
    "hub": of_call("torch.hub.load"),
    "file": of_call("torch.ops.aten.from_file.default"),
    "library": lambda held, code, ran: {**held, "model/data/aotinductor/model/x.so": b"\x7fELF"},
    "older form": lambda held, code, ran: {"version": b"8.20", "serialized_state_dict.pt": pickled(ran)},
}
HARMLESS = {"example", "guard"}
"""What they ask for is left out, and the rest is a model."""


@pytest.mark.parametrize("name", ATTACKS)
def test_no_graph_runs_code_when_it_is_opened_or_used(name: str, folder: Path, tmp_path: Path) -> None:
    ran, held = tmp_path / "ran", entries(folder)
    path = written(tmp_path / "model.pt2", ATTACKS[name](held, f"__import__('os').system('touch {ran}')", ran))
    if name in HARMLESS:
        width = sum(len(column.packed_names) for column in saved.columns_of(folder))
        assert graphs.opened(path)(torch.zeros(3, width)).shape == (3, 3)
    else:
        with pytest.raises(BadInput, match=r"model.pt2' is no exported graph that can be used"):
            graphs.opened(path)
    assert not ran.exists()


def test_a_graph_of_other_sizes_or_packed_more_tightly_is_refused(folder: Path, tmp_path: Path) -> None:
    held = entries(folder)
    vast = changed(held, WEIGHTS, lambda tree: first_weight(tree)["tensor_meta"].update(sizes=[{"as_int": 2**40}]))
    for content, options in ((vast, {}), (held, {"compression": zipfile.ZIP_DEFLATED}), ({}, {}), ({MODEL: b"{}"}, {})):
        with pytest.raises(BadInput, match="is no exported graph that can be used"):
            graphs.opened(written(tmp_path / "model.pt2", content, **options))  # type: ignore[arg-type]
    (tmp_path / "model.pt2").unlink()
    (tmp_path / "model.pt2").symlink_to(folder / GRAPH)
    with pytest.raises(BadInput, match="is a symbolic link"):
        graphs.opened(tmp_path / "model.pt2")


@pytest.mark.parametrize(
    "choices", [[], ["encoding.categories=embedding", "train.backend=torch"], ["train.loss=huber", "scale=false", "train.backend=torch"]]
)
def test_a_graph_that_is_opened_safely_predicts_bit_for_bit_what_torch_would(choices: list[str], tmp_path: Path) -> None:
    experiment, result = trained(tmp_path, "price", *choices)
    export(experiment.ship(result), experiment.table.schema.columns, tmp_path)
    rows = torch.from_numpy(np.array(experiment.table.features[:500]))
    with torch.no_grad():
        expected = torch.export.load(tmp_path / GRAPH).module()(rows)
        assert torch.equal(graphs.opened(tmp_path / GRAPH)(rows), expected)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("columns.json", '[{"name": 1, "kind": "number"}]', "columns.json' is no list of columns"),
        ("columns.json", '[{"name": "a", "kind": "../../x"}]', "columns.json' is no list of columns"),
        ("columns.json", '[{"name": "a", "kind": "number", "run": "x"}]', "columns.json' is no list of columns"),
        ("lineage.json", "[" * 100_000, "lineage.json' is no JSON"),
        ("lineage.json", '{"preparation": {}, "lineage": {}}', "lineage.json' is no description of a saved model"),
        ("weights.npz", "PK", "weights.npz' is no file of weights"),
    ],
)
def test_a_strangers_files_of_a_model_are_refused_by_name(name: str, content: str, said: str, folder: Path, tmp_path: Path) -> None:
    strange = tmp_path / "model"
    shutil.copytree(folder, strange)
    assert saved.opened(strange).weights
    (strange / name).write_text(content)
    seal(strange)
    with pytest.raises(BadInput, match=said):
        saved.opened(strange)
    (strange / name).unlink()
    (strange / name).symlink_to(folder / name)
    with pytest.raises(BadInput, match="is a symbolic link"):
        saved.opened(strange)


def test_code_that_a_model_carries_runs_only_where_it_was_registered_here(mlruns: Path, scratch: Path) -> None:
    import mlflow

    from tasks import model_files, registry, serving, store

    with store_of(mlruns):
        version = registered(scratch, "houses")
        assert type(serving.saved_model(version).served).__module__ == "batchlab.serving.batchlab_serving"
        strange = scratch / "strange"
        shutil.copytree(mlflow.artifacts.download_artifacts(artifact_uri=version.uri), strange)
        with (strange / "code" / f"{model_files.CARRIED}.py").open("a") as file:
            file.write(f"\n\nopen({str(scratch / 'ran')!r}, 'w')\n")
        client = store.client()
        made = client.create_model_version("houses", strange.as_uri(), version.run_id)
        other = registry.Version("houses", int(made.version), version.run_id)
        with pytest.raises(BadInput, match="version 2 of 'houses' carries code that was not registered by Batchlab, or has been changed"):
            serving.saved_model(other)
        assert not (scratch / "ran").exists()
        client.set_model_version_tag("houses", made.version, registry.FILES, model_files.digest_of(registry.downloaded(other)))
        assert serving.saved_model(other).served.columns
        assert (scratch / "ran").exists()
        os.remove(scratch / "ran")
        place = next((mlruns / "artifacts").rglob(f"data/{saved.FOLDER}/columns.json"))
        place.write_text(place.read_text().replace('"rooms"', '"floor"'))
        model_files.downloaded.cache_clear()
        with pytest.raises(BadInput, match=r"columns.json' is not as it was written: its digest is another; take another version"):
            serving.saved_model(version)
