"""What users name as `package.module:function`, found in the current folder and on PYTHONPATH."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any, cast

from batchlab.errors import BadInput, UnknownName


def imported(named: str, key: str) -> Callable[..., Any]:
    """Return what a setting (`key`) names; raises BadInput where it cannot be imported or called."""
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
