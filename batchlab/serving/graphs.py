"""The graph of a saved model, opened so that nothing which it holds is run as code, whoever wrote it.

`torch.export.load` unpickles what an archive asks it to, evaluates its expressions and guards, and pastes its names into Python code. Here
the archive is read entry by entry, held to what `batchlab.scoring.shipping.export` writes, and only that is handed on.
"""

import io
import json
import math
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchlab.files.received import check_entries, check_plain, refusing

if TYPE_CHECKING:
    from torch import nn

MODEL, EXAMPLE = "models/model.json", "data/sample_inputs/model.pt"
CONFIGS = {folder: f"data/{folder}/model_{folder}_config.json" for folder in ("weights", "constants")}
ENTRIES = re.compile(r"data/weights/weight_\d+|data/constants/tensor_\d+|archive_(?:format|version)|byteorder|\.data/version")
LEFT_OUT = re.compile(r"\.data/serialization_id|\.format_version|\.storage_alignment")
NUMBERS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, 7: 4, 8: 8, 12: 1, 13: 2}
"""Bytes of the types of numbers, by their numbers in an archive."""
OPERATORS = re.compile(
    r"torch\.ops\.aten\.(?!from_file|set_|resize)[a-z]\w*\.\w+|torch\.ops\.aten\._(?:assert_\w+|to_copy|softmax|log_softmax|unsafe_view)\.\w+"
    r"|_operator\.(?:add|sub|mul|floordiv|truediv|mod|neg|eq|ne|lt|le|gt|ge|getitem)|torch\.sym_(?:max|min|int|float|not)"
)
"""What a node may compute: arithmetic. `from_file` maps any file, and `set_` and `resize_` change what a tensor's memory is."""
NAME, WORDS = re.compile(r"[\w.]{0,300}"), re.compile(r"[\w.+,> -]{0,300}")
SYMBOL = re.compile(r"Symbol\('[su]\d{1,9}'(?:, \w+=True)*\)|\b[su]\d{1,9}\b")
ARITHMETIC = re.compile(r"(?!.*\*\*)[0-9 ()+*/-]{0,200}")
TREES = {(None, None), ("builtins.tuple", "null"), ("builtins.list", "null"), ("builtins.dict", "[]")}


def opened(path: Path) -> "nn.Module":
    """Return the graph in a file that `export` wrote; it maps packed columns to predictions. Raises BadInput for any other file."""
    import torch

    check_plain(path)
    with refusing(path, "exported graph"):
        with zipfile.ZipFile(path) as archive:
            check_entries(archive)
            held = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
        checked = io.BytesIO()
        with zipfile.ZipFile(checked, "w") as archive:
            for name, content in _checked(held).items():
                archive.writestr(f"model/{name}", content)
        checked.seek(0)
        try:
            return torch.export.load(checked).module()
        except Exception as error:  # torch has errors of its own
            raise ValueError(f"{type(error).__name__}: {error}") from error


def _checked(held: dict[str, bytes]) -> dict[str, bytes]:
    """Return the entries without what only tells where a graph came from; raises ValueError for others."""
    found = {EXAMPLE: b"", MODEL: json.dumps(_plain_graph(json.loads(held[MODEL]))).encode()}
    for folder, name in CONFIGS.items():
        config = json.loads(held[name])["config"]
        for fact in config.values():
            _check_array(fact, held.get(f"data/{folder}/{fact['path_name']}"))
        found[name] = json.dumps({"config": config}).encode()
    for name in held.keys() - found.keys():
        if not LEFT_OUT.fullmatch(name):
            if not ENTRIES.fullmatch(name):
                raise ValueError(f"it holds '{name}'")
            found[name] = held[name]
    return found


def _check_array(fact: dict[str, Any], content: bytes | None) -> None:
    """Raise ValueError for an array that is pickled, or larger than its bytes."""
    meta = fact["tensor_meta"]
    sizes = [size["as_int"] for size in meta["sizes"]]
    if fact["use_pickle"] is not False or content is None or meta["device"]["type"] != "cpu":
        raise ValueError("an array is not kept as plain numbers")
    if min(sizes, default=0) < 0 or math.prod(sizes) * NUMBERS[meta["dtype"]] > len(content):
        raise ValueError(f"an array {sizes} has {len(content):,} bytes")


def _plain_graph(model: dict[str, Any]) -> dict[str, Any]:
    """Return the graph without notes and guards; raises ValueError for one that does more than arithmetic."""
    module = model["graph_module"]
    model["guards_code"], module["metadata"] = [], {}
    if module.get("treespec_namedtuple_fields"):
        raise ValueError("it names types of its own")
    for item in _objects(model):
        if "target" in item:
            item["metadata"] = {}
            if not OPERATORS.fullmatch(item["target"]):
                raise ValueError(f"a node calls '{str(item['target'])[:80]}'")
        for key, value in item.items():
            _check_word(key, value)
    return model


def _check_word(key: str, value: Any) -> None:
    if not NAME.fullmatch(key) or key in ("as_operator", "as_custom_obj"):
        raise ValueError(f"'{key[:80]}' is no name")
    for word in value if isinstance(value, list) else [value]:
        if not isinstance(word, str):
            continue
        if key in ("in_spec", "out_spec"):
            _check_tree(word)
        elif key == "expr_str":
            if not ARITHMETIC.fullmatch(SYMBOL.sub("1", word)):
                raise ValueError(f"'{word[:80]}' is no arithmetic")
        elif not (WORDS if key == "as_string" else NAME if key != "torch_version" else WORDS).fullmatch(word):
            raise ValueError(f"'{word[:80]}' is no name")


def _check_tree(word: str) -> None:
    """Raise ValueError for a structure of arguments of other types than tuples, lists and empty dicts."""
    version, tree = json.loads(word)
    if version != 1 or any((item["type"], item["context"]) not in TREES for item in _objects(tree)):
        raise ValueError("its arguments are of types of its own")


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every JSON object within the value."""
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _objects(item)
