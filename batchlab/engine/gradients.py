"""Gradients of many small batches at the same weights, for the noise scale."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from batchlab.engine.data import TrainingData
from batchlab.engine.losses import Loss
from batchlab.models import Model
from batchlab.networks.layout import Layout, views
from batchlab.networks.stacking import one_by_one

ROWS_A_BATCH, FEWEST_BATCHES = 16, 16
MOST_NUMBERS = 2**24
"""Gradients `[batches, parameters]` hold at most so many numbers."""


NUMBERED_ROWS = 2**17
"""A table of fewer rows is numbered whole where a few are drawn."""


def small_gradients(
    model: Model,
    network: nn.Module,
    weights: Tensor,
    data: TrainingData,
    loss: Loss,
    most_batches: int,
    places: NDArray[np.integer] | None = None,
) -> tuple[NDArray[np.float64], int]:
    """Return the gradients `[batches, parameters]` of disjoint batches of a fixed random sample of training rows, and rows a batch.

    The training rows are all, or those at `places`. `weights` is `[numbers]`, as they stand in flat weights. Every batch is a replica of
    the same weights, so that one backward pass serves all. The network passes forward as it does when it is evaluated.
    """
    row_count = len(data.target) if places is None else len(places)
    batches = min(max(FEWEST_BATCHES, min(most_batches, MOST_NUMBERS // len(weights))), row_count)
    batch_rows = min(row_count // batches, ROWS_A_BATCH)
    sample = drawn(row_count, batches * batch_rows)
    rows = torch.from_numpy(sample if places is None else places[sample].astype(np.int64)).reshape(batches, batch_rows)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the products are small: a second thread gains little, and waits long where the machine is shared
    try:
        gradients = _gradients(model, network, weights, data, loss, rows)
    finally:
        torch.set_num_threads(threads)
    return gradients.double().numpy(), batch_rows


def _gradients(
    model: Model,
    network: nn.Module,
    weights: Tensor,
    data: TrainingData,
    loss: Loss,
    rows: Tensor,
) -> Tensor:
    """Return the gradients `[batches, parameters]` of the mean losses of batches of rows `[batches, rows]`."""
    layout, features_count = Layout.of(network), data.features.shape[-1]
    values = weights.to(data.features.dtype).expand(len(rows), -1).clone()
    leaf = values[:, : layout.trained_size].detach().requires_grad_()
    named = {**views(leaf, layout.trained), **views(values[:, layout.trained_size :], layout.carried)}
    features, target = data.at(rows)
    alone = model.traits(features_count, data.output_count).predicts_alone
    outputs = one_by_one(network, named, features) if alone else model.stacked(network, named, features)
    mean_losses = loss.per_row(outputs, target).mean(1)
    (gradients,) = torch.autograd.grad(mean_losses.sum(), leaf)
    return gradients


def drawn(row_count: int, count: int) -> NDArray[np.int64]:
    """Return `count` different rows at random, the same at every call; of a large table without numbering all its rows."""
    rng = np.random.default_rng(0)
    return rng.permutation(row_count)[:count] if row_count < NUMBERED_ROWS else rng.choice(row_count, count, replace=False)
