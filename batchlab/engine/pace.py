"""How the learning rate goes along a training: constant, or with a warm-up and a decay to nothing at its planned end."""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from batchlab.records import Record


class Schedule(Record):
    """A factor on the learning rate: rises linearly to 1 over the first `warmup` of the planned rows, then stays (`constant`) or falls to 0
    at their end, linearly or along half a cosine."""

    kind: Literal["constant", "linear", "cosine"] = "constant"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def is_constant(self) -> bool:
        """Whether the rate never changes."""
        return self.kind == "constant" and self.warmup == 0

    def factors(self, before: ArrayLike, after: ArrayLike) -> NDArray[np.float64]:
        """Return the factor of each step, given which shares of the planned rows are seen `before` and `after` it."""
        begun, done = np.asarray(before, np.float64), np.asarray(after, np.float64)
        share = np.clip((begun - self.warmup) / (1 - self.warmup), 0.0, 1.0)
        falling = {"constant": np.ones_like(share), "linear": 1 - share, "cosine": 0.5 * (1 + np.cos(np.pi * share))}[self.kind]
        rising = np.minimum(done / self.warmup, 1.0) if self.warmup else np.ones_like(share)
        return np.asarray(np.where(begun < self.warmup, rising, falling))
