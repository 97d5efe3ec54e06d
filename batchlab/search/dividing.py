"""What it gains to divide steps over processes: seconds a step over 1, 2, 4, … of them, and what of these is waiting for one another."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from batchlab.engine.records import TrialResult
from batchlab.results import OverProcesses
from batchlab.search.hands import Trains
from batchlab.search.known import Known
from batchlab.search.space import Candidate
from batchlab.search.timing import Stopwatch
from batchlab.strategies import Strategy

ROUNDS, MOST_SIZES = 4, 6
PART = "timing over processes"


@dataclass
class _Waiting:
    """Trains, and notes of each strategy the seconds trained and those of them that waited for other processes."""

    trains: Trains
    seconds: dict[Strategy, float] = field(default_factory=lambda: defaultdict(float))
    waited: dict[Strategy, float] = field(default_factory=lambda: defaultdict(float))

    def __call__(self, data: Any, model: Any, strategy: Strategy, *others: Any, **how: Any) -> list[TrialResult]:
        results = self.trains(data, model, strategy, *others, **how)
        self.seconds[strategy] += results[0].train_seconds
        self.waited[strategy] += results[0].waiting_seconds
        return results

    def share(self, strategy: Strategy) -> float:
        return self.waited[strategy] / self.seconds[strategy] if self.seconds[strategy] else 0.0


def over_processes(stopwatch: Stopwatch, known: Known, candidates: Sequence[Candidate]) -> Known:
    """Return what is known with the steps of the confirmed batch sizes timed over 1, 2, 4, … processes, up to those of the plan."""
    found: list[OverProcesses] = []
    chosen = _sizes([candidate for candidate in candidates if candidate.setting in known.confirmed])
    for count in counts_up_to(stopwatch.plan.processes):
        waiting = _Waiting(stopwatch.trains)
        plan = stopwatch.plan.model_copy(update={"processes": count})
        timings = Stopwatch(stopwatch.experiment, stopwatch.data, plan, stopwatch.is_over, waiting).sitting(chosen, ROUNDS, {}, {})
        found += [
            OverProcesses(
                label=candidate.label,
                batch_rows=candidate.batch_rows,
                processes=count,
                seconds_per_step=float(np.exp(np.log(timed.seconds_per_step).mean())),
                waiting_share=waiting.share(candidate.strategy),
            )
            for candidate, timed in timings.items()
        ]
    timed_in = {count: {item.label for item in found if item.processes == count} for count in {item.processes for item in found}}
    if not found or any(len(labels) < len(chosen) for labels in timed_in.values()):
        return replace(known, processes=tuple(found), left_out={**known.left_out, PART: "no time"})
    return replace(known, processes=tuple(found))


def counts_up_to(processes: int) -> list[int]:
    """Return 1, 2, 4, … and the processes themselves."""
    return sorted({*(2**power for power in range(processes.bit_length()) if 2**power <= processes), processes})


def _sizes(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return one row of the table a batch size, evenly over all sizes where they are many; none that grows or that a loader delivers."""
    plain = [item for item in candidates if not item.strategy.grows and item.strategy.loader_workers is None]
    by_size = {item.batch_rows: item for item in sorted(plain, key=lambda item: item.typed is not None, reverse=True)}
    sizes = sorted(by_size)
    places = np.unique(np.linspace(0, max(len(sizes) - 1, 0), min(len(sizes), MOST_SIZES)).round().astype(int))
    return [by_size[sizes[place]] for place in places.tolist()]
