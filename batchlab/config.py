"""The profile: everything that decides a comparison, as one frozen tree; defaults < TOML profile < overrides."""

import os
import tomllib
from collections.abc import Sequence
from functools import reduce
from importlib import resources
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError, model_validator

from batchlab.engine.device import DeviceChoice
from batchlab.engine.losses import is_own
from batchlab.engine.optimizers import OPTIMIZERS
from batchlab.engine.records import Plan
from batchlab.errors import BadInput, UnknownName
from batchlab.files.received import text_of
from batchlab.models import MODELS
from batchlab.models.linear import Linear
from batchlab.records import Record
from batchlab.rows.preparation import Scaling
from batchlab.rows.split import SplitRule
from batchlab.rules.retraining import RetrainingRule
from batchlab.rules.run import RunRule
from batchlab.rules.search import SearchRule
from batchlab.sources import SOURCES, located
from batchlab.sources.bundled import Bundled
from batchlab.sources.places import check_no_password, scheme, without_password
from batchlab.strategies import STRATEGIES
from batchlab.table.columns import CheckRule, ColumnRule, Columns, EncodingRule
from batchlab.table.target import TargetScale, TaskChoice

if TYPE_CHECKING:
    from batchlab.models import Model as AnyModel
    from batchlab.sources import Source as AnySource
    from batchlab.strategies import Strategy as AnyStrategy
else:  # the kinds are found at run time; pydantic picks one by its `kind`
    AnySource = Annotated[reduce(or_, SOURCES.values()), Field(discriminator="kind")]
    AnyModel = Annotated[reduce(or_, MODELS.values()), Field(discriminator="kind")]
    AnyStrategy = Annotated[reduce(or_, STRATEGIES.values()), Field(discriminator="kind")]

Tree = dict[str, Any]
DEFAULT_KINDS: Tree = {"source": {"kind": "bundled"}, "model": {"kind": "linear"}}
RUNS_CODE = (
    ("model", "factory", "runs code"),
    ("source", "factory", "runs code"),
    ("source", "plain", "runs code"),
    ("train", "loss", "runs code"),
)
SENDS_OUT = (
    ("source", "url", "sends what the environment holds to a database"),
    ("run", "address", "sends rows to a cluster, whose answers can run code"),
)
SAME_KEYS = ("split",)
"""Tables whose keys are the same whatever their `kind`."""
PROFILES = resources.files("batchlab") / "profiles"


class Profile(Record):
    """Everything that decides a comparison."""

    source: AnySource = Bundled()
    target: str | None = None
    task: TaskChoice = "auto"
    seed: int = Field(0, ge=0, lt=2**63)
    device: DeviceChoice = "auto"
    columns: ColumnRule = ColumnRule()
    checks: CheckRule = CheckRule()
    split: SplitRule = SplitRule()
    encoding: EncodingRule = EncodingRule()
    memory_gib: float | None = Field(None, gt=0)
    scale: Scaling = True
    target_scale: TargetScale = "linear"
    model: AnyModel = Linear()
    train: Plan = Plan()
    search: SearchRule = SearchRule()
    retraining: RetrainingRule = RetrainingRule()
    run: RunRule = RunRule()
    strategies: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")], AnyStrategy] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _strategies_are_named_after_their_kind(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("strategies"), dict):
            named = {
                name: {"kind": name, **strategy} if isinstance(strategy, dict) else strategy
                for name, strategy in values["strategies"].items()
            }
            return {**values, "strategies": named}
        return values

    def named_columns(self) -> Columns:
        """Return which column plays which part; raises BadInput when no target is known or two strategies weigh by different columns."""
        target = self.target or self.source.default_target
        if target is None:
            schema = self.source.peek()
            names = f": one of {', '.join(schema.names)}" if schema is not None else ""
            raise BadInput(f"the target column is not known; name it with --target{names}.")
        weights = {strategy.weighted_by for strategy in self.strategies.values() if strategy.weighted_by}
        if len(weights) > 1:
            raise BadInput(f"the strategies weigh by different columns ({', '.join(sorted(weights))}); a comparison needs one.")
        return Columns(target=target, task=self.task, weight=next(iter(weights), None), **self.columns.model_dump())


def load_profile(
    name: str = "quick",
    *,
    data: str | None = None,
    target: str | None = None,
    task: str | None = None,
    strategies: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    seed: int | None = None,
) -> Profile:
    """Return the profile `name` (a shipped one, or the path of a TOML file) with the user's choices and `key=value` overrides on top.

    Raises BadInput in one line for an unknown profile, key, kind or strategy and for a value out of range.
    """
    for text in filter(None, (data, *overrides)):
        check_no_password(text)
    held = _read(name)
    tree = _merged(DEFAULT_KINDS, held)
    if data is not None:
        tree = {key: value for key, value in tree.items() if key != "target"} | {"source": located(data)}
    chosen = {"target": target, "task": task, "seed": seed}
    tree = _merged(tree, {key: value for key, value in chosen.items() if value is not None})
    for override in overrides:
        tree = _merged(tree, _override(override))
    _check_harmless(name, held, tree, overrides)
    if strategies is not None:
        tree["strategies"] = _selected(tree.get("strategies", {}), strategies)
    try:
        return _validated(tree)
    except ValidationError as error:
        raise BadInput(
            _in_one_line(error) if _problem_of(held) != _in_one_line(error) else f"profile '{name}': {_in_one_line(error)}"
        ) from error


def _validated(tree: Tree) -> Profile:
    _name_the_optimizer(tree)
    return Profile.model_validate(tree)


def _problem_of(held: Tree) -> str | None:
    """Say what is wrong with a profile's file alone; None for nothing."""
    try:
        _validated(_merged(DEFAULT_KINDS, held))
    except ValidationError as error:
        return _in_one_line(error)
    return None


def _name_the_optimizer(tree: Tree) -> None:
    """Let an optimizer of which only settings are given (`train.optimizer.momentum=0.9`) be SGD; without any, the search tries several."""
    train = tree.get("train")
    if isinstance(train, dict) and isinstance(train.get("optimizer"), dict):
        tree["train"] = {**train, "optimizer": {"kind": "sgd", **train["optimizer"]}}


def _read(name: str) -> Tree:
    path = Path(name)
    if path.suffix == ".toml":
        if not path.is_file():
            raise BadInput(f"profile file '{name}' does not exist (looked in {Path.cwd()}).")
        text = text_of(path.resolve())
    else:
        names = [item.name.removesuffix(".toml") for item in PROFILES.iterdir() if item.name.endswith(".toml")]
        if name not in names:
            raise UnknownName("profile", name, names)
        text = (PROFILES / f"{name}.toml").read_text()
    try:
        tree = tomllib.loads(text)
        return _merged({}, tree)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"profile '{name}' is not valid TOML: {error}") from error
    except (RecursionError, ValueError) as error:
        raise BadInput(f"profile '{name}' cannot be used: {error}; a profile has tables within tables within tables at most.") from error


def _check_harmless(name: str, held: Tree, tree: Tree, overrides: Sequence[str]) -> None:
    """Raise BadInput for what a profile would do by itself that only its user may decide: import code, and send what the environment holds
    to a database of its choice. Said by the user too, both are done."""
    said: Tree = {}
    for override in overrides:
        said = _merged(said, _override(override))
    for table, key, does in (*RUNS_CODE, *SENDS_OUT):
        own, now, given = (_looked_up(one, table, key) for one in (held, tree, said))
        risky = isinstance(own, str) and own == now != given and _is_risky(key, own)
        if risky:
            shown = without_password(str(own))
            raise BadInput(f"profile '{name}' {does}: {table}.{key} is '{shown}'. If you trust it, say so: --set {table}.{key}='{shown}'.")


def _looked_up(tree: Tree, table: str, key: str) -> Any:
    held = tree.get(table)
    return held.get(key) if isinstance(held, dict) else None


def _is_risky(key: str, value: str) -> bool:
    if key == "loss":
        return is_own(value)
    return key in ("factory", "plain") or (value != "auto" if key == "address" else _sends(value))


def _sends(url: str) -> bool:
    """Whether whoever is at the URL may be told a variable: one that it names, or PGPASSWORD."""
    return "${" in url or ("PGPASSWORD" in os.environ and scheme(url) != "sqlite")


def _selected(known: Tree, names: Sequence[str]) -> Tree:
    """Return the named strategies: of the profile where it has them, else the kind of that name with its defaults."""
    for name in names:
        if name not in known and name not in STRATEGIES:
            raise UnknownName("strategy", name, {*known, *STRATEGIES})
    if not names:
        raise BadInput("no strategy was named; leave --strategies out for all of them.")
    return {name: known.get(name, {}) for name in names}


def _override(text: str) -> Tree:
    """Return `a.b=value` as a tree; the value is read as TOML, and as text where it is none."""
    key, separator, raw = text.partition("=")
    if not separator or not key.strip():
        raise BadInput(f"--set takes key=value, for example train.epochs=200; got '{text}'.")
    try:
        value: Any = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw
    for part in reversed(key.strip().split(".")):
        value = {part: value}
    tree: Tree = value
    return tree


def _merged(under: Tree, over: Tree) -> Tree:
    """Lay `over` on `under`; where it changes a `kind`, that table starts again from the new kind's defaults."""
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        changed = both and key not in SAME_KEYS and "kind" in value and value["kind"] != merged[key].get("kind")
        merged[key] = _merged(merged[key], value) if both and not changed else value
    return merged


def _in_one_line(error: ValidationError) -> str:
    return "; ".join(_sentence(item) for item in error.errors())


def _sentence(item: Any) -> str:
    """Say which key is wrong and how, without pydantic's own tags in the path."""
    kinds = {*SOURCES, *MODELS, *OPTIMIZERS, *STRATEGIES}
    path = list(item["loc"])
    shown = [str(part) for position, part in enumerate(path) if not (part in kinds and position and _is_tag(path, position))]
    key = ".".join(shown) or "profile"
    if item["type"] == "unknown_key":
        return f"{key}: {item['msg']}" if shown else str(item["msg"])
    if item["type"] == "union_tag_invalid":
        return str(UnknownName(f"{key}.kind", item["ctx"]["tag"], item["ctx"]["expected_tags"].replace("'", "").split(", ")))
    if item["type"] in {"model_type", "model_attributes_type", "dict_type"}:
        return f"{key} is a table, not a value; set one of its keys, for example {key}.kind=… (got {item['input']!r})"
    given = item["input"]
    got = "" if isinstance(given, dict) else f" (got {given!r})"
    return f"{key}: {item['msg'][0].lower()}{item['msg'][1:]}{got}"


def _is_tag(path: list[Any], position: int) -> bool:
    """Whether the part is pydantic's discriminator tag and not a key: it follows source, model, optimizer or a strategy's name."""
    return path[position - 1] in {"source", "model", "optimizer"} or (position == 2 and path[0] == "strategies")
