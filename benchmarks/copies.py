"""How often a table lies in the memory of a cluster: packed once, trained on by three nodes, counted in their object stores and in `/proc`.

`python -m benchmarks.cluster FOLDER --stages copies --rows 20000000` calls it. The nodes are raylets on this machine, each with an object
store of its own; where every node is a machine, pages of rows in files are cached once on each.
"""

import math
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from batchlab.cluster.ray_hands import RayHands
from batchlab.config import load_profile
from batchlab.engine.optimizers import Sgd
from batchlab.engine.records import Trial
from batchlab.experiment import Experiment
from batchlab.search.hands import Bench, Stack
from batchlab.search.space import Setting
from batchlab.strategies.mini_batch import MiniBatch
from benchmarks.verdict_checks import experiment_of

NODES, FEATURES, PORTION = 3, 4, 2**20
ROW_BYTES = 4 * (FEATURES + 1)
ROOM = 1.5
"""The object store of a node holds so many times the table."""
LOOK_SECONDS = 0.5
MIB = 2**20
SETTINGS = ("model.kind=linear", "train.max_rows=1000000000", "run.on=ray")
KINDS = {"in memory": 4.0, "in files": 0.5}
"""How many times the table's bytes a comparison may take, for rows that are sent and for those that stay in files."""


@dataclass
class Memory:
    """What a process takes, in bytes: its highest resident set, with all pages that it shares; the most that was seen at once of pages that
    nobody else has; and how much of object stores and of packed rows in files it has mapped at the end."""

    peak: int = 0
    own: int = 0
    of_stores: int = 0
    of_files: int = 0

    def look(self, process: int) -> None:
        """Take note of what the process takes now, unless it has ended."""
        with suppress(OSError):
            places = Path(f"/proc/{process}")
            self.peak = _kib(places / "status", "VmHWM")
            self.own = max(self.own, _kib(places / "smaps_rollup", "Private_Clean") + _kib(places / "smaps_rollup", "Private_Dirty"))

    def look_at_maps(self, process: int) -> None:
        """Take note of what the process has mapped now, of stores only what it has looked at."""
        name = ""
        for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
            first, *others = line.split(maxsplit=5)
            if not first.endswith(":"):
                name = others[4] if len(others) == 5 else ""
            elif first == "Rss:" and name.startswith("/dev/shm/"):
                self.of_stores += 1024 * int(others[0])
            elif first == "Size:" and name.endswith(".npy"):
                self.of_files += 1024 * int(others[0])


def _kib(path: Path, name: str) -> int:
    return 1024 * sum(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(f"{name}:"))


def copies(folder: Path, rows: int) -> None:
    """Print how often a table of so many rows lies in the memory of three nodes, and what each of their processes takes."""
    source = written(folder / f"rows-{rows}.parquet", rows)
    print("| rows | where | object store | of it: times the rows | rows mapped of files | peak | of it its own |")
    print("| --- |" + " --- |" * 6)
    for kind, times in KINDS.items():
        limit = f"memory_gib={times * rows * ROW_BYTES / 2**30}"
        experiment = experiment_of(load_profile("quick", data=str(source), target="target", overrides=[*SETTINGS, limit]), folder)
        with cluster(int(ROOM * rows * ROW_BYTES)) as nodes:
            _print(kind, experiment, nodes)


def written(path: Path, rows: int) -> Path:
    """Write a table of so many rows of four features, portion by portion, unless it is there; returns its path."""
    if path.exists():
        return path
    rng, draft = np.random.default_rng(0), path.with_suffix(".part")
    names = [*(f"x{number}" for number in range(FEATURES)), "target"]
    with pq.ParquetWriter(draft, pa.schema([(name, pa.float32()) for name in names])) as writer:
        for start in range(0, rows, PORTION):
            features = rng.standard_normal((FEATURES, min(PORTION, rows - start)), dtype=np.float32)
            target = features.sum(axis=0) + rng.standard_normal(features.shape[1], dtype=np.float32)
            writer.write_table(pa.table([*features, target], names=names))
    return draft.rename(path)


@contextmanager
def cluster(store_bytes: int) -> Iterator[Any]:
    """Yield a cluster of three nodes of one core, each with so large an object store."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": max(store_bytes, 100 * MIB)}
    found = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        for _ in range(NODES - 1):
            found.add_node(**node)
        yield found
    finally:
        found.shutdown()


def _print(kind: str, experiment: Experiment, nodes: Any) -> None:
    """Train an epoch on every node and print what lay where meanwhile."""
    sizes, _ = experiment.split.sizes(), experiment.data
    trained_on = (sizes["train"] + sizes["validation"]) * ROW_BYTES
    hands = RayHands(experiment.profile.run.model_copy(update={"address": nodes.address}), experiment)
    try:
        seen, driver = _trained(hands, experiment, nodes), Memory()
        driver.look(psutil.Process().pid)
        for number, (node, stored) in enumerate(_stores(nodes).items()):
            store = f"{stored / MIB:,.0f} MiB | {stored / trained_on:.2f}"
            for worker in seen[node]:
                said = f"{worker.of_files / MIB:,.0f} MiB | {worker.peak / MIB:,.0f} MiB | {worker.own / MIB:,.0f} MiB"
                print(f"| {kind}, {trained_on / MIB:,.0f} MiB | node {number + 1} | {store} | {said} |", flush=True)
        print(f"| {kind} | the command | | | | {driver.peak / MIB:,.0f} MiB | {driver.own / MIB:,.0f} MiB |", flush=True)
    finally:
        hands.close()


def _trained(hands: RayHands, experiment: Experiment, nodes: Any) -> dict[str, list[Memory]]:
    """Have every node see all rows once; returns by node what the workers took that have them."""
    bench = Bench(experiment.model, experiment.loss, experiment.device, experiment.profile.train, experiment.data)
    marks = np.array([float(bench.data.population.row_count)])
    stacks = [Stack(Setting(MiniBatch(batch_rows=4096), Sgd(), 0.01), (Trial(0.01, seed),), marks) for seed in range(2 * NODES)]
    seen: dict[str, dict[int, Memory]] = defaultdict(lambda: defaultdict(Memory))
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            for node, processes in _workers(nodes).items():
                for process in processes:
                    seen[node][process].look(process)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        handed = hands.trained(bench, stacks, lambda: math.inf, lambda said, progress: None, None)
        seen_rows = [result.rows_seen for _, trained in handed for result in trained.results]
    finally:
        over.set()
        looking.join()
    assert min(seen_rows) >= marks[-1]
    for of_node in seen.values():
        for process, memory in of_node.items():
            memory.look_at_maps(process)
    return {node: [memory for memory in of_node.values() if memory.of_stores + memory.of_files] for node, of_node in seen.items()}


def _raylets(nodes: Any) -> dict[str, int]:
    """Return the process of each node that holds its object store and starts those that train."""
    return {node.node_id: node.all_processes["raylet"][0].process.pid for node in nodes.list_all_nodes()}


def _workers(nodes: Any) -> dict[str, list[int]]:
    """Return the processes that Ray has named, by node."""
    found: dict[str, list[int]] = {}
    for node, raylet in _raylets(nodes).items():
        found[node] = []
        for child in psutil.Process(raylet).children(recursive=True):
            with suppress(psutil.Error):  # it has ended
                found[node] += [child.pid] * "".join(child.cmdline()).startswith("ray::")
    return found


def _stores(nodes: Any) -> dict[str, int]:
    """Return the bytes of memory that each node's object store takes: the pages of its file that were ever written to."""
    found: dict[str, int] = {}
    for node, raylet in _raylets(nodes).items():
        files = [one.stat() for one in Path(f"/proc/{raylet}/fd").iterdir() if str(one.readlink()).startswith("/dev/shm/")]
        found[node] = sum({file.st_ino: 512 * file.st_blocks for file in files}.values())
    return found
