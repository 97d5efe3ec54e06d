"""What fetching a data set's items costs, in words: whether the loader or the model is the limit, and what workers gain."""

from typing import TYPE_CHECKING

from batchlab.snippets.quantities import number, seconds

if TYPE_CHECKING:
    from batchlab.results import Fetching

NEARLY_ALL = 0.995
BUSY = 0.9
"""A loader keeps the model busy where the loop trains at this share of its speed with rows in memory."""


def fetching_text(fetching: "Fetching | None") -> list[str]:
    """Say where the time of a loop goes that fetches the items anew, at the batch size that it was measured at, and which workers help."""
    if fetching is None:
        return []
    rows, trained = fetching.batch_rows, fetching.trained
    alone = rows / fetching.step_seconds[rows]
    item, share = fetching.item_seconds, fetching.decode_seconds / fetching.item_seconds
    copied = f", copying it {seconds(fetching.copy_seconds)}" if fetching.copy_seconds else ""
    spent = "nearly all in its own code" if share > NEARLY_ALL else f"{share:.0%} in its own code, the rest to make a batch of it"
    costs = f"Fetching an item takes {seconds(item)} ({spent}){copied}; a step of {rows:,} takes the model {seconds(1 / alone)} an item"
    best = best_workers(fetching)
    speeds = f"{number(trained[0])} rows a second without workers"
    speeds += f", {number(trained[best])} with {best}" if best else " (workers gain nothing here)"
    loop = f"a loop that fetches items anew trains on {speeds}, and on {number(alone)} from memory"
    return [f"{costs}: {loop}. {_limit(fetching, best, alone)}"]


def best_workers(fetching: "Fetching") -> int:
    """Return the fewest workers with which the loop is as fast as with any, to a tenth."""
    most = max(fetching.trained.values())
    return min(count for count, speed in fetching.trained.items() if speed >= BUSY * most)


def _limit(fetching: "Fetching", best: int, alone: float) -> str:
    """Say what is the limit at the measured batch size."""
    workers = f"{best} worker{'' if best == 1 else 's'}" if best else "no workers"
    if fetching.trained[best] >= BUSY * alone:
        return f"With {workers} the model is the limit, not the loader."
    needed, cores = fetching.kept_busy_by(fetching.batch_rows), f"{fetching.cores} core{'' if fetching.cores == 1 else 's'}"
    cure = f"some {needed:.0f} workers, each on a core of its own" if needed >= 2 else "a worker with a core of its own"
    return f"The loader is the limit: what keeps the model busy is {cure} ({cores} here), or items that are decoded once."
