"""Networks of one's own for comparisons at the command line; importing them changes nothing in the environment, as the other tests do."""

import time


def failing(features: int, outputs: int) -> object:
    """A network that passes the checks on three rows, and fails on more."""
    from torch import Tensor, nn

    class Failing(nn.Linear):
        def forward(self, rows: Tensor) -> Tensor:
            if rows.shape[0] > 3:
                raise RuntimeError("this network does not train")
            return super().forward(rows)

    return Failing(features, outputs)


def slow(features: int, outputs: int) -> object:
    """A network that takes its time for every look at rows, so that a first look takes seconds."""
    from torch import Tensor, nn

    class Slow(nn.Linear):
        def forward(self, rows: Tensor) -> Tensor:
            time.sleep(0.03)
            return super().forward(rows)

    return Slow(features, outputs)
