"""What somebody's own network is like, found out on a few rows before anything is trained."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from batchlab.errors import BadInput
from batchlab.networks.layout import Layout, is_carried, trained_in, views
from batchlab.networks.stacking import stacked_forward, stacked_slopes
from batchlab.networks.traits import Traits

ROWS = 3
DRAWS = 16
"""A network that draws random numbers shows it in so many passes."""
CLOSE = 1e-4
"""In float32 an output that is the same differs by no more, of outputs around 1."""


def examined(name: str, make: Callable[[], nn.Module], features: int, outputs: int, integers: bool = False) -> Traits:
    """Return the traits of the network that `make` returns, by which it is known as `name`; raises BadInput for one that cannot be trained.

    torch's generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network, other = _seeded(make, 0), _seeded(make, 1)
        if not Layout.of(network).trained:
            raise BadInput(f"{name} returned a network without parameters to train; there is nothing to learn.")
        _refuse_shared_chance(name, network, other)
        draw = torch.Generator().manual_seed(0)
        rows = torch.randint(2, (ROWS, features), generator=draw).float() if integers else torch.randn(ROWS, features, generator=draw)
        _check_predictions(name, network.eval(), rows, outputs)
        _check_training(name, network.train(), rows)
        return Traits(_why_not_stacked(network, rows), _predicts_alone(network, rows), _draws(network, rows), _needs_rows(network, rows))


def _seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return make()


def _refuse_shared_chance(name: str, network: nn.Module, other: nn.Module) -> None:
    of_other = dict(other.named_buffers())
    for key, buffer in network.named_buffers():
        if not is_carried(buffer) and not torch.equal(buffer, of_other[key]):
            raise BadInput(
                f"{name}'s buffer '{key}' holds whole numbers that differ from seed to seed; all replicas share such a buffer. "
                "Draw it with a generator of its own: torch.Generator().manual_seed(0)."
            )


def _check_predictions(name: str, network: nn.Module, rows: Tensor, outputs: int) -> None:
    """Raise BadInput unless rows give as many outputs, each row the same as by itself."""
    try:
        with torch.no_grad():
            together = network(rows)
            shape = tuple(together.shape)
            apart = torch.cat([network(row[None]) for row in rows])
    except Exception as error:
        raise BadInput(f"{name}'s network fails on {ROWS} rows of {rows.shape[1]} features: {error}") from error
    if shape != (ROWS, outputs):
        raise BadInput(
            f"{name} maps {tuple(rows.shape)} to {shape}; it must map it to {(ROWS, outputs)}: "
            "one number a row for regression, one logit a class otherwise."
        )
    if not torch.allclose(together, apart, atol=CLOSE):
        raise BadInput(f"{name}'s network predicts another output for a row that stands beside others; in predictions rows must not mix.")


def _check_training(name: str, network: nn.Module, rows: Tensor) -> None:
    """Raise BadInput unless the network passes backward, and what it changes on the way is each replica's own."""
    shared = {key: buffer.clone() for key, buffer in network.named_buffers() if not is_carried(buffer)}
    try:
        network(rows).sum().backward()
    except Exception as error:
        raise BadInput(f"{name}'s network cannot train on {ROWS} rows of {rows.shape[1]} features: {error}") from error
    changed = [key for key, buffer in network.named_buffers() if key in shared and not torch.equal(buffer, shared[key])]
    if changed:
        raise BadInput(f"{name}'s buffer '{changed[0]}' holds whole numbers and training changes it; make it a buffer of real numbers.")


def _why_not_stacked(network: nn.Module, rows: Tensor) -> str | None:
    """Say why replicas of the network cannot train at once; None where they can, and come to the same slopes as alone."""
    layout = Layout.of(network.train())
    weights, both = layout.flat(network).expand(2, -1).clone(), rows.expand(2, *rows.shape)
    try:
        _, slopes, _ = stacked_slopes(network, layout, lambda outputs, _: outputs.square().sum(), weights, both, both[..., 0])
    except Exception as error:
        said = str(error).strip().splitlines()
        return f"{type(error).__name__}: {said[0] if said else ''}"
    network.zero_grad()
    network(rows).square().sum().backward()
    of_one = [parameter.grad if parameter.grad is not None else torch.zeros_like(parameter) for parameter in trained_in(network)]
    same = torch.allclose(slopes, torch.cat([slope.flatten() for slope in of_one]).expand_as(slopes), rtol=1e-3, atol=CLOSE)
    return None if same or _draws(network, rows) else "replicas at once come to other slopes than each by itself"


def _predicts_alone(network: nn.Module, rows: Tensor) -> bool:
    """Whether replicas of the network cannot predict at once."""
    layout = Layout.of(network.eval())
    weights = views(layout.flat(network).expand(2, -1), layout.shapes)
    try:
        with torch.no_grad():
            stacked, alone = stacked_forward(network, weights, rows.expand(2, *rows.shape)), network(rows)
    except Exception:
        return True
    return not torch.allclose(stacked, alone.expand_as(stacked), atol=CLOSE)


def _draws(network: nn.Module, rows: Tensor) -> bool:
    """Whether the network's outputs in training depend on torch's generator."""
    with torch.no_grad():
        first, *others = (_drawn(network.train(), rows, seed) for seed in range(DRAWS))
    return any(not torch.equal(first, other) for other in others)


def _drawn(network: nn.Module, rows: Tensor, seed: int) -> Tensor:
    kept = [buffer.clone() for buffer in network.buffers()]
    torch.manual_seed(seed)
    outputs: Tensor = network(rows)
    for buffer, before in zip(network.buffers(), kept, strict=True):
        buffer.copy_(before)
    return outputs


def _needs_rows(network: nn.Module, rows: Tensor) -> bool:
    """Whether the network cannot train on a single row."""
    try:
        with torch.no_grad():
            network.train()(rows[:1])
    except Exception:
        return True
    return False
