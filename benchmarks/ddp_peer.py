"""A loop that divides a training over processes as people write it, with torch's DistributedDataParallel; for `benchmarks.processes`."""

import json
import sys
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

SECONDS = 2.0


def main(features: int, width: int, sizes: list[int]) -> None:
    """Print, as the first process, the seconds of a step by its rows."""
    dist.init_process_group("gloo")
    rank, count = dist.get_rank(), dist.get_world_size()
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2 * max(sizes), features, generator=generator)
    target = rows[:, 0].sin()
    found = {}
    for size in sizes:
        torch.manual_seed(0)
        model = DistributedDataParallel(
            nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.001)
        own = slice(rank * size // count, (rank + 1) * size // count)
        steps, began = 0, time.perf_counter()
        while True:
            places = torch.randperm(len(rows), generator=generator)[:size][own]
            optimizer.zero_grad()
            nn.functional.mse_loss(model(rows[places])[:, 0], target[places]).backward()
            optimizer.step()
            steps += 1
            if steps == 5:
                began = time.perf_counter()
            if steps % 20 == 0:
                over = torch.tensor(float(time.perf_counter() - began > SECONDS))
                dist.broadcast(over, 0)
                if over > 0:
                    break
        found[size] = (time.perf_counter() - began) / (steps - 5)
    if rank == 0:
        print(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), [int(size) for size in sys.argv[3].split(",")])
