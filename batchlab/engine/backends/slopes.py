"""Losses and slopes of replicas of any network, each step by the way that has been quickest so far: one replica after the other, as their
owner's loop would; all at once; or several at once through a graph of plain operations that is traced once."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from batchlab.engine.backends.base import Batch, seeded_network
from batchlab.engine.losses import Loss
from batchlab.models import Model
from batchlab.networks.layout import Layout, views
from batchlab.networks.stacking import one_by_one, stacked_slopes

Way = Literal["alone", "stacked", "traced"]
GROUPS = (16, 8, 4)
"""So many replicas share a traced graph: of more the numbers leave the cache, of fewer the gain is small."""
TRACING_STEPS = 150
"""Tracing a step takes about as long as so many of them; it begins when as much time has been spent without."""
WORTH_THREADS = 0.9
"""More threads are worth it where a step takes at most this share of its time with one."""
SURE_OF_THREADS = 8
"""So many measurements each say how many threads are quicker: the first ones start threads and make operations ready for them."""
SURE = 3
"""A way's cost is the lowest of so many measurements."""
REMEMBERED = 4
"""So many networks' costs and graphs are remembered between trainings."""

Rounding = Callable[[], AbstractContextManager[object]]
Program = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""From weights `[replicas, numbers]` and rows `[replicas, rows, …]` to losses `[replicas]`, summed over rows, their gradients
`[replicas, trained numbers]`, and what was carried along `[replicas, carried numbers]`."""


@dataclass
class Costs:
    """What trainings of one network on the CPU have found out: seconds for each replica by (way, rows, replicas), and traced graphs."""

    seconds: dict[tuple[Way, int, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    spent: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    graphs: dict[tuple[int, int], Program] = field(default_factory=dict)
    by_threads: dict[tuple[int, int, int], list[float]] = field(default_factory=lambda: defaultdict(list))

    @contextmanager
    def threaded(self, rows: int, replicas: int, most: int) -> Iterator[None]:
        """Compute with one thread or with the most, whichever is quicker. Small operations gain nothing by a second thread, and where the
        machine is busy each waits for it."""
        threads = self._threads(rows, replicas, most)
        torch.set_num_threads(threads)
        began = time.perf_counter()
        try:
            yield
        finally:
            torch.set_num_threads(most)
            found = self.by_threads[rows, replicas, threads]
            if len(found) < SURE_OF_THREADS:
                found.append(time.perf_counter() - began)

    def _threads(self, rows: int, replicas: int, most: int) -> int:
        one, all_of_them = (self.by_threads[rows, replicas, threads] for threads in (1, most))
        if min(len(one), len(all_of_them)) < SURE_OF_THREADS:
            return most if len(one) > len(all_of_them) else 1
        return most if min(all_of_them) < WORTH_THREADS * min(one) else 1

    def note(self, way: Way, rows: int, replicas: int, part: slice, seconds: float) -> None:
        """Note the seconds that a part of so many replicas took."""
        count = part.stop - part.start
        found = self.seconds[way, rows, replicas if way == "stacked" else count]
        if len(found) < SURE:
            found.append(seconds / count)
        if way != "traced":
            self.spent[rows] += seconds

    def cost(self, way: Way, rows: int, replicas: int) -> float | None:
        """Return the seconds for each replica; None until they are known well enough to choose by."""
        found = self.seconds[way, rows, replicas]
        return min(found) if len(found) >= SURE else None

    def quickest(self, replicas: int, rows: int, traces: bool) -> Iterator[tuple[Way, slice]]:
        """Yield parts of a stack, and the way of each. What is not known yet is measured at work: the first replica passes alone, the
        others stacked."""
        alone, stacked = self.cost("alone", rows, 1), self.cost("stacked", rows, replicas)
        if alone is None or stacked is None:
            yield "alone", slice(0, 1)
            yield "stacked", slice(1, replicas)
            return
        start = 0
        if traces and self.spent[rows] >= TRACING_STEPS * stacked * replicas:
            for size in GROUPS:
                cost = self.cost("traced", rows, size)
                while replicas - start >= size and (cost is None or cost < min(alone, stacked)):
                    yield "traced", slice(start, start + size)
                    start += size
        if start == 0 and stacked < alone:
            yield "stacked", slice(0, replicas)
            return
        for place in range(start, replicas):
            yield "alone", slice(place, place + 1)


@lru_cache(maxsize=REMEMBERED)
def costs_of(*key: object) -> Costs:
    """Return what is known of trainings that share this key."""
    return Costs()


class Slopes:
    """Losses and gradients of replicas of one network. `network` passes forward as in training, `judged` as when it predicts."""

    def __init__(
        self, model: Model, shape: tuple[int, int], loss: Loss, real: torch.dtype, device: torch.device, rounding: Rounding
    ) -> None:
        self.model, self.loss, self.real, self.device, self.rounding = model, loss, real, device, rounding
        self.traits, self.is_own = model.traits(*shape), model.code is not None
        self.network, self.judged = (seeded_network(model, shape, 0).to(device, real).train(mode) for mode in (True, False))
        self.layout = Layout.of(self.network)
        self.steps, self.looks = (costs_of(what, model, model.code, shape, loss, real, device) for what in ("steps", "looks"))
        self.bound: int | None = None

    def add(self, weights: Tensor, gradient: Tensor, batch: Batch, rows: int, draws: Sequence[int]) -> Tensor:
        """Add to `gradient` `[replicas, trained numbers]` that of the rows' summed losses over `rows`, change what `weights`
        `[replicas, numbers]` carry, and return these losses `[replicas]`. `batch` are features and target `[replicas, rows, …]`; a network
        that draws does so by `draws`, a number for each replica."""
        with self._threaded(self.steps, batch[1].shape[1], len(weights)), self._told(batch[0]):
            return self._add(weights, gradient, batch, rows, draws)

    def _threaded(self, costs: Costs, rows: int, replicas: int) -> AbstractContextManager[None]:
        """Compute with as many threads as are quickest, where torch has several."""
        most = torch.get_num_threads()
        return costs.threaded(rows, replicas, most) if self.device.type == "cpu" and most > 1 else nullcontext()

    @contextmanager
    def _told(self, rows: Tensor) -> Iterator[None]:
        """Say with how many rows a network of the user's own failed."""
        try:
            yield
        except (ArithmeticError, AssertionError, AttributeError, IndexError, LookupError, RuntimeError, TypeError, ValueError) as error:
            if not self.is_own or isinstance(error, torch.OutOfMemoryError):
                raise
            said = f"the network failed in training, on a step of {rows.shape[1]:,} rows: {type(error).__name__}: {error}"
            raise RuntimeError(said) from error

    def _add(self, weights: Tensor, gradient: Tensor, batch: Batch, rows: int, draws: Sequence[int]) -> Tensor:
        replicas, length = batch[1].shape
        if self._apart(replicas, self.traits.unstackable is not None or (self.traits.needs_rows and length == 1)):
            alone = [self._alone(weights, gradient, batch, rows, place, draws) for place in range(replicas)]
            return torch.stack(alone) if replicas > 1 else alone[0][None]
        losses = torch.empty_like(weights[:, 0])
        for way, part in self._divided(self.steps, replicas, length, traces=True):
            own = batch[0][part], batch[1][part]
            program = self._graph(weights[part], own) if way == "traced" else self.program
            began = time.perf_counter()
            if way == "alone":
                losses[part] = self._alone(weights, gradient, batch, rows, part.start, draws)
            else:
                self._draw(draws, part.start)
                losses[part] = self._added(program, weights[part], gradient[part], own, rows)
            self.steps.note(way, length, replicas, part, time.perf_counter() - began)
        return losses

    def row_losses(self, weights: Tensor, features: Tensor, target: Tensor) -> Tensor:
        """Return the losses `[replicas, rows]` of rows `[rows, …]` that all replicas share, as when they predict."""
        with self._threaded(self.looks, len(target), len(weights)):
            return self._row_losses(weights, features, target)

    def _row_losses(self, weights: Tensor, features: Tensor, target: Tensor) -> Tensor:
        named = views(weights, self.layout.shapes)
        losses = torch.empty((len(weights), len(target)), dtype=weights.dtype, device=self.device)
        apart = self._apart(len(weights), self.traits.predicts_alone)
        alone: list[tuple[Way, slice]] = [("alone", slice(0, len(weights)))]
        for way, part in alone if apart else self._divided(self.looks, len(weights), len(target), traces=False):
            began, count = time.perf_counter(), part.stop - part.start
            forward = one_by_one if way == "alone" else self.model.stacked
            with self.rounding():
                own = {name: value[part] for name, value in named.items()}
                outputs = forward(self.judged, own, features.expand(count, *features.shape))
            losses[part] = self.loss.per_row(outputs.to(weights.dtype), target.expand(count, -1))
            self.looks.note(way, len(target), len(weights), part, time.perf_counter() - began)
        return losses

    def unbind(self) -> None:
        """Forget whose numbers the network holds: weights or gradients have moved."""
        self.bound = None

    def _apart(self, replicas: int, unstackable: bool) -> bool:
        """Whether replicas pass one by one, whatever is quicker."""
        return unstackable or (replicas == 1 and self.device.type == "cpu")

    def _divided(self, costs: Costs, replicas: int, rows: int, traces: bool) -> Iterable[tuple[Way, slice]]:
        """Return the replicas in parts, and the way of each."""
        if self.device.type == "cpu" and self.is_own:
            return costs.quickest(replicas, rows, traces)
        return [("stacked", slice(0, replicas))]

    def _draw(self, draws: Sequence[int], place: int) -> None:
        """Have the network draw its next random numbers by the replica's."""
        if draws and self.device.type == "cpu":
            torch.default_generator.manual_seed(draws[place])  # torch.manual_seed takes as long as a step
        elif draws:
            torch.manual_seed(draws[place])

    def _added(self, program: Program, weights: Tensor, gradient: Tensor, batch: Batch, rows: int) -> Tensor:
        losses, slopes, carried = program(weights, *batch)
        gradient.add_(slopes, alpha=1 / rows)
        if self.layout.carried:
            weights[:, self.layout.trained_size :] = carried
        return losses / rows

    def _alone(self, weights: Tensor, gradient: Tensor, batch: Batch, rows: int, place: int, draws: Sequence[int]) -> Tensor:
        """Pass one replica forward and backward as a plain loop does: the network's numbers and slopes are the replica's own memory."""
        if self.bound != place:
            self._bind(weights[place : place + 1], gradient[place : place + 1])
            self.bound = place
        self._draw(draws, place)
        features, target = batch[0][place], batch[1][place]
        evaluates = self.traits.needs_rows and len(target) == 1
        if evaluates:
            self.network.eval()
        with self.rounding():
            outputs = self.network(features)
        losses = self.loss.per_row(outputs.to(self.real), target)
        loss = losses.mean() if rows == len(target) else losses.sum() / rows
        loss.backward()  # type: ignore[no-untyped-call]
        if evaluates:
            self.network.train()
        return loss.detach()

    def _bind(self, weights: Tensor, gradient: Tensor) -> None:
        trained = self.layout.trained_size
        slopes = views(gradient, self.layout.trained)
        for name, value in views(weights[:, :trained], self.layout.trained).items():
            parameter = self.network.get_parameter(name)
            parameter.data, parameter.grad = value[0], slopes[name][0]
        for name, value in views(weights[:, trained:], self.layout.carried).items():
            _replace(self.network, name, value[0].data)  # not a view to autograd: what one buffer changes is nobody else's business

    def program(self, weights: Tensor, features: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pass replicas forward and backward at once: the `Program` that graphs are traced of."""
        if self.is_own:
            with self.rounding():
                return stacked_slopes(self.network, self.layout, self._loss_of_one, weights, features, target)
        leaf = weights.detach().requires_grad_()
        with self.rounding():
            outputs = self.model.stacked(self.network, views(leaf, self.layout.trained), features)
        losses = self.loss.per_row(outputs.to(weights.dtype), target).sum(1)
        (slopes,) = torch.autograd.grad(losses.sum(), leaf)
        return losses.detach(), slopes, weights[:, self.layout.trained_size :]

    def _loss_of_one(self, outputs: Tensor, target: Tensor) -> Tensor:
        return self.loss.per_row(outputs.to(self.real), target).sum()

    def _graph(self, weights: Tensor, batch: Batch) -> Program:
        key = (batch[1].shape[1], len(weights))
        if key not in self.steps.graphs:
            self.steps.graphs[key] = traced(self.program, weights, *batch)
        return self.steps.graphs[key]


def traced(program: Program, *example: Tensor) -> Program:
    """Return the program as a graph of plain operations, for inputs of these shapes, without those that only look at a tensor as it is."""
    from torch.fx.experimental.proxy_tensor import make_fx

    graph = make_fx(lambda *inputs: program(*inputs))(*example)
    operations = torch.ops.aten
    looks = (operations.view.default, operations._unsafe_view.default, operations.expand.default, operations.alias.default)
    for node in graph.graph.nodes:
        if node.target in looks and _shape(node) is not None and _shape(node) == _shape(node.args[0]):
            node.replace_all_uses_with(node.args[0])
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _shape(node: Any) -> tuple[Any, ...] | None:
    """Return the shape and strides of a node's tensor; None where they are not known."""
    meta = node.meta.get("tensor_meta")
    return None if meta is None else (tuple(meta.shape), tuple(meta.stride))


def _replace(network: nn.Module, name: str, value: Tensor) -> None:
    """Let the network's frozen parameter or buffer be this memory."""
    owner, _, own = name.rpartition(".")
    module = network.get_submodule(owner)
    if own in module._parameters:
        module.get_parameter(own).data = value
    else:
        module._buffers[own] = value
