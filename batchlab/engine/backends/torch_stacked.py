"""The torch backend: for a GPU, for your own modules, and for very wide networks on a CPU."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from batchlab.engine.averaging import average_share
from batchlab.engine.backends.base import PORTIONS, Backend, Batch, Flags
from batchlab.engine.backends.slopes import Slopes
from batchlab.engine.data import TrainingData, overlaps
from batchlab.engine.delivery import batches_of
from batchlab.engine.losses import Loss
from batchlab.engine.ranks import ranks_here
from batchlab.engine.records import Plan, Trial
from batchlab.engine.runs import Run, Window
from batchlab.errors import BadInput
from batchlab.models import Model
from batchlab.networks.layout import is_carried

SEEDS_APART = 1_000_003
"""A network that draws random numbers does so by step + this × (seed + this × micro-batch)."""
EVALUATED_AT_ONCE, FEWEST_AT_ONCE, NUMBERS_AT_ONCE = 2**14, 2**8, 2**22
"""Rows × replicas evaluated at once, so that evaluation's memory does not grow with the data; on a CPU fewer where rows are so wide."""


def evaluated_at_once(columns: int, device: torch.device) -> int:
    """Return how many rows × replicas are evaluated at once."""
    return EVALUATED_AT_ONCE if device.type == "cuda" else min(EVALUATED_AT_ONCE, max(FEWEST_AT_ONCE, NUMBERS_AT_ONCE // columns))


class TorchStacked(Backend):
    """Trains on any device that torch knows. Everything stays there: no step waits for a number to come back to Python.

    On CUDA the steps of full size replay one captured graph. `tf32` and `bf16` round what goes into matrix products, nothing else.
    Together with other processes it takes its part of every step's rows, and all make the step with the summed gradient.
    """

    def __init__(
        self,
        model: Model,
        shape: tuple[int, int],
        loss: Loss,
        plan: Plan,
        trials: Sequence[Trial],
        data: TrainingData,
        device: torch.device,
    ) -> None:
        super().__init__(model, shape, trials, loss, data, plan)
        self.optimizer, self.device, self.precision, self.ranks = plan.rule, device, plan.precision, ranks_here()
        real = data.features.dtype
        self.carried = np.arange(len(trials))
        self.seed_of_carried = torch.from_numpy(self.seed_of_replica).to(device)
        self.left = self.initial.to(device, real)
        self.current = self.left.clone()
        self.average, self.left_average = self.current.clone(), self.current.clone()
        trained = (len(trials), self.layout.trained_size)
        self.memory = torch.zeros((self.optimizer.slots, *trained), device=device, dtype=real)
        self.left_memory = self.memory.clone()
        self.number, self.averaged, self.share_now = 0, True, 1.0  # the step, whether its weights count for the average, and how much
        self.factor, self.share = (torch.ones((), device=device, dtype=real) for _ in range(2))
        self.rates = torch.tensor([[trial.learning_rate] for trial in trials], device=device, dtype=real)
        self.moving = torch.ones(len(trials), dtype=torch.bool, device=device)
        self.made = torch.zeros(len(trials), dtype=torch.int64, device=device)
        self._note_who_moves()
        self.step = torch.zeros((), dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)
        self.graph: _Graph | None = None
        self.slopes = Slopes(model, shape, loss, real, device, self._rounding)
        if self.ranks.count > 1:
            check_divisible(self.network, self.slopes.traits.needs_rows)
        self.trained = self.layout.trained_size
        self._sit()

    @cached_property
    def data(self) -> Batch:
        """All training rows: on the device where they fit, in memory or mapped into it. Steps of delivered rows do without."""
        features, target = self.rows.features, self.rows.target
        return (features, target) if self.device.type == "cpu" else resident(features, target, self.device, self.rows.stored is not None)

    def train(self, run: Run, rows: Iterator[Batch] | Window | None) -> None:
        before = self.moving.clone()
        with _tf32_products(self.precision == "tf32"), self._own_chance():
            self._make_steps(run, batches_of(rows, run, self.device) if isinstance(rows, Window) else rows)
        made, diverged = self.steps.copy(), np.zeros_like(self.active)
        made[self.carried] = self.made.cpu().numpy()
        diverged[self.carried] = (before & ~self.moving).cpu().numpy()
        self._count(run, made, diverged)

    def _make_steps(self, run: Run, batches: Iterator[Batch] | None) -> None:
        pace = self._pace(run)
        sizes = np.diff(run.step_rows).tolist()
        if batches is not None:
            for spans, rows, _ in zip(run.spans(), sizes, pace, strict=True):
                self._step((next(batches) for _ in spans), rows)
            return
        features, target = self.data
        order = torch.tensor(run.rows, device=features.device)
        for spans, rows, _ in zip(run.spans(), sizes, pace, strict=True):
            if len(spans) == 1 and (graph := self._graph_of(rows)) is not None:
                graph.replay(order[:, spans[0]])
            else:
                self._step((self._gathered(features, target, order[:, span]) for span in spans), rows)

    def _gathered(self, features: Tensor, target: Tensor, places: Tensor) -> Batch:
        """Return the rows at places `[seeds, rows]`, on the device."""
        flat = places.reshape(-1)
        rows = features.index_select(0, flat).view(*places.shape, *features.shape[1:]), target.index_select(0, flat).view(places.shape)
        return rows if self.device.type == "cpu" else (rows[0].to(self.device), rows[1].to(self.device))

    def _own_chance(self) -> AbstractContextManager[object]:
        """Leave torch's generator to others as it was, where the network draws from it."""
        return torch.random.fork_rng() if self.slopes.traits.draws else nullcontext()

    def _pace(self, run: Run) -> Iterator[None]:
        """Set, step by step, the factor on the rate and the share that the step's weights have in the average: on the device, where a
        captured step reads them."""
        shares = [average_share(step) if self.plan.averaging else 0.0 for step in range(run.first_step, run.last_step + 1)]
        factors = np.broadcast_to(self.factors(run), len(shares))
        table = torch.from_numpy(np.stack([factors, shares])).to(self.device, self.current.dtype)
        for number, share in enumerate(shares):
            self.number, self.averaged, self.share_now = run.first_step + number, share > 0, share
            if not self.plan.schedule.is_constant:
                self.factor.copy_(table[0, number])
            if self.plan.averaging and self.device.type == "cuda":
                self.share.copy_(table[1, number])
            yield

    def _step(self, batches: Iterator[Batch], rows: int) -> None:
        """Make one update with the gradient of `rows` rows, summed over micro-batches; all state is changed in place."""
        self.gradient.zero_()
        carried = self.current[:, self.trained :].clone() if self.layout.carried else None
        losses = [
            self.slopes.add(self.current, self.gradient, (self._spread(features), self._spread(target)), rows, self._draws(number))
            for number, (features, target) in enumerate(batches)
            if target.shape[1]  # of small micro-batches a process may have no row
        ]
        loss = losses[0] if len(losses) == 1 else torch.stack([torch.zeros_like(self.gradient[:, 0]), *losses]).sum(0)
        self.ranks.sum(self.gradient, loss)
        with torch.no_grad():
            self.step += 1
            rates = self.rates if self.plan.schedule.is_constant else self.rates * self.factor
            updated = self.optimizer.updated(self.weights_now, self.gradient, rates, self.memory, self.step)
            if self.all_move and math.isfinite(updated.sum() + loss.sum()):
                self._move_all(updated)
            else:
                self._move(updated, loss, carried)

    def _draws(self, micro_batch: int) -> list[int]:
        """Return what each replica that is carried along draws its random numbers by."""
        if not self.slopes.traits.draws:
            return []
        apart = micro_batch * self.ranks.count + self.ranks.rank
        return [SEEDS_APART * (seed + SEEDS_APART * apart) + self.number for seed in self.seeds_carried]

    def _move_all(self, updated: Tensor) -> None:
        """Move every replica: all that on a CPU nearly every step comes to."""
        self.weights_now.copy_(updated)
        self.made += 1
        if self.averaged:
            self.average.lerp_(self.current, self.share_now)

    def _move(self, updated: Tensor, loss: Tensor, carried: Tensor | None) -> None:
        """Move the replicas whose loss and weights are finite; the others stay as they were before the step."""
        self.moving &= torch.isfinite(loss) & torch.isfinite(updated).all(1)
        move = self.moving[:, None]
        self.weights_now.copy_(torch.where(move, updated, self.weights_now))
        if carried is not None:
            self.current[:, self.trained :] = torch.where(move, self.current[:, self.trained :], carried)
        self.made += self.moving
        if self.plan.averaging and (self.averaged or self.device.type == "cuda"):  # a captured step cannot be asked
            share = self.share if self.device.type == "cuda" else self.share_now
            self.average += (share * self.moving)[:, None] * (self.current - self.average)
        self._note_who_moves()

    def _sit(self) -> None:
        """Note where the weights are that are trained, once they have moved to other memory."""
        self.weights_now = self.current[:, : self.trained]
        self.seeds_carried = [self.seeds[place] for place in self.seed_of_replica[self.carried]]
        self.gradient = torch.zeros_like(self.weights_now)
        self.slopes.unbind()

    def _note_who_moves(self) -> None:
        """Note whether all replicas move; only on a CPU is it no waiting to ask."""
        self.all_move = self.device.type == "cpu" and bool(self.moving.all())

    def _graph_of(self, rows: int) -> "_Graph | None":
        """Return the graph of a step of `rows` rows; None off CUDA, for rows on the host, and for a size other than the first."""
        features, target = self.data
        traits = self.slopes.traits
        if features.device.type != "cuda" or traits.unstackable is not None or traits.draws:  # a captured step cannot be seeded
            return None
        if self.ranks.count > 1:
            return None
        if self.graph is None:
            state = (self.current, self.average, self.memory, self.moving, self.made, self.step)
            self.graph = _Graph(lambda block: self._step(iter([(features[block], target[block])]), rows), len(self.seeds), rows, state)
        return self.graph if self.graph.rows == rows else None

    def _spread(self, rows: Tensor) -> Tensor:
        """Give each replica the rows of its seed: `[seeds, …]` → `[replicas, …]`, without a copy when all share one seed."""
        if len(rows) == 1:
            return rows if len(self.carried) == 1 else rows.expand(len(self.carried), *rows.shape[1:])
        return rows[self.seed_of_carried]

    def _rounding(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    @torch.no_grad()
    def summed(self, features: Tensor, target: Tensor, replicas: NDArray[np.intp], last: bool) -> NDArray[np.float64]:
        places = torch.from_numpy(np.searchsorted(self.carried, replicas)).to(self.device)
        chosen = self.current if last or not self.plan.averaging else self.average
        chosen = chosen if len(replicas) == len(self.carried) else chosen[places]
        count, rows = len(replicas), len(target)
        portions = min(PORTIONS, rows)
        bounds = torch.arange(portions + 1, device=self.device) * rows // portions
        portion = torch.repeat_interleave(torch.arange(portions, device=self.device), bounds.diff())
        sums = torch.zeros((count, portions), device=self.device, dtype=self.step.dtype)
        own, most = self.ranks.part(rows), max(evaluated_at_once(features.shape[1], self.device) // count, 1)
        with _tf32_products(self.precision == "tf32"):
            for start in range(own.start, own.stop, most):
                part = slice(start, min(start + most, own.stop))
                losses = self.slopes.row_losses(chosen, features[part].to(self.device), target[part].to(self.device))
                sums.index_add_(1, portion[part], losses.to(sums.dtype))
        self.ranks.sum(sums)
        return sums.double().cpu().numpy()

    def last_weights(self) -> NDArray[np.floating]:
        self._put_down()
        return self.left.cpu().numpy().copy()

    def averages(self) -> NDArray[np.floating]:
        self._put_down()
        return self.left_average.cpu().numpy().copy()

    def memory_of(self) -> NDArray[np.floating]:
        self._put_down()
        return self.left_memory.cpu().numpy().copy()

    def _put_down(self) -> None:
        """Note what those carried along have come to beside those who have left."""
        places = torch.from_numpy(self.carried).to(self.device)
        self.left[places], self.left_average[places], self.left_memory[:, places] = self.current, self.average, self.memory

    def take_up(self, weights: NDArray[Any], averages: NDArray[Any], memory: NDArray[Any]) -> None:
        for kept, values in ((self.current, weights), (self.average, averages), (self.memory, memory)):
            kept.copy_(torch.from_numpy(values))
        self.made.copy_(torch.from_numpy(self.steps))
        self.moving.copy_(torch.from_numpy(self.active))
        self.step.fill_(int(self.steps.max(initial=0)))
        self._leave()

    def stop(self, replicas: Flags) -> None:
        super().stop(replicas)
        self._leave()

    def diverge(self, replicas: Flags) -> None:
        super().diverge(replicas)
        self._leave()

    def _leave(self) -> None:
        """Freeze those who have left; once they are half of those carried along, carry only the others."""
        staying = self.active[self.carried]
        self.moving &= torch.from_numpy(staying).to(self.device)
        self._note_who_moves()
        if not 0 < staying.sum() <= len(staying) / 2:
            return
        self._put_down()
        kept = torch.from_numpy(np.flatnonzero(staying)).to(self.device)
        self.carried, self.graph = self.carried[staying], None
        self.current, self.memory, self.rates = self.current[kept], self.memory[:, kept], self.rates[kept]
        self.average = self.average[kept]
        self._sit()
        self.moving, self.made, self.seed_of_carried = self.moving[kept], self.made[kept], self.seed_of_carried[kept]
        self._note_who_moves()


def check_divisible(network: nn.Module, needs_rows: bool) -> None:
    """Raise BadInput for a network that computes with all rows of a step (it `needs_rows`), or carries numbers of them along: each process
    would see only a part of them."""
    carried = ", ".join(name for name, buffer in network.named_buffers() if is_carried(buffer))
    if carried or needs_rows:
        does = f"carries numbers of all of them along ({carried})" if carried else "computes with all of them together"
        raise BadInput(
            f"train.processes divides the rows of a step, and the module {does}, as batch normalization does: train it in one process "
            "(train.processes=1), or with layer or group normalization."
        )


class _Graph:
    """One step captured as a CUDA graph: replayed with a single launch, whatever the number of replicas."""

    def __init__(self, step: Callable[[Tensor], None], seeds: int, rows: int, state: Sequence[Tensor]) -> None:
        self.rows = rows
        self.block = torch.zeros((seeds, rows), dtype=torch.int64, device=state[0].device)
        before = [tensor.clone() for tensor in state]
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):  # warm up, as capturing asks for
                step(self.block)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            step(self.block)
        for tensor, value in zip(state, before, strict=True):
            tensor.copy_(value)

    def replay(self, block: Tensor) -> None:
        """Make one step with the rows `block` `[seeds, rows]`."""
        self.block.copy_(block)
        self.graph.replay()


@contextmanager
def _tf32_products(wanted: bool) -> Iterator[None]:
    """Let CUDA round what goes into float32 matrix products, forward and backward, to TF32 inside the block."""
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    products.fp32_precision = "tf32" if wanted else before
    try:
        yield
    finally:
        products.fp32_precision = before


def resident(features: Tensor, target: Tensor, device: torch.device, mapped: bool = False) -> Batch:
    """Return the rows on the device where they take at most half of its free memory; else on the host, pinned unless they are `mapped`."""
    if overlaps(features):  # the rows behind windows move, once
        numbers = (len(features) - 1) * features.stride(0) + features.shape[1]
        flat, target = resident(features.as_strided((numbers,), (1,)), target, device, mapped)
        return flat.as_strided(features.shape, features.stride()), target
    needed = features.nbytes + target.nbytes
    if device.type == "cuda" and needed > torch.cuda.mem_get_info(device)[0] / 2:
        return (features, target) if mapped else (features.pin_memory(), target.pin_memory())
    return features.to(device), target.to(device)
