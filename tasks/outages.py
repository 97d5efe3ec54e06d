"""Servers and disks that fail while records are made: what such a failure is, and how long one waits for its end."""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tasks import address, progress, store

VARIABLE, WAITED_SECONDS = "BATCHLAB_WAIT_SECONDS", 150.0
"""How long a command whose verdict is told waits for its servers, all in all; two minutes' absence is bridged."""
SHORT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""A call that records takes no longer than two tries of ten seconds: what waits longer is `Patience`."""
PASSING = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")
"""MLflow's codes for a server that does not answer and for a database that fails; its others are about what was asked."""
LONGEST_PAUSE = 30.0
Value = TypeVar("Value")


@contextmanager
def impatient() -> Iterator[None]:
    """Let calls of MLflow's server fail after a few seconds, unless the user has said how long they may take."""
    before = {key: os.environ.get(key) for key in SHORT}
    os.environ.update({key: SHORT[key] for key, value in before.items() if value in (None, store.PATIENCE[key])})
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def reason_of(error: BaseException) -> str | None:
    """Return in a line why a server, a database or a disk failed; None for an error of another kind, which is no outage."""
    from httpx import HTTPStatusError, TransportError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import OperationalError

    if isinstance(error, MlflowException):
        passing = error.error_code in PASSING
    elif isinstance(error, HTTPStatusError):
        passing = error.response.status_code >= 500
    else:
        passing = isinstance(error, (OSError, TransportError, OperationalError, sqlite3.OperationalError))
    return _first_line(error) if passing else None


def _first_line(error: BaseException) -> str:
    """Return what the error says, shortened: those of connections hold whole requests."""
    said = " ".join(str(error).split())
    for words in ("Connection refused", "timed out", "No space left on device", "disk is full", "readonly database"):
        if words in said:
            return words
    return said[:100] or type(error).__name__


def store_answers() -> bool:
    """Whether the store can be asked: a server answers within seconds, a database is there."""
    from batchlab.errors import BadInput

    try:
        address.check_answers(store.tracking_uri())
    except BadInput:
        return False
    return True


class Patience:
    """Does what may fail because `name` is away: waits for it, tries again, and gives up when its seconds are spent. `reason` then says
    why, and nothing more is tried."""

    def __init__(self, name: str, answers: Callable[[], bool], comes_back: bool = True) -> None:
        self.name, self.answers, self.comes_back = name, answers, comes_back
        self.left = float(os.environ.get(VARIABLE, WAITED_SECONDS)) if comes_back else 0.0
        self.pause = 1.0
        self.failed = False
        self.reason: str | None = None
        self._leaving = threading.Event()

    def tried(self, work: Callable[[], Value], otherwise: Value) -> Value:
        """Return what `work` returns, which may be called several times; `otherwise` where it was given up."""
        while self.reason is None:
            try:
                with impatient():
                    self._ask_first()
                    return work()
            except Exception as error:
                reason = reason_of(error)
                if reason is None:
                    raise
                self.failed = True
                if not self._back(reason):
                    self.reason = reason
        return otherwise

    def _ask_first(self) -> None:
        """Raise ConnectionError where there is no answer to a short question: one that hangs would hold a real one for longer."""
        if self.comes_back and not self.answers():
            raise ConnectionError("no answer")

    def _back(self, reason: str) -> bool:
        """Wait until there is an answer again; whether it came in time."""
        if self.left <= 0:
            return False
        progress.announce(f"{self.name} fails ({reason}); waiting up to {self.left:.0f} s for it, Ctrl-C ends that; the verdict stands")
        progress.begin(f"waiting for {self.name}", lambda: 0.0, self._leave)
        began = time.monotonic()
        self._leaving.wait(min(self.pause, self.left))
        self.pause = min(2 * self.pause, LONGEST_PAUSE)  # one that answers and yet fails is not asked all the time
        while not self._leaving.is_set():
            if self.answers():
                self.left -= time.monotonic() - began
                progress.announce(f"{self.name} answers again; recording goes on")
                return True
            if time.monotonic() - began > self.left:
                break
            self._leaving.wait(1.0)
        self.left = 0.0
        return False

    def _leave(self) -> str:
        self._leaving.set()
        return "leaving; what is not recorded yet is kept"
