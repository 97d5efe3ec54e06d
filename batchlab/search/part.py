"""A stretch of a search's work."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A stretch of the search: what it does, and how. Of one that is `timed` nothing should run beside it."""

    label: str
    run: Callable[[], None]
    timed: bool = False
