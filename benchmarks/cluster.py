"""What a cluster could gain: `python -m benchmarks.cluster FOLDER` records how long every stack of a search takes on one core, measures
what handing one out costs on a Ray cluster on this machine, and simulates 1 to 64 workers with both. With `--stages copies` it counts how
often a table lies in the memory of three nodes.
"""

import argparse
import heapq
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from batchlab.cluster.ray_hands import RayHands
from batchlab.engine.halts import Keeper
from batchlab.engine.optimizers import Sgd
from batchlab.engine.records import Trial
from batchlab.experiment import Experiment
from batchlab.rules.run import RunRule
from batchlab.search.hands import Bench, Handed, Here, SecondsLeft, Stack, Tell
from batchlab.search.search import Search
from batchlab.search.space import Setting
from batchlab.strategies.mini_batch import MiniBatch
from benchmarks.copies import copies
from benchmarks.datasets import profile_of
from benchmarks.verdict_checks import experiment_of

WORKERS = (1, 2, 4, 8, 16, 32, 64)
SETTINGS = ("search.max_minutes=inf", "train.max_rows=500000")
ITEMS = 200


class Recording(Here):
    """Trains here, and keeps for every rung or confirmation its stacks' seconds and trials."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[float, int]]] = []

    def trained(self, bench: Bench, stacks: Sequence[Stack], seconds_left: SecondsLeft, tell: Tell, keeper: Keeper | None) -> Handed:
        self.calls.append([])
        for number, found in super().trained(bench, stacks, seconds_left, tell, keeper):
            self.calls[-1].append((found.seconds, len(found.results)))
            yield number, found


def main() -> None:
    """Record, measure and simulate; count copies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="*", default=["diabetes", "digits", "sines"])
    parser.add_argument("--stages", nargs="*", choices=("workers", "copies"), default=["workers"])
    parser.add_argument("--rows", type=int, default=20_000_000, help="of the table whose copies are counted")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if "workers" in given.stages:
        workers(given.folder, given.sets)
    if "copies" in given.stages:
        copies(given.folder, given.rows)


def workers(folder: Path, sets: Sequence[str]) -> None:
    """Print what 2 to 64 workers would gain on these data sets."""
    experiments = {name: experiment_of(profile_of(name, folder, 1.0, extra=SETTINGS), folder) for name in sets}
    overhead = overhead_of_an_item(next(iter(experiments.values())))
    print(f"handing out an item: {1e3 * overhead:.2g} ms\n")
    print("| data | rungs and confirmations | stacks | one worker | " + " | ".join(f"{count} workers" for count in WORKERS[1:]) + " |")
    print("| --- |" + " --- |" * (3 + len(WORKERS[1:])))
    for name, experiment in experiments.items():
        calls = recorded(experiment)
        seconds = [sum(spent(call, count, overhead) for call in calls) for count in WORKERS]
        gains = " | ".join(
            f"{seconds[0] / one:.1f}× ({100 * seconds[0] / one / count:.0f}%)" for count, one in zip(WORKERS[1:], seconds[1:], strict=True)
        )
        print(f"| {name} | {len(calls)} | {sum(map(len, calls))} | {seconds[0]:.0f} s | {gains} |", flush=True)


def recorded(experiment: Experiment) -> list[list[tuple[float, int]]]:
    """Return the seconds and trials of every stack, rung by rung, of a search until all is confirmed."""
    hands = Recording()
    for part in Search(experiment, hands=hands).parts():
        if part.label == "test rows":
            break
        part.run()
    return [call for call in hands.calls if call]


def spent(call: Sequence[tuple[float, int]], workers: int, overhead: float) -> float:
    """Return the seconds that stacks take which are handed out, in parts where they are fewer than the workers, to whoever is free."""
    each = max(1, math.ceil(workers / len(call)))
    parts = [seconds / min(each, trials) + overhead for seconds, trials in call for _ in range(min(each, trials))]
    free = [0.0] * workers
    for seconds in parts:
        heapq.heappush(free, heapq.heappop(free) + seconds)
    return max(free)


def overhead_of_an_item(experiment: Experiment) -> float:
    """Return what handing out a stack costs beside its training, with one worker."""
    bench = Bench(experiment.model, experiment.loss, experiment.device, experiment.profile.train, experiment.data)
    stack = Stack(Setting(MiniBatch(batch_rows=32), Sgd(), 0.01), (Trial(0.01, 0),), np.array([64.0]))
    hands, forever, silent = RayHands(RunRule(on="ray", address="local"), experiment), _forever(), lambda said, progress: None
    try:
        list(hands.trained(bench, [stack] * hands.count, forever, silent, None))
        began = time.perf_counter()
        seconds = sum(found.seconds for _, found in hands.trained(bench, [stack] * ITEMS, forever, silent, None))
        return (hands.count * (time.perf_counter() - began) - seconds) / ITEMS
    finally:
        hands.close()


def _forever() -> Callable[[], float]:
    return lambda: math.inf


if __name__ == "__main__":
    main()
