"""What the command asks of processes that train together, and what they answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchlab.engine.records import Plan, Trial, TrialResult
from batchlab.errors import BatchlabError
from batchlab.strategies import Strategy

KEY = "BATCHLAB_RANKS_KEY"
"""Where the environment holds the key of their connection."""


@dataclass(frozen=True)
class Asked:
    """A training as `engine.loop.train` makes it: on the bench of a file, over as many processes as the plan says; `how` are others of its
    arguments. It keeps where it stands in the folder `kept`, where there is one, no more often than every so many seconds and in that share
    of the time. A word that comes while it is under way ends it where it is."""

    bench: Path
    strategy: Strategy
    trials: tuple[Trial, ...]
    plan: Plan
    how: Mapping[str, Any]
    kept: tuple[Path, float, float] | None = None


@dataclass(frozen=True)
class Answer:
    """What came of it, or what is wrong with what was asked."""

    results: Sequence[TrialResult] = ()
    wrong: BatchlabError | None = None
