"""Errors that a person can act on: what is wrong, with the numbers, and what would be right."""

from collections.abc import Iterable
from difflib import get_close_matches


class BatchlabError(Exception):
    """Base of every error that Batchlab raises on purpose."""


class BadInput(BatchlabError):
    """The input cannot be used: a file, a column, a key or a value. A retry cannot help; the command line exits with 2."""


class UnknownName(BadInput):
    """A name that does not exist, answered with the nearest one that does."""

    def __init__(self, what: str, name: str, valid: Iterable[str]) -> None:
        super().__init__(f"{what} '{name}' does not exist{nearest(name, valid)}")


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the closest valid name, followed by the whole list when it is short, or that there is none."""
    names = sorted(str(item) for item in valid)
    if not names:
        return "; there is none yet."
    close = get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    guess = f"; did you mean '{close[0]}'?" if close else "."
    shown = ", ".join(names[:20]) + (f", … ({len(names)} in all)" if len(names) > 20 else "")
    return f"{guess} Valid: {shown}."
