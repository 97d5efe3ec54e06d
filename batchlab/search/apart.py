"""A process of its own for what must not happen in this one: peaks of memory, and DataLoaders with workers."""

import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from typing import Any

from batchlab.allowance import give_back_freed_memory
from batchlab.engine.records import Plan
from batchlab.errors import BatchlabError
from batchlab.experiment import Experiment
from batchlab.search.loaders import Delivery, deliveries, warm_workers
from batchlab.search.memory import peaks
from batchlab.search.space import Candidate
from batchlab.table import PackedTable


class ApartFailed(BatchlabError):
    """The measuring process ended before it answered."""


class Apart:
    """Measures the memory of every setting beside the tuning, whose time nobody takes, and DataLoaders when asked.

    DataLoader workers import the main module of the process that starts them; here that is none of the user's. Both questions raise
    ApartFailed, with the last line that the process said, when it has ended.
    """

    def __init__(self, experiment: Experiment, candidates: Sequence[Candidate], plan: Plan) -> None:
        self.candidates = tuple(candidates)
        lean = Experiment(experiment.profile, PackedTable(experiment.table.path, experiment.table.schema), experiment.split)
        command = [sys.executable, "-c", "from batchlab.search.apart import main; main()"]
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe that nobody reads would fill up and stop the process
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said)
        # Not pickled together: the path must be set before the candidates are looked for on it.
        self.sending = threading.Thread(target=self._send, args=(sys.path, pickle.dumps((lean, tuple(candidates), plan))), daemon=True)
        self.sending.start()

    def peaks(self) -> list[list[int]]:
        """Wait for and return, for each candidate, its peaks in bytes."""
        found: list[list[int]] = self._answer()
        return found

    def deliveries(self, batch_rows: int) -> list[Delivery]:
        """Measure ways to deliver batches of so many rows; `peaks` must have been asked for."""
        self._send(batch_rows)
        found: list[Delivery] = self._answer()
        return found

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        self.sending.join()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def _send(self, *messages: Any) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended; the answer says how
            for message in messages:
                pickle.dump(message, self.process.stdin)
            self.process.stdin.flush()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        try:
            return pickle.load(self.process.stdout)
        except (EOFError, ValueError, pickle.UnpicklingError):
            self.process.kill()
            code = self.process.wait()
            self.said.seek(0)
            lines = self.said.read().decode(errors="replace").strip().splitlines()
            raise ApartFailed(
                f"the process that measures memory and loaders ended: {lines[-1] if lines else f'exit code {code}'}"
            ) from None


def main() -> None:
    """Answer on standard output what comes in on standard input, until that is closed. What others print goes to standard error."""
    give_back_freed_memory()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.path[:] = pickle.load(sys.stdin.buffer)
    experiment, candidates, plan = pickle.loads(pickle.load(sys.stdin.buffer))
    warm_workers()  # before the answer: nothing may run while settings are timed
    _reply(answers, peaks(experiment, candidates, plan))
    with contextlib.suppress(EOFError):
        while True:
            _reply(answers, deliveries(experiment.data, pickle.load(sys.stdin.buffer), experiment.profile.seed))


def _reply(answers: Any, answer: Any) -> None:
    answers.write(pickle.dumps(answer))
    answers.flush()
