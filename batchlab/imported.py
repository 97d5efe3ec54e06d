"""What users name as `package.module:function`, found in the current folder and on PYTHONPATH; and what exists in this session only."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from batchlab.errors import BadInput, UnknownName

GIVEN: dict[str, Callable[..., Any]] = {}
"""What was given in Python and cannot be imported, by its name in this process."""
SESSION = "session"
"""What stands before such a name in place of a package."""


def name_of(given: Callable[..., Any]) -> str:
    """Return the name by which `imported` finds this: `package.module:function` where others find it so, else one of this process."""
    name = getattr(given, "__qualname__", type(given).__name__)
    if (place := getattr(given, "__module__", None)) != "__main__" and getattr(sys.modules.get(str(place)), name, None) is given:
        return f"{place}:{name}"
    GIVEN[f"{SESSION}:{name}"] = given
    return f"{SESSION}:{name}"


def imported(named: str, key: str) -> Callable[..., Any]:
    """Return what a setting (`key`) names; raises BadInput where it cannot be imported or called."""
    if named in GIVEN:
        return GIVEN[named]
    module_name, _, name = named.partition(":")
    if not name:
        raise BadInput(f"{key} is '{named}'; write it as 'package.module:function'.")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a file beside the user's data is found, as it would be by `python -m`
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise BadInput(
            f"{key} '{named}' cannot be imported: {type(error).__name__}: {error}; "
            "it is looked for in the current folder and on PYTHONPATH."
        ) from error
    found = getattr(module, name, None)
    if not callable(found):
        functions = [given for given, value in vars(module).items() if inspect.isfunction(value)]
        raise UnknownName(f"function in {module_name}", name, functions)
    return cast("Callable[..., Any]", found)


def source_of(named: str, key: str) -> str:
    """Return the text of the module that a setting names a part of; empty for what is of this session, and for what has no such file."""
    if named in GIVEN:
        return ""
    imported(named, key)
    place = getattr(sys.modules[named.partition(":")[0]], "__file__", None)
    return Path(place).read_text() if place is not None and place.endswith(".py") else ""
