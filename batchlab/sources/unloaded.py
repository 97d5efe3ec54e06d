"""What is a data set, and which one a DataLoader has."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from batchlab.errors import BadInput


def is_data_set(thing: Any) -> bool:
    """Whether that is a data set: torch's, one of Hugging Face's `datasets`, or a list of pairs; or a DataLoader of one."""
    if isinstance(thing, list):
        return bool(thing) and all(isinstance(item, tuple) and len(item) == 2 for item in thing)
    module = type(thing).__module__.partition(".")[0]
    return module == "datasets" or _is_of_torch(thing, "dataset.Dataset") or _is_of_torch(thing, "dataloader.DataLoader")


def iterates(data: Any) -> bool:
    """Whether items of the data set come one after another only, in its own order; raises BadInput for what has none."""
    if hasattr(data, "__len__") and hasattr(data, "__getitem__") and not _is_of_torch(data, "dataset.IterableDataset"):
        return False
    if not hasattr(data, "__iter__"):
        raise BadInput(f"a {type(data).__name__} is no data set: it has neither items by number (__len__, __getitem__) nor __iter__.")
    return True


def _is_of_torch(thing: Any, name: str) -> bool:
    return any(f"{kind.__module__}.{kind.__name__}" == f"torch.utils.data.{name}" for kind in type(thing).__mro__)


def without_loader(data: Any) -> Any:
    """Return the data set itself; of a DataLoader its data set, items as its own collate function makes them.

    Raises BadInput for a DataLoader that decides which rows come, or whose function makes another item of it beside others.
    """
    if not _is_of_torch(data, "dataloader.DataLoader"):
        return data
    from torch.utils.data import BatchSampler, IterableDataset, RandomSampler, SequentialSampler, default_collate

    order, batches = data.sampler, data.batch_sampler
    plain = isinstance(order, SequentialSampler) or (type(order) is RandomSampler and not order.replacement)
    if isinstance(data.dataset, IterableDataset):
        return data.dataset
    if plain and type(batches) in (BatchSampler, type(None)):
        return data.dataset if data.collate_fn in (default_collate, _unbatched()) else Collated.of(data.dataset, data.collate_fn)
    own = order if not plain else batches
    raise BadInput(
        f"the DataLoader's {type(own).__name__} decides which rows come and when, and here the strategies do. Give its data set "
        "(loader.dataset)."
    )


def loader_notes(given: Any) -> tuple[str, ...]:
    """Say what is not taken of a DataLoader; nothing of what is none."""
    if not _is_of_torch(given, "dataloader.DataLoader") or given.batch_size is None:
        return ()
    return (f"of the DataLoader its data set is taken, not its batch size ({given.batch_size:,}): batch sizes are what is compared",)


def _unbatched() -> Any:
    """Return what collates where a DataLoader makes no batches."""
    from torch.utils.data._utils.collate import default_convert

    return default_convert


@dataclass(frozen=True)
class Collated:
    """Items as the user's collate function makes them, one by one."""

    data: Any
    collate: Any

    @classmethod
    def of(cls, data: Any, collate: Any) -> "Collated":
        """Return the items; raises BadInput where two collated together are others than each alone."""
        made = cls(data, collate)
        if len(data) > 1:
            together, alone = collate([data[0], data[1]])[0], [np.asarray(made[number][0]) for number in (0, 1)]
            apart = alone[0].shape != alone[1].shape or np.shape(together) != (2, *alone[0].shape)
            if apart or not np.array_equal(np.asarray(together), np.stack(alone)):
                raise BadInput(
                    "the DataLoader's collate function makes another item of it where it stands beside others (does it pad to the "
                    "longest?): make all items alike, in the data set."
                )
        return made

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        inputs, target = self.collate([self.data[number]])
        return inputs[0], target[0]
