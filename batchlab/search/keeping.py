"""What a search knows and where its trainings stand, kept in the files of a folder now and then, so that a killed one goes on."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from batchlab.engine.halts import Halt
from batchlab.errors import BadInput
from batchlab.search.known import Known
from batchlab.search.saving import State, latest_of, save

LEAST_SECONDS = 5.0
"""Trainings under way are written no more often than that: of less work nobody minds the loss."""
SHARE = 0.005
"""Writing takes no more than this share of the time: of the trainings, and of what is known."""
KNOWN = "known"


class Kept:
    """A folder with what is known, and a file for each training that is under way; the last two states of each.

    The folder is made when the first is written. A disk that is full stops nobody: what could not be written would be done again after a
    kill. `say` is told of that, once, and of files that are damaged.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], least_seconds: float = LEAST_SECONDS, share: float = SHARE) -> None:
        self.folder, self.say, self.least_seconds, self.share = folder, say, least_seconds, share
        self.names = {path.name.partition(".")[0] for path in folder.glob("*.npz")}
        self.at_their_end: dict[str, Halt] = {}
        self.cost, self.written = 0.0, time.perf_counter()
        self.cost_of_known, self.known_written = 0.0, 0.0
        self.in_trouble = False

    def known(self) -> Known | None:
        """Return what was known last, or before that where the last file is damaged; None where neither can be read."""
        return self._latest(KNOWN, Known)

    def keep_known(self, known: Known) -> None:
        """Write what is known, unless that was done just now for the time that it takes; where trainings stood is then part of it."""
        began = time.perf_counter()
        if began - self.known_written < self.cost_of_known / self.share or not self._saved({KNOWN: known}):
            return
        self.known_written = time.perf_counter()
        self.cost_of_known = self.known_written - began
        self.at_their_end, self.names = {}, set()
        for path in self.folder.glob("*.npz"):
            if not path.name.startswith(f"{KNOWN}."):
                path.unlink()

    def found(self, name: str) -> Halt | None:
        """Return where a training of this name was when it was killed, or before that where the last file is damaged."""
        return self._latest(name, Halt) if name in self.names else None

    def due(self) -> bool:
        """Whether enough was trained since the last time to be worth keeping."""
        return time.perf_counter() - self.written >= max(self.least_seconds, self.cost / self.share)

    def keep(self, name: str, halt: Halt) -> None:
        """Write where this training stands, and those that have come to their end before it."""
        began = time.perf_counter()
        self._saved({**self.at_their_end, name: halt})
        self.at_their_end = {}
        self.written = time.perf_counter()
        self.cost = self.written - began

    def ended(self, name: str, halt: Halt) -> None:
        """Hold a training that has come to its end until something is written."""
        self.at_their_end[name] = halt
        if self.due():
            self.keep(name, halt)

    def forget(self) -> None:
        """Remove all of it: the work has come to its end."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _saved(self, states: "dict[str, Halt] | dict[str, Known]") -> bool:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for name, state in states.items():
                save(state, self._path(name))
        except OSError as error:
            if not self.in_trouble:
                self.say(f"what is known so far could not be written ({error}): after a kill, work since then would be done again")
            self.in_trouble = True
            return False
        return True

    def _latest(self, name: str, kind: type[State]) -> State | None:
        for state in latest_of(self._path(name), kind):
            if not isinstance(state, BadInput):
                return state
            self.say(str(state))
        return None

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npz"
