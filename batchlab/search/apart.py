"""A process of its own for what must not happen in this one: peaks of memory, and DataLoaders with workers."""

import contextlib
import pickle
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from batchlab.engine.records import Plan
from batchlab.errors import BatchlabError
from batchlab.experiment import Experiment
from batchlab.packing import PackedTable
from batchlab.search.candidates import Candidate
from batchlab.search.loaders import Delivery, deliveries, warm_workers
from batchlab.search.memory import peaks


class Apart:
    """Measures the memory of every setting beside the tuning, whose time nobody takes, and DataLoaders when asked.

    DataLoader workers import the main module of the process that starts them; here that is none of the user's.
    """

    def __init__(self, experiment: Experiment, candidates: Sequence[Candidate], plan: Plan) -> None:
        lean = Experiment(experiment.profile, PackedTable(experiment.table.path, experiment.table.schema), experiment.split)
        command = [sys.executable, "-c", "from batchlab.search.apart import main; main()"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._send((lean, tuple(candidates), plan))

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
        self.process.communicate()

    def _send(self, message: Any) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died; the answer says how
            pickle.dump(message, self.process.stdin)
            self.process.stdin.flush()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        try:
            return pickle.load(self.process.stdout)
        except EOFError:
            said = self.process.communicate()[1].decode(errors="replace").strip().splitlines()
            reason = said[-1] if said else f"exit code {self.process.returncode}"
            raise ApartFailed(f"the process that measures memory and loaders ended: {reason}") from None


class ApartFailed(BatchlabError):
    """The measuring process ended before it answered."""


def main() -> None:
    """Answer on standard output what comes in on standard input, until that is closed."""
    experiment, candidates, plan = pickle.load(sys.stdin.buffer)
    _reply(peaks(experiment, candidates, plan))
    warm_workers()
    with contextlib.suppress(EOFError):
        while True:
            _reply(deliveries(experiment.data, pickle.load(sys.stdin.buffer), experiment.profile.seed))


def _reply(answer: Any) -> None:
    sys.stdout.buffer.write(pickle.dumps(answer))
    sys.stdout.buffer.flush()
