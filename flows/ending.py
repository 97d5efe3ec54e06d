"""The end of a flow whose Prefect server is away: nobody waits minutes for telling it, and what came of it is not lost."""

from contextlib import ExitStack
from typing import Any, TypeVar

from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows import background

Value = TypeVar("Value")
_held = ExitStack()
"""Stays open after the flow's function has returned: the engine tells the end only then."""
_came_to: list[Any] = []


def known(value: Value) -> Value:
    """Return the value that the flow comes to, and keep it; where the Prefect server does not answer, have the engine tell it the end only
    once."""
    _came_to.append(value)
    url = PREFECT_API_URL.value()
    if url and not background.answers(f"{url}/health"):
        _held.enter_context(temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}))
    return value


def came_to() -> Any:
    """Return what the flow that ended last came to, once; None where it did not come so far."""
    return _came_to.pop() if _came_to else None


def closed() -> None:
    """Let the next flow of this process have its patience back."""
    _came_to.clear()
    _held.close()
