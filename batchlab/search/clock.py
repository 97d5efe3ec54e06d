"""The time that a search may take, and the wish to end it."""

import math
import threading
import time
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Clock:
    """Began now; `limit_seconds` bound the whole search. `begun` is set as soon as something is trained, `stopping` by whoever wants it to
    end with what is known."""

    limit_seconds: float = math.inf
    began: float = field(default_factory=time.perf_counter)
    begun: threading.Event = field(default_factory=threading.Event)
    stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.perf_counter() - self.began

    def left(self, share: float = 1.0) -> float:
        """Return the seconds until this share of the limit is over: none when it is to end, infinitely many without a limit."""
        return 0.0 if self.stopping.is_set() else max(0.0, share * self.limit_seconds - self.elapsed)

    def is_over(self, share: float = 1.0) -> bool:
        """Whether this share of the limit is over, or the search is to end."""
        return self.left(share) <= 0
