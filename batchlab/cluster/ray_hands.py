"""Trainings on a Ray cluster: Ray decides where, sends rows once to every node, and repeats what a lost node had under way."""

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
import torch
from ray.exceptions import ObjectStoreFullError, RayError, RayTaskError

from batchlab.cluster.nodes import check_alike, check_seen, connect, disconnect, nodes, processor
from batchlab.cluster.sending import SentBench
from batchlab.engine.backends.choice import made_ready
from batchlab.engine.halts import Keeper
from batchlab.engine.loop import train
from batchlab.engine.records import Plan, Progress
from batchlab.errors import BadInput, BatchlabError
from batchlab.experiment import Experiment
from batchlab.models import Model
from batchlab.rules.run import RunRule
from batchlab.search.hands import Bench, Handed, SecondsLeft, Stack, Tell, Trained, Trains

START_SECONDS, STAYS_SECONDS = 120.0, 0.5
TRIES = 20
"""What a lost node had under way is trained again elsewhere, at most so often."""
LOOK_SECONDS, GRACE_SECONDS = 0.2, 5.0
"""How often time is looked at, and how long after it is over trainings that end by themselves are waited for."""
SLOW, LEAST_SLOW_SECONDS = 4.0, 20.0
"""What takes so many times as long as the longest that has ended, and at least so long, is trained again elsewhere meanwhile."""

_benches: dict[str, Bench] = {}


def _opened(references: "list[ray.ObjectRef[SentBench]]") -> Bench:
    """Return the bench, which a worker keeps for the next stack; its rows stay where the node has them."""
    key = references[0].hex()
    if key not in _benches:
        _benches.clear()
        _benches[key] = ray.get(references[0]).opened()
    return _benches[key]


def _trained(references: "list[ray.ObjectRef[SentBench]]", stack: Stack, seconds: float) -> Trained:
    """Train a stack in a worker."""
    ends = time.monotonic() + seconds
    return _opened(references).trained(stack, lambda: ends - time.monotonic())


def _made_ready(model: Model, plan: Plan, device: torch.device) -> None:
    """Import and load in a worker what its first stack would wait for; a moment longer, so that no worker does so twice."""
    made_ready(model, plan, device)
    time.sleep(STAYS_SECONDS)


@dataclass
class _Work:
    """Stacks in the parts that are handed out: which wait, which are under way, and what has come of others."""

    parts: list[tuple[int, Stack]]
    waiting: deque[int] = field(default_factory=deque)
    running: "dict[ray.ObjectRef[Trained], tuple[int, float]]" = field(default_factory=dict)
    done: dict[int, Trained] = field(default_factory=dict)
    longest: float = 0.0

    def begin(self, place: int, reference: "ray.ObjectRef[Trained]") -> None:
        """Take note that a part is under way."""
        self.running[reference] = place, time.monotonic()

    def end(self, reference: "ray.ObjectRef[Trained]", trained: Trained) -> int | None:
        """Take note of what came of a part; returns the number of its stack where that is complete by it."""
        place, began = self.running.pop(reference)
        if place in self.done:
            return None
        self.done[place], self.longest = trained, max(self.longest, time.monotonic() - began)
        number = self.parts[place][0]
        return number if all(other in self.done for other in self._places(number)) else None

    def joined(self, number: int) -> Trained:
        """Return what came of a stack."""
        return Trained.joined([self.done[place] for place in self._places(number)])

    def _places(self, number: int) -> list[int]:
        return [place for place, (other, _) in enumerate(self.parts) if other == number]

    def slow(self) -> int | None:
        """Return a part that takes far longer than others did and is under way once; None where there is none."""
        wanted = [(place, began) for place, began in self.running.values() if place not in self.done]
        twice = [place for place, _ in wanted]
        late = time.monotonic() - max(LEAST_SLOW_SECONDS, SLOW * self.longest)
        return next((place for place, began in wanted if twice.count(place) == 1 and began < late), None)


class RayHands:
    """Trains stacks on the cluster that the rule names; in parts, where they are fewer than its workers."""

    train: Trains = staticmethod(train)

    def __init__(self, rule: RunRule, experiment: Experiment) -> None:
        self._sent: dict[int, tuple[Bench, Any]] = {}
        self._connected = connect(rule.address, rule.cores)
        try:
            found = nodes()
            check_alike(found, rule)
        except BaseException:
            self.close()  # else the next comparison of this process would find itself connected
            raise
        self.count = sum(node.places(rule) for node in found)
        kinds = sorted({node.facts.processor for node in found if node.facts is not None})
        self.note = (
            f"trainings ran on {_said(self.count, 'worker')} of a Ray cluster ({_said(len(found), 'node')}: {', '.join(kinds)}); steps, "
            f"memory and loaders were measured on this machine ({processor()})"
        )
        asked = {"num_cpus": rule.cores, "num_gpus": rule.gpus, "max_retries": TRIES}
        self._train, ready = ray.remote(**asked)(_trained), ray.remote(**asked)(_made_ready)
        what = experiment.model, experiment.profile.train, experiment.device
        # before the clock of a search begins: a worker takes seconds to import torch
        ray.wait([ready.remote(*what) for _ in range(self.count)], num_returns=self.count, timeout=START_SECONDS)

    def trained(self, bench: Bench, stacks: Sequence[Stack], seconds_left: SecondsLeft, tell: Tell, keeper: Keeper | None) -> Handed:
        del keeper  # workers are elsewhere: what was under way is begun again from where the stack began
        reference, each = self._reference(bench), max(1, math.ceil(self.count / max(len(stacks), 1)))
        work = _Work([(number, part) for number, stack in enumerate(stacks) for part in stack.parts(each)])
        work.waiting.extend(range(len(work.parts)))
        over = None
        try:
            while len(work.done) < len(work.parts):
                left = seconds_left()
                while left > 0 and len(work.running) < self.count and (place := self._next(work)) is not None:
                    work.begin(place, self._train.remote([reference], work.parts[place][1], left))
                over = over or (time.monotonic() if left <= 0 else None)
                if not work.running or (over is not None and time.monotonic() - over > GRACE_SECONDS):
                    return
                ready, _ = ray.wait(list(work.running), num_returns=1, timeout=LOOK_SECONDS)
                for one in ready:
                    number = work.end(one, _result(one))
                    tell(f"{len(work.done)} of {len(work.parts)} stacks on the cluster", Progress(len(work.done), len(work.parts)))
                    if number is not None:
                        yield number, work.joined(number)
        finally:
            for one in work.running:
                ray.cancel(one, force=True)

    def close(self) -> None:
        """Leave the cluster, unless this process was connected to it before."""
        self._sent.clear()
        if self._connected:
            disconnect()

    @staticmethod
    def _next(work: _Work) -> int | None:
        """Return the part to begin next: one that waits, or one that is late where it is."""
        return work.waiting.popleft() if work.waiting else work.slow()

    def _reference(self, bench: Bench) -> Any:
        """Return where the cluster has the bench: of each data once, however often the search asks for trainings on it."""
        key = id(bench.data)
        if key not in self._sent:
            if bench.data.stored is not None:
                check_seen([bench.data.stored.features, bench.data.stored.target])
            try:
                self._sent[key] = bench, ray.put(SentBench.of(bench))
            except ObjectStoreFullError as error:
                held = bench.data.features.nbytes / 2**30
                raise BadInput(
                    f"{held:.2f} GiB of rows do not fit into the object store of this node; start Ray with a larger one "
                    "(`ray start --object-store-memory`), or train here: run.on=local."
                ) from error
        return self._sent[key][1]


def _said(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _result(reference: "ray.ObjectRef[Trained]") -> Trained:
    """Return what came of a part; raises what the worker did."""
    try:
        found: Trained = ray.get(reference)
        return found
    except RayTaskError as error:
        raise error.cause or error from None
    except RayError as error:
        why = str(error).strip().splitlines()[0]
        raise BatchlabError(f"a stack of trainings failed on the cluster in {TRIES + 1} tries: {why}") from error
