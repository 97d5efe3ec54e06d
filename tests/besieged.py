"""Nodes killed in the middle of rungs: a training of each stops between two runs of its steps, and waits until its node is killed."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import ray

from batchlab.cluster.ray_hands import TRIES, RayHands, _opened
from batchlab.cluster.sending import SentBench
from batchlab.engine.halts import Keeper
from batchlab.experiment import Experiment
from batchlab.search.hands import Bench, Handed, SecondsLeft, Stack, Tell, Trained
from batchlab.search.search import Search

WAITS, LOST, ENDED = ".waits", ".lost", ".ended"
"""Files of a rung: which process of which node waits to be killed; that it was; that what it trained came to its end elsewhere."""
LOOK_SECONDS, STARTS = 0.02, 10
NODE = {"num_cpus": 1, "object_store_memory": 100_000_000}


def trained_until_lost(references: "list[ray.ObjectRef[SentBench]]", stack: Stack, rung: Path) -> Trained:
    """Train a stack in a worker, the first time up to where the loop asks whether to stop, after its first run of steps."""
    lost = rung.with_suffix(LOST)

    def seconds_left() -> float:
        if not lost.exists():
            draft = rung.with_suffix(f".{os.getpid()}")
            draft.write_text(f"{ray.get_runtime_context().get_node_id()} {os.getpid()}")
            draft.replace(rung.with_suffix(WAITS))
        while not lost.exists():
            time.sleep(LOOK_SECONDS)
        return float("inf")

    found = _opened(references).trained(stack, seconds_left)
    rung.with_suffix(ENDED).touch()
    return found


class _Choosing:
    """Hands out as the function that it is given, but for one stack, which is trained until its node is lost."""

    def __init__(self, others: Any, chosen: Stack, rung: Path) -> None:
        self.others, self.chosen, self.rung = others, chosen, rung
        self.until_lost = ray.remote(num_cpus=1, max_retries=TRIES)(trained_until_lost)

    def remote(self, references: Any, stack: Stack, left: float) -> Any:
        if stack.setting == self.chosen.setting and self.chosen.trials[0] in stack.trials:
            return self.until_lost.remote(references, stack, self.rung)
        return self.others.remote(references, stack, left)


class Besieged(RayHands):
    """Trains on a cluster; of every rung the node is lost that trains the stack in its middle. `rungs` are those that trained anything, by
    the labels of their parts of the search."""

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        super().__init__(experiment.profile.run, experiment)
        folder.mkdir()
        self.folder, self.others = folder, self._train
        self.label, self.rungs = "", list[str]()

    def trained(self, bench: Bench, stacks: Sequence[Stack], seconds_left: SecondsLeft, tell: Tell, keeper: Keeper | None) -> Handed:
        moving = [stack for stack in stacks if len(stack.marks)]  # the others stand where the rung goes to
        self._train = self.others
        if moving and self.label.startswith("race"):
            self._train = _Choosing(self.others, moving[len(moving) // 2], self.folder / str(len(self.rungs)))
            self.rungs.append(self.label)
        return super().trained(bench, stacks, seconds_left, tell, keeper)

    def files(self, suffix: str) -> list[str]:
        """Return the rungs that have such a file, in their order."""
        return [rung for number, rung in enumerate(self.rungs) if (self.folder / str(number)).with_suffix(suffix).exists()]


def besieged(search: Search, cluster: Any, trained: Callable[[Search], pd.DataFrame]) -> pd.DataFrame:
    """Return what comes of a search whose nodes are lost; for each another one is started."""
    hands = search.hands
    assert isinstance(hands, Besieged)
    with ThreadPoolExecutor(1) as beside:  # Ray starts nodes on the main thread alone
        there: Future[pd.DataFrame] = beside.submit(trained, search)
        while not there.done():
            for waits in hands.folder.glob(f"*{WAITS}"):
                node, process = waits.read_text().split()
                if waits.with_suffix(LOST).exists():  # it was begun a second time before that
                    waits.unlink()
                    continue
                _lose(cluster, node, int(process))
                waits.replace(waits.with_suffix(LOST))
                added(cluster)
            time.sleep(LOOK_SECONDS)
    return there.result()


def added(cluster: Any) -> None:
    """Start a node of one core. On a machine that is busy one may end while it starts: it waits only so long for its own processes."""
    for _ in range(STARTS):
        try:
            cluster.add_node(**NODE)
            return
        except Exception as error:  # Ray raises no other kind
            print(f"a node did not start: {error}")


def _lose(cluster: Any, node: str, process: int) -> None:
    """Kill a node and the process on it that trains, which would live on for a while and answer."""
    cluster.remove_node(next(one for one in cluster.worker_nodes if one.node_id == node), allow_graceful=False)
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
