"""How far the search is, told to whoever listens, and the ways to end it: with what is known, or at once."""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from batchlab.engine.records import Progress

SECONDS_BETWEEN = 0.1


class Listener(Protocol):
    """Is told how far the search is and what it has to say."""

    def moved(self, label: str, share: float) -> None:
        """Take note that `label` is under way and the whole search is done to `share`."""

    def announced(self, text: str) -> None:
        """Take note of a sentence for people."""


listeners: list[Listener] = []
stopping = threading.Event()


class Stopped(BaseException):
    """The comparison was interrupted while it trained. No Exception, so that nothing mistakes it for a failure."""


class _Place:
    """What is under way, how far the whole is, and how to end it with what is known, where that can be done."""

    label, told = "", 0.0
    share: Callable[[], float] = staticmethod(lambda: 0.0)
    end: Callable[[], bool] | None = None


def begin(label: str, share: Callable[[], float], end: Callable[[], bool] | None) -> None:
    """Tell the listeners that a part begins; `share` says how far the whole search is, `end` ends it with what is known and says whether
    it could. Raises Stopped when asked to stop."""
    if stopping.is_set():
        raise Stopped(label)
    _Place.label, _Place.share, _Place.end = label, staticmethod(share), None if end is None else staticmethod(end)
    _tell()


def finished() -> None:
    """Take note that there is no search any more that could be ended."""
    _Place.end = None


def ended_early() -> bool:
    """End the search under way with what is known; whether there was one that knows enough for a verdict."""
    return _Place.end is not None and _Place.end()


def within(label: str, progress: Progress) -> None:
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


def announce(text: str) -> None:
    """Tell the listeners a sentence for people."""
    for listener in listeners:
        listener.announced(text)


def _tell() -> None:
    _Place.told = time.monotonic()
    for listener in listeners:
        listener.moved(_Place.label, _Place.share())
