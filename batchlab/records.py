"""The bases of every configuration record and of every result, and the registries that find its kinds in a folder."""

import importlib
import pkgutil
from types import ModuleType
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from batchlab.errors import BatchlabError, nearest

Kind = TypeVar("Kind", bound="Record")


class Record(BaseModel):
    """A frozen record that refuses unknown keys and names the nearest valid one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for key in values.keys() - cls.model_fields.keys():
                raise PydanticCustomError(
                    "unknown_key",
                    "key '{key}' does not exist{nearest}",
                    {"key": str(key), "nearest": nearest(str(key), cls.model_fields)},
                )
        return values


class Result(Record):
    """A record whose numbers that are not finite become null in JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True, ser_json_inf_nan="null")


def discover(package: str, base: type[Kind]) -> dict[str, type[Kind]]:
    """Import every module of `package` and return the kinds of `base` found there, by the default of their `kind` field.

    A new kind is therefore one new file: no list has to be edited.
    """
    paths = importlib.import_module(package).__path__
    modules = [_imported(f"{package}.{module.name}") for module in pkgutil.iter_modules(paths)]
    classes = (value for module in modules for value in vars(module).values())
    found = {item for item in classes if isinstance(item, type) and issubclass(item, base) and not item.model_fields["kind"].is_required()}
    return {item.model_fields["kind"].default: item for item in sorted(found, key=lambda item: item.__name__)}


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise BatchlabError(f"{name.replace('.', '/')}.py cannot be imported: {type(error).__name__}: {error}") from error
