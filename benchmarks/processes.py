"""`python -m benchmarks.processes`: a step divided over 1, 2, … processes, beside a hand-written DistributedDataParallel loop in the same
minute. Prints a table for docs/cluster.md."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from batchlab.cluster.rank_hands import RankHands
from batchlab.config import load_profile
from batchlab.engine.data import TrainingData
from batchlab.engine.losses import Loss
from batchlab.engine.optimizers import AdamW
from batchlab.engine.records import Plan, Trial, TrialResult
from batchlab.experiment import Experiment
from batchlab.models.mlp import Mlp
from batchlab.rows.split import split
from batchlab.strategies import Population
from batchlab.strategies.mini_batch import MiniBatch
from batchlab.table import pack

FEATURES, SIZES = 50, (32, 512, 8192)
SECONDS, ROUNDS = 2.0, 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--width", type=int, default=256)
    given = parser.parse_args()
    print("| rows a step | processes | a step | waiting | times as quick as one | the DDP loop over it |")
    print("| --- | --- | --- | --- | --- | --- |")
    peers = {count: [ddp(count, given.width) for _ in range(ROUNDS)] for count in (1, given.processes)}
    own = {count: own_seconds(given.processes, count, given.width) for count in (1, given.processes)}
    for size in SIZES:
        for count in (1, given.processes):
            seconds, waiting = own[count][size]
            peer = min(found[size] for found in peers[count])
            gain = own[1][size][0] / seconds
            print(f"| {size:,} | {count} | {1000 * seconds:.3g} ms | {waiting:.0%} | {gain:.2f} | {peer / seconds:.2f} |")


def own_seconds(processes: int, count: int, width: int) -> dict[int, tuple[float, float]]:
    """Return seconds and the share of waiting of a step by its rows, the quickest of a few."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2 * max(SIZES), FEATURES, generator=generator)
    target = rows[:, 0].sin()
    data = TrainingData(rows, target, rows[:64], target[:64], Population(len(rows)), 1)
    with tempfile.TemporaryDirectory() as folder:
        profile = load_profile("quick", overrides=[f"train.processes={processes}"])
        table = pack(profile.source, profile.named_columns(), Path(folder), profile.seed)
        hands, found = RankHands(Experiment(profile, table, split(table, profile.split, profile.seed))), {}
        try:
            for size in SIZES:
                steps, taken = 20, list[TrialResult]()
                while len(taken) < ROUNDS:
                    plan = Plan(epochs=10**6, max_steps=steps, evaluations=1, optimizer=AdamW(), backend="torch", processes=count)
                    result = hands.train(
                        data,
                        Mlp(widths=(width, width)),
                        MiniBatch(batch_rows=size),
                        [Trial(0.001, 0)],
                        plan,
                        Loss("mse"),
                        torch.device("cpu"),
                    )[0]
                    if result.train_seconds < SECONDS / 2:
                        steps = int(steps * min(10, 1.2 * SECONDS / max(result.train_seconds, 1e-3)))
                    else:
                        taken.append(result)
                best = min(taken, key=lambda result: result.train_seconds / result.steps)
                found[size] = best.train_seconds / best.steps, best.waiting_seconds / best.train_seconds
        finally:
            hands.close()
    return found


def ddp(count: int, width: int) -> dict[int, float]:
    """Return the seconds of the hand-written loop's step by its rows."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    threads = {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // count))}
    done = subprocess.run(
        [*torchrun, "-m", "benchmarks.ddp_peer", str(FEATURES), str(width), ",".join(map(str, SIZES))],
        env=os.environ | threads,
        capture_output=True,
        text=True,
        check=True,
    )
    return {int(size): seconds for size, seconds in json.loads(done.stdout.strip().splitlines()[-1]).items()}


if __name__ == "__main__":
    main()
