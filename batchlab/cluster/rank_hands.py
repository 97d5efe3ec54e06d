"""Trainings that divide their steps over several processes of this machine, which torchrun starts and ends together."""

import contextlib
import itertools
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

import joblib
import torch

from batchlab.cluster.asking import KEY, Answer, Asked
from batchlab.cluster.sending import SentBench
from batchlab.engine.data import TrainingData
from batchlab.engine.halts import Keeper
from batchlab.engine.losses import Loss
from batchlab.engine.records import OnProgress, Plan, Progress, Trial, TrialResult
from batchlab.errors import BadInput, BatchlabError
from batchlab.experiment import Experiment
from batchlab.models import Model
from batchlab.search.hands import Bench, Handed, SecondsLeft, Stack, Tell
from batchlab.search.keeping import Kept
from batchlab.strategies import Strategy

START_SECONDS, END_SECONDS, LOOK_SECONDS = 300.0, 10.0, 0.05
TRIES = 5
"""Processes that have ended are started again, and go on with the same training, so often at most."""
TORCHRUNS = ("ChildFailedError", "SignalException")
"""What torchrun itself raises says nothing of why."""
SAID = re.compile(r"(\w*(?:Error|Exception)\b.*|exitcode *: *-?\d+.*)")


class RankHands:
    """Trains one stack after the other, each over as many processes as its plan says: those of the profile, or the first of them."""

    count = 1

    def __init__(self, experiment: Experiment) -> None:
        self.processes = experiment.profile.train.processes
        check_devices(self.processes, experiment.device)
        self.note = f"every training divided the rows of its steps over {self.processes} processes of this machine"
        self.scratch = tempfile.TemporaryDirectory(prefix="batchlab-ranks-")
        self.benches: dict[int, tuple[Bench, Path]] = {}
        self.group = Group(self.processes, experiment.device.type, Path(self.scratch.name))
        self.group.start()  # before the clock of a search begins: processes take seconds to import torch

    def trained(self, bench: Bench, stacks: Sequence[Stack], seconds_left: SecondsLeft, tell: Tell, keeper: Keeper | None) -> Handed:
        for number, stack in enumerate(stacks):
            if seconds_left() <= 0:
                return
            yield number, bench.trained(stack, seconds_left, tell, keeper, self.train)

    def train(
        self,
        data: TrainingData,
        model: Model,
        strategy: Strategy,
        trials: Sequence[Trial],
        plan: Plan,
        loss: Loss,
        device: torch.device,
        on_progress: OnProgress = lambda progress: None,
        should_stop: Callable[[], bool] = lambda: False,
        keeper: Keeper | None = None,
        **how: Any,
    ) -> list[TrialResult]:
        """Train as `engine.loop.train` does, over the plan's processes. Processes that are killed are started again, and go on
        from where the training was kept; raises BatchlabError where they end again and again, with the last that they said."""
        bench = self._file_of(Bench(model, loss, device, plan, data))
        kept = (keeper.folder, keeper.least_seconds, keeper.share) if isinstance(keeper, Kept) else None
        asked = Asked(bench, strategy, tuple(trials), plan, how, kept)
        for _ in range(TRIES):
            try:
                answer = self.group.asked(asked, should_stop, on_progress)
            except EOFError:
                continue
            if answer.wrong is not None:
                raise answer.wrong
            return list(answer.results)
        raise BatchlabError(f"the processes of a training ended {TRIES} times in a row; the last time: {self.group.said()}")

    def close(self) -> None:
        """End the processes."""
        self.group.end()
        self.scratch.cleanup()

    def _file_of(self, bench: Bench) -> Path:
        """Return the file with the bench, written once for its rows: processes map it into their memory."""
        key = id(bench.data)
        if key not in self.benches:
            path = Path(self.scratch.name) / f"{len(self.benches)}.bench"
            try:
                joblib.dump(SentBench.of(bench), path)
            except OSError as error:
                held = bench.data.features.nbytes / 2**30
                raise BadInput(
                    f"{held:.2f} GiB of rows could not be written to {path.parent} for the other processes ({error.strerror}); set TMPDIR "
                    "to a folder with room, or train in one process: train.processes=1."
                ) from error
            self.benches[key] = bench, path
        return self.benches[key][1]


class Group:
    """The processes under torchrun, started when something is asked: when one ends, all do."""

    def __init__(self, processes: int, device: str, folder: Path) -> None:
        self.processes, self.device, self.folder, self.numbers = processes, device, folder, itertools.count()
        self.torchrun: subprocess.Popen[bytes] | None = None
        self.connection: Connection | None = None
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe that nobody reads would fill up and stop the processes

    def asked(self, asked: Asked, should_stop: Callable[[], bool], on_progress: OnProgress) -> Answer:
        """Return the answer of the processes, which end the training when it is enough; raises EOFError where they have ended."""
        connection, stopped = self.connection or self.start(), False
        try:
            connection.send(asked)
            while True:
                if not stopped and should_stop():
                    connection.send("stop")
                    stopped = True
                if connection.poll(LOOK_SECONDS):
                    heard = connection.recv()
                    if isinstance(heard, Answer):
                        return heard
                    if isinstance(heard, Progress):
                        on_progress(heard)
        except (EOFError, OSError) as error:
            self.end()
            raise EOFError from error
        except BaseException:
            self.end()
            raise

    def start(self) -> Connection:
        """Start the processes, and return the connection to the first of them."""
        address, key, cores = self.folder / f"{next(self.numbers)}.socket", secrets.token_bytes(32), joblib.cpu_count()
        environment = os.environ | {
            KEY: key.hex(),
            "PYTHONPATH": os.pathsep.join([os.getcwd(), *(path for path in sys.path if path)]),
            "OMP_NUM_THREADS": str(max(1, cores // self.processes)),
        }
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self.processes}"]
        self.torchrun = subprocess.Popen(
            [*torchrun, "-m", "batchlab.cluster.rank", str(address), self.device],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,  # an interruption is for the command, which ends them
        )
        ends = time.monotonic() + START_SECONDS
        while time.monotonic() < ends and self.torchrun.poll() is None:
            try:
                self.connection = Client(str(address), authkey=key)
                return self.connection
            except (FileNotFoundError, ConnectionError):
                time.sleep(LOOK_SECONDS)
        self.end()
        raise BatchlabError(f"the {self.processes} processes of a training did not start: {self.said()}")

    def end(self) -> None:
        """End the processes: they do so by themselves when nobody is connected, and all when one does; else torchrun is told to."""
        if self.connection is not None:
            self.connection.close()
        if self.torchrun is not None:
            for insist in (None, signal.SIGTERM, signal.SIGKILL):
                if insist is not None:
                    self.torchrun.send_signal(insist)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.torchrun.wait(END_SECONDS)
                    break
        self.torchrun = self.connection = None

    def said(self) -> str:
        """Return the line that says best why processes ended."""
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").splitlines()
        found = [match.group(1).strip() for line in lines if (match := SAID.search(line)) and not any(name in line for name in TORCHRUNS)]
        return found[-1] if found else (lines[-1].strip() if lines else "nothing was said")


def check_devices(processes: int, device: torch.device) -> None:
    """Raise BadInput where there are fewer GPUs than processes."""
    found = torch.cuda.device_count() if device.type == "cuda" else processes
    if found < processes:
        raise BadInput(f"train.processes is {processes}, and this machine has {found} GPUs: each process takes one; set it to {found}.")
