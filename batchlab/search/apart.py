"""A process of its own for what must not happen in this one: peaks of memory, and DataLoaders with workers."""

import contextlib
import math
import os
import pickle
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import Any

import joblib

from batchlab.allowance import give_back_freed_memory
from batchlab.engine.records import Plan
from batchlab.errors import BatchlabError
from batchlab.experiment import Experiment
from batchlab.results import Fetching
from batchlab.search.fetching import Loop
from batchlab.search.loaders import deliveries, warm_workers
from batchlab.search.memory import peaks
from batchlab.search.space import Candidate
from batchlab.search.timings import Delivery
from batchlab.sources.items import GivenItems
from batchlab.table import PackedTable

GIVING_WAY = 5
MOST_SENT = 2**30
MEASURED_SHARE = 1.5
"""Of the time for an answer so much is a loop's; the rest is for what takes longer than it did before."""


class ApartFailed(BatchlabError):
    """The measuring process ended before it answered."""


class ApartLate(ApartFailed):
    """The measuring process did not answer within the time that there was."""


class Beside:
    """A process of its own that is told something at first, and answers in turn what it is asked then.

    Raises ApartFailed, with the last line that the process said, when it has ended.
    """

    def __init__(self, main: str, experiment: Experiment, *told: object) -> None:
        lean = Experiment(experiment.profile, PackedTable(experiment.table.path, experiment.table.schema), experiment.split)
        way = GIVING_WAY if joblib.cpu_count() == 1 else 0  # what begins beside trainings gives way to them on their one core
        command = [sys.executable, "-c", f"import os; os.nice({way}); from batchlab.search.apart import {main}; {main}()"]
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe that nobody reads would fill up and stop the process
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said)
        # Not pickled together: the path must be set before the rest is looked for on it.
        self.sending = threading.Thread(target=self._write, args=(sys.path, pickle.dumps((lean, *told))), daemon=True)
        self.sending.start()

    def ask(self, question: object, seconds: float) -> Any:
        """Ask the next question, once all is told, and return the answer; raises ApartLate after so many seconds."""
        ends = time.monotonic() + seconds
        self.sending.join(None if math.isinf(seconds) else max(0.0, seconds))
        if self.sending.is_alive():
            raise ApartLate("the process that measures apart was not up in time")
        self._write(question)
        return self.answer(ends - time.monotonic())

    def _write(self, *messages: object) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended; the answer says how
            for message in messages:
                pickle.dump(message, self.process.stdin)
            self.process.stdin.flush()

    def answer(self, seconds: float) -> Any:
        """Return the next answer; raises ApartLate for one that does not come within so many seconds."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], None if math.isinf(seconds) else max(0.0, seconds))[0]:
            raise ApartLate("the process that measures apart did not answer in time")
        try:
            return pickle.load(self.process.stdout)
        except (EOFError, ValueError, pickle.UnpicklingError):
            self.process.kill()
            code = self.process.wait()
            self.said.seek(0)
            lines = self.said.read().decode(errors="replace").strip().splitlines()
            raise ApartFailed(f"the process that measures apart ended: {lines[-1] if lines else f'exit code {code}'}") from None

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        self.sending.join()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()


class Apart(Beside):
    """Measures the memory of every setting beside the tuning, whose time nobody takes, and DataLoaders when asked.

    DataLoader workers import the main module of the process that starts them; here that is none of the user's.
    """

    def __init__(self, experiment: Experiment, candidates: Sequence[Candidate], plan: Plan) -> None:
        self.candidates = tuple(candidates)
        super().__init__("main", experiment, self.candidates, plan)

    def peaks(self, seconds: float = math.inf) -> list[list[int]]:
        """Wait for and return, for each candidate, its peaks in bytes."""
        found: list[list[int]] = self.answer(seconds)
        return found

    def deliveries(self, batch_rows: int, seconds: float = math.inf) -> list[Delivery]:
        """Measure ways to deliver batches of so many rows; `peaks` must have been asked for."""
        found: list[Delivery] = self.ask(batch_rows, seconds)
        return found


class Fetcher(Beside):
    """Makes the data set and a network ready beside the tuning, and measures a loop that fetches the items anew when asked."""

    def __init__(self, experiment: Experiment, items: GivenItems) -> None:
        schema = experiment.table.schema
        size = schema.rows * len(schema.packed_names) * 4
        if size > MOST_SENT and not isinstance(items.data, str):
            raise ApartFailed(f"its {size / 2**30:.1f} GiB would be copied to another process; name what makes it: source.factory")
        try:
            given = pickle.dumps(items)
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            raise ApartFailed(f"the data set cannot be given to another process: {error}") from error
        super().__init__("fetcher_main", experiment, given)

    def fetching(self, sizes: Sequence[int], seconds: float) -> Fetching:
        """Measure at about the first of these sizes, within so many seconds; raises ApartFailed also where the user's code fails."""
        found = self.ask((tuple(sizes), seconds / MEASURED_SHARE), seconds)
        if not isinstance(found, Fetching):
            raise ApartFailed(str(found))
        return found


def main() -> None:
    """Answer on standard output what comes in on standard input, until that is closed."""
    answers, (experiment, candidates, plan) = _begun()
    warm_workers()  # before the answer: nothing may run while settings are timed
    _reply(answers, peaks(experiment, candidates, plan))
    with contextlib.suppress(EOFError):
        while True:
            _reply(answers, deliveries(experiment.data, pickle.load(sys.stdin.buffer), experiment.profile.seed))


def fetcher_main() -> None:
    """The same of a data set's items. What the user's own code fails with is the answer."""
    answers, (experiment, given) = _begun()
    try:
        loop = Loop.of(pickle.loads(given), experiment)
        warm_workers()
        sizes, seconds = pickle.load(sys.stdin.buffer)
        _reply(answers, loop.measured(sizes, seconds))
    except EOFError:
        return
    except Exception as error:
        lines = str(error).strip().splitlines()
        _reply(answers, f"{type(error).__name__}: {lines[-1] if lines else ''}")


def _begun() -> tuple[Any, Any]:
    """Return where answers go, and what this process is told. What others print goes to standard error."""
    give_back_freed_memory()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.path[:] = pickle.load(sys.stdin.buffer)
    return answers, pickle.loads(pickle.load(sys.stdin.buffer))


def _reply(answers: Any, answer: Any) -> None:
    answers.write(pickle.dumps(answer))
    answers.flush()
