"""A stretch of a search's work."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A stretch of the search: what it does, and how."""

    label: str
    run: Callable[[], None]
