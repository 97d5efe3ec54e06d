"""A process of its own that runs a module of ours beside this one: it says a line when it is ready, is told lines, answers with lines."""

import atexit
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

ANSWER_SECONDS = 120.0
"""A process that has not said its next line by then is ended."""


class Beside:
    """One process at a time of the module: begun once it is clear that it will be needed, told and asked later, from any thread.

    Whatever becomes of that process, its owner can do the same: what was told in vain, or answered with nothing, is false and empty.
    """

    def __init__(self, module: str) -> None:
        self.module = module
        self.process: subprocess.Popen[str] | None = None
        self.used = False
        self._ready, self._lock = False, threading.Lock()

    def begin(self) -> None:
        """Start the process unless there is one."""
        command = [sys.executable, "-P", "-m", self.module]  # -P: a folder of that name where the command was started is not ours
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with self._lock, suppress(OSError):
            if self.process is None:
                atexit.register(self.end)
                # In a session of its own: Ctrl-C is this process's to deal with, and its end is that of the other's input.
                self.process = subprocess.Popen(command, text=True, start_new_session=True, **pipes)
                self.used = self._ready = False

    def wait_until_ready(self) -> None:
        """Return when the process has imported what it works with, or there is none."""
        with self._lock:
            self._ready = self._ready or bool(self._next_line())

    def told(self, line: str) -> bool:
        """Tell the process a line; whether there is one that takes it."""
        if self.process is None:
            return False
        assert self.process.stdin is not None
        self.used = True
        try:
            print(line, file=self.process.stdin, flush=True)
        except OSError:
            return False
        return True

    def answer(self) -> str:
        """Return the next line that the process answers with, waiting for it; nothing where there is none."""
        self.wait_until_ready()
        return self._next_line()

    def end(self) -> None:
        """End the process, if there is one."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()

    def _next_line(self) -> str:
        if self.process is None:
            return ""
        assert self.process.stdout is not None
        late = threading.Timer(ANSWER_SECONDS, self.process.kill)
        late.start()
        try:
            return self.process.stdout.readline()
        finally:
            late.cancel()


def answering() -> Callable[[str], None]:
    """Return, in such a process, what says a line to its owner: the first one when it is ready. What libraries print is no answer."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(line: str) -> None:
        print(line, file=answers, flush=True)

    return answer
