"""How far the search is, told to whoever listens, and the way to stop it."""

import threading
import time
from typing import Protocol

from batchlab.engine.records import Progress

SECONDS_BETWEEN = 0.1


class Listener(Protocol):
    """Is told how far the search is and what it has to say."""

    def moved(self, label: str, share: float) -> None:
        """Take note that the part `label` is under way and the whole search is done to `share`."""

    def announced(self, text: str) -> None:
        """Take note of a sentence for people."""


listeners: list[Listener] = []
stopping = threading.Event()


class Stopped(BaseException):
    """The comparison was interrupted while it trained. No Exception, so that nothing mistakes it for a failure."""


class _Place:
    """Which part is under way."""

    label, number, count, told = "", 0, 1, 0.0


def begin(label: str, number: int, count: int) -> None:
    """Tell the listeners that part `number` (from 0) of `count` begins; raises Stopped when asked to stop."""
    if stopping.is_set():
        raise Stopped(label)
    _Place.label, _Place.number, _Place.count = label, number, count
    _tell(0.0)


def within(label: str, progress: Progress) -> None:
    """Tell the listeners now and then how far the part is, and raise Stopped when asked to stop."""
    if stopping.is_set():
        raise Stopped(label)
    if time.monotonic() - _Place.told >= SECONDS_BETWEEN:
        _tell(progress.rows_seen / max(progress.rows_total, 1))


def moved(label: str, share: float) -> None:
    """Tell the listeners now and then how far work before the search is; raises Stopped when asked to stop."""
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


def _tell(share_of_part: float) -> None:
    _Place.told = time.monotonic()
    for listener in listeners:
        listener.moved(_Place.label, (_Place.number + share_of_part) / _Place.count)
