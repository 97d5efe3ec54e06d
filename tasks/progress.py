"""How far the search is, told to whoever listens, and the ways to end it: with what is known, or at once."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from batchlab.engine.records import Progress
    from batchlab.search.search import Search

SECONDS_BETWEEN = 0.1


class Listener(Protocol):
    """Is told how far a comparison is, what it has to say, and its verdict as soon as that is known."""

    def moved(self, label: str, share: float) -> None:
        """Take note that `label` is under way and the whole search is done to `share`."""

    def announced(self, text: str) -> None:
        """Take note of a sentence for people."""

    def concluded(self, search: "Search", scores: Mapping[str, float | None]) -> None:
        """Take note that the verdict is known, with the scores of the recommended model on the test rows; records follow."""


listeners: list[Listener] = []
stopping, hurried = threading.Event(), threading.Event()
"""Whether to end at once, and whether what was under way has been cut short."""


class Stopped(BaseException):
    """The comparison was interrupted while it trained. No Exception, so that nothing mistakes it for a failure."""


class _Place:
    """What is under way, how far the whole is, and how to end it with what is known, where that can be done."""

    label, told, once = "", 0.0, ""
    share: Callable[[], float] = staticmethod(lambda: 0.0)
    end: Callable[[], str | None] | None = None


def begin(label: str, share: Callable[[], float], end: Callable[[], str | None] | None) -> None:
    """Tell the listeners that a part begins; `share` says how far the whole is, `end` cuts it short and returns what to tell of that, None
    where it cannot be. Raises Stopped when asked to stop."""
    if stopping.is_set():
        raise Stopped(label)
    _Place.label, _Place.share, _Place.end = label, staticmethod(share), None if end is None else staticmethod(end)
    _tell()


def finished() -> None:
    """Take note that there is nothing any more that could be cut short."""
    _Place.end = None


def cut_short() -> bool:
    """Cut short what is under way, and tell of it; whether that could be done, and was not asked for before."""
    told = None if _Place.end is None or hurried.is_set() else _Place.end()
    if told is None:
        return False
    hurried.set()
    announce(told)
    return True


def renewed() -> None:
    """Forget what was asked of a comparison before."""
    stopping.clear()
    hurried.clear()


def within(label: str, progress: "Progress") -> None:
    """Tell the listeners now and then how far the search is, and raise Stopped when asked to stop."""
    if stopping.is_set():
        raise Stopped(label)
    if time.monotonic() - _Place.told >= SECONDS_BETWEEN:
        _tell()


def moved(label: str, share: float) -> None:
    """Tell the listeners now and then how far work outside the search is; raises Stopped when asked to stop."""
    if stopping.is_set():
        raise Stopped(label)
    if time.monotonic() - _Place.told >= SECONDS_BETWEEN:
        _Place.told = time.monotonic()
        for listener in listeners:
            listener.moved(label, share)


def conclude(search: "Search", scores: Mapping[str, float | None]) -> None:
    """Tell the listeners the verdict, with the scores of the recommended model on the test rows."""
    _Place.end = None
    for listener in listeners:
        listener.concluded(search, scores)


def announce_once(text: str) -> None:
    """Tell the listeners a sentence for people unless it is the last that was so told."""
    if text != _Place.once:
        _Place.once = text
        announce(text)


def announce(text: str) -> None:
    """Tell the listeners a sentence for people."""
    for listener in listeners:
        listener.announced(text)


def _tell() -> None:
    _Place.told = time.monotonic()
    for listener in listeners:
        listener.moved(_Place.label, _Place.share())
