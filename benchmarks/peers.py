"""Everybody who does the work: this engine and what people use instead. Each returns its seconds and the losses it ended with."""

import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from batchlab.engine.loop import train
from batchlab.engine.losses import Loss
from batchlab.engine.records import Plan, Trial
from batchlab.models.mlp import Mlp
from batchlab.strategies import Strategy
from batchlab.strategies.full_batch import FullBatch
from batchlab.strategies.mini_batch import MiniBatch
from benchmarks.problems import RATE, Work

Outcome = tuple[float, list[float]]


def batchlab(work: Work, backend: str = "auto") -> Outcome:
    """This engine: all replicas at once. Its seconds are those of training, as everybody's: what looks at losses is apart.
    Nobody averages weights."""
    full = work.batch_rows == work.row_count
    strategy: Strategy = FullBatch() if full else MiniBatch(batch_rows=work.batch_rows)
    trials = [Trial(RATE, work.first_seed + replica) for replica in range(work.replicas)]
    plan = Plan(epochs=work.epochs, evaluations=1, averaging=False, backend=backend)  # type: ignore[arg-type]
    results = train(work.data, work.model, strategy, trials, plan, Loss("mse"), torch.device("cpu"))
    return results[0].train_seconds, [result.curve.train_loss[-1] for result in results]


def notebook_slices(work: Work) -> Outcome:
    """The notebook's mini-batch loop (its batch loop, where the batch is all rows): index, forward, backward, step."""
    features, target = work.rows
    network = work.network()
    criterion, optimizer = nn.MSELoss(), torch.optim.SGD(network.parameters(), lr=RATE)
    target = target[:, None]
    started = time.perf_counter()
    for epoch in range(work.epochs):
        order = torch.from_numpy(work.order(0, epoch))
        for start in range(0, work.row_count, work.batch_rows):
            if work.batch_rows == work.row_count:
                rows, truth = features, target
            else:
                indices = order[start : start + work.batch_rows]
                rows, truth = features[indices], target[indices]
            loss = criterion(network(rows), truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return time.perf_counter() - started, [work.loss(network)]


class Ordered(Sampler[int]):
    """The work's order of rows, epoch by epoch."""

    def __init__(self, work: Work) -> None:
        self.work, self.epoch = work, 0

    def __iter__(self) -> Iterator[int]:
        order = self.work.order(0, self.epoch)
        self.epoch += 1
        return iter(order.tolist())

    def __len__(self) -> int:
        return self.work.row_count


def loader(work: Work) -> "DataLoader[Any]":
    features, target = work.rows
    return DataLoader(TensorDataset(features, target[:, None]), batch_size=work.batch_rows, sampler=Ordered(work))


def notebook_loader(work: Work) -> Outcome:
    """The notebook's DataLoader loop."""
    network = work.network()
    criterion, optimizer = nn.MSELoss(), torch.optim.SGD(network.parameters(), lr=RATE)
    batches = loader(work)
    started = time.perf_counter()
    for _ in range(work.epochs):
        for rows, truth in batches:
            loss = criterion(network(rows), truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return time.perf_counter() - started, [work.loss(network)]


def lightning(work: Work, rate: float = RATE) -> Outcome:
    """Lightning's Trainer with nothing switched on that this work does not need."""
    import logging

    from lightning.pytorch import LightningModule, Trainer

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = work.network()

        def training_step(self, batch: Any, index: int) -> Any:
            return nn.functional.mse_loss(self.network(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=rate)

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    module, batches = Module(), loader(work)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        started = time.perf_counter()
        trainer = Trainer(
            max_epochs=work.epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, batches)
    return time.perf_counter() - started, [work.loss(module.network)]


def skorch(work: Work) -> Outcome:
    from skorch import NeuralNetRegressor

    features, target = work.rows
    net = NeuralNetRegressor(
        work.network(),
        criterion=nn.MSELoss,
        optimizer=torch.optim.SGD,
        lr=RATE,
        max_epochs=work.epochs,
        batch_size=work.batch_rows,
        iterator_train__sampler=Ordered(work),
        train_split=None,
        verbose=0,
    )
    started = time.perf_counter()
    net.fit(features.numpy(), target.numpy()[:, None])
    return time.perf_counter() - started, [work.loss(net.module_)]


def scikit_mlp(work: Work, rate: float = RATE, seed: int = 0) -> Outcome:
    """scikit-learn's MLPRegressor, with its own initial weights and shuffling; its loss is half the squared error, hence twice the rate."""
    from sklearn.neural_network import MLPRegressor

    assert isinstance(work.model, Mlp)
    features, target = (tensor.numpy() for tensor in work.rows)
    net = MLPRegressor(
        hidden_layer_sizes=work.model.widths,
        solver="sgd",
        alpha=0,
        batch_size=work.batch_rows,
        learning_rate_init=2 * rate,
        momentum=0,
        nesterovs_momentum=False,
        max_iter=work.epochs,
        tol=0,
        n_iter_no_change=work.epochs + 1,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        started = time.perf_counter()
        net.fit(features, target)
        seconds = time.perf_counter() - started
    return seconds, [float(np.mean((net.predict(features) - target) ** 2))]


def scikit_sgd(work: Work) -> Outcome:
    """scikit-learn's SGDRegressor: one row a step, with its own initial weights and shuffling; half the squared error, twice the rate."""
    from sklearn.linear_model import SGDRegressor

    features, target = (tensor.numpy() for tensor in work.rows)
    net = SGDRegressor(penalty=None, learning_rate="constant", eta0=2 * RATE, max_iter=work.epochs, tol=None, random_state=0)
    started = time.perf_counter()
    net.fit(features, target)
    return time.perf_counter() - started, [float(np.mean((net.predict(features) - target) ** 2))]


def jax(work: Work) -> Outcome:
    """JAX: one jitted scan over an epoch's steps, under vmap where there are replicas. Compiling is not counted."""
    import jax as library
    import jax.numpy as jnp

    features, target = (jnp.array(tensor.numpy()) for tensor in work.rows)
    whole = work.row_count // work.batch_rows * work.batch_rows

    def outputs(layers: Any, rows: Any) -> Any:
        for number, (weight, bias) in enumerate(layers):
            rows = rows @ weight + bias
            rows = jnp.maximum(rows, 0) if number < len(layers) - 1 else rows
        return rows[:, 0]

    def updated(layers: Any, indices: Any) -> Any:
        def loss(layers: Any) -> Any:
            return jnp.mean((outputs(layers, features[indices]) - target[indices]) ** 2)

        return library.tree.map(lambda weight, slope: weight - RATE * slope, layers, library.grad(loss)(layers))

    def epoch(layers: Any, order: Any) -> Any:
        steps = order[:whole].reshape(-1, work.batch_rows)
        layers = library.lax.scan(lambda state, indices: (updated(state, indices), None), layers, steps)[0]
        return updated(layers, order[whole:]) if whole < work.row_count else layers

    def initial(replica: int) -> Any:
        linear = [layer for layer in work.network(replica).modules() if isinstance(layer, nn.Linear)]
        return [(jnp.array(layer.weight.detach().numpy().T), jnp.array(layer.bias.detach().numpy())) for layer in linear]

    if work.replicas == 1:
        step, layers = library.jit(epoch), initial(0)
    else:
        step = library.jit(library.vmap(epoch))
        layers = library.tree.map(lambda *parts: jnp.stack(parts), *(initial(replica) for replica in range(work.replicas)))

    def order(number: int) -> Any:
        rows = [work.order(replica, number).astype(np.int32) for replica in range(work.replicas)]
        return jnp.array(rows[0] if work.replicas == 1 else np.stack(rows))

    compiled = step.lower(layers, order(0)).compile()
    library.block_until_ready(compiled(layers, order(0)))
    started = time.perf_counter()
    for number in range(work.epochs):
        layers = compiled(layers, order(number))
    library.block_until_ready(layers)
    seconds = time.perf_counter() - started
    predicted = library.vmap(outputs, (0, None))(layers, features) if work.replicas > 1 else outputs(layers, features)[None]
    return seconds, np.asarray(jnp.mean((predicted - target) ** 2, axis=1)).tolist()


def contenders(work: Work) -> dict[str, Callable[[Work], Outcome]]:
    """Return who can do the work in one go: the engine, JAX and, for one replica, everybody else."""
    chosen: dict[str, Callable[[Work], Outcome]] = {"batchlab": batchlab, "jax": jax}
    if work.replicas > 1:
        return chosen
    if work.batch_rows == 1:
        return chosen | {"scikit-learn SGDRegressor": scikit_sgd}
    chosen |= {"notebook, slices": notebook_slices, "notebook, DataLoader": notebook_loader, "lightning": lightning, "skorch": skorch}
    return chosen | ({"scikit-learn MLPRegressor": scikit_mlp} if isinstance(work.model, Mlp) else {})


SAME_ORDER = ("batchlab", "jax", "notebook, slices", "notebook, DataLoader", "lightning", "skorch")
"""Who starts from the same weights and sees the rows in the same order, so that losses must agree."""
