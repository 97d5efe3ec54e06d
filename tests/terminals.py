"""A command at a terminal, for tests of what it shows there and of Ctrl-C: standard error is a pseudo-terminal, standard output a pipe."""

import os
import pty
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

PATIENCE_SECONDS = 120


class Watched:
    """A command that runs in a process group of its own, and what it has shown so far."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        own, theirs = pty.openpty()
        self.screen, self.shown = own, b""
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**environment, "TERM": "xterm", "COLUMNS": "200"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background inherits it ignored
        )
        os.close(theirs)
        self.reading = threading.Thread(target=self._read, daemon=True)
        self.reading.start()

    def _read(self) -> None:
        with suppress(OSError):  # the other end is closed when the process has ended
            while piece := os.read(self.screen, 4096):
                self.shown += piece

    def shows(self, words: str) -> None:
        """Wait until these words have been shown."""
        until = time.monotonic() + PATIENCE_SECONDS
        while words.encode() not in self.shown:
            assert self.process.poll() is None, self.shown.decode()
            assert time.monotonic() < until, self.shown.decode()
            time.sleep(0.01)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the command; Ctrl-C goes to its whole group, as a terminal sends it."""
        if number == signal.SIGINT:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def ended(self) -> tuple[int, str, str]:
        """Wait for the end; return exit code, standard output, and what was shown."""
        output, _ = self.process.communicate(timeout=PATIENCE_SECONDS)
        self.reading.join(timeout=10)
        os.close(self.screen)
        return self.process.returncode, output.decode(), self.shown.decode()
