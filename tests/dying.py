"""A data set whose workers die, in a module that takes no time to import: a worker has to be up long before it would count as stuck."""

import os

import torch
from torch.utils.data import Dataset, get_worker_info

ITEMS = 120


class Dying(Dataset[tuple[torch.Tensor, float]]):
    """The worker that fetches an item is gone."""

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, number: int) -> tuple[torch.Tensor, float]:
        if get_worker_info() is not None:
            os._exit(3)
        return torch.full((2, 3), float(number)), float(number % 7)
