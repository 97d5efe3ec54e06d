"""Losses of the user's own: `function(predictions, target)` returns a loss for every row, as torch.nn.functional's do with
`reduction="none"`."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batchlab.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

Function = Callable[["Tensor", "Tensor"], "Tensor"]
"""From predictions `[rows]` in the target's unit (of classes: logits `[rows, classes]`) and the target `[rows]` to losses `[rows]`."""
ROWS = 16
NEVER_BELOW = "losses must be finite and never below 0 (add a constant, or leave out what is subtracted)"
CLOSE = 1e-3
"""A loss that is the same differs by no more than this share of the losses' mean, in float32."""


@dataclass(frozen=True)
class OwnLoss:
    """A loss of the user's own. Trainings see a scaled target, and their outputs are `scale` times as much beside `mean` in its unit;
    losses are divided by `unit`, what always predicting the mean costs, so that learning rates mean what they mean for other losses."""

    function: Function
    mean: float = 0.0
    scale: float = 1.0
    unit: float = 1.0

    def per_row(self, outputs: "Tensor", target: "Tensor") -> "Tensor":
        """Return `[…, rows]` from outputs `[…, rows, outputs]` and target `[…, rows]`, both as training sees them."""
        truth = target.reshape(-1)
        if target.is_floating_point():
            losses = self.function(self._in_unit(outputs.reshape(-1)), self._in_unit(truth))
        else:
            losses = self.function(outputs.reshape(-1, outputs.shape[-1]), truth)
        return losses.reshape(target.shape) / self.unit

    def of_predictions(self, truth: NDArray[Any], predictions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return each row's loss `[rows]` for predictions `[rows, 1]` in the target's unit, or for probabilities `[rows, classes]`."""
        import torch

        given = predictions[:, 0] if truth.dtype.kind == "f" else np.log(np.maximum(predictions, np.finfo(np.float64).tiny))
        with torch.no_grad():
            losses = self.function(torch.from_numpy(np.array(given, np.float64)), torch.from_numpy(np.array(truth)))
        return np.asarray(losses.numpy(), np.float64)

    def fitted(self, name: str, truth: NDArray[Any], mean: float, scale: float, classes: int) -> "OwnLoss":
        """Return the loss for trainings on a target like these training rows' `[rows]`, in its unit (of classes: their numbers).

        Raises BadInput, with the loss's `name`, for one that cannot be trained with.
        """
        shares = np.bincount(truth, minlength=classes)[None] / len(truth) if classes else np.array([[truth.mean()]])
        constant = np.tile(shares, (len(truth), 1))
        _check(name, self.function, truth[np.linspace(0, len(truth) - 1, ROWS).astype(int)], mean, scale, classes)
        losses = self.of_predictions(truth, constant)
        unit = float(losses.mean())
        if not np.isfinite(unit) or losses.min() < 0:
            always = f"where {'the shares of classes are' if classes else 'the mean is'} always predicted"
            raise BadInput(f"train.loss '{name}': {always}, its mean is {unit:.4g} and its lowest {losses.min():.4g}; {NEVER_BELOW}.")
        return replace(self, mean=mean, scale=scale, unit=unit or 1.0)

    def _in_unit(self, values: "Tensor") -> "Tensor":
        return values * self.scale + self.mean


def _check(name: str, function: Function, truth: NDArray[Any], mean: float, scale: float, classes: int) -> None:
    """Raise BadInput unless the function gives every row a loss of its own, with a slope, for one training as for several at once."""
    import torch

    draw = torch.Generator().manual_seed(0)
    target = torch.from_numpy(np.array(truth)) if classes else torch.from_numpy(np.array(truth, np.float32))
    outputs = torch.randn((len(truth), classes) if classes else len(truth), generator=draw) * scale + (0 if classes else mean)
    leaf = outputs.requires_grad_()

    def refuse(why: str) -> BadInput:
        given = f"{tuple(leaf.shape)} {'logits' if classes else 'predictions'} and {tuple(target.shape)} targets"
        return BadInput(f"train.loss '{name}' {why}. It was called with {given}.")

    try:
        losses = function(leaf, target)
    except Exception as error:
        raise refuse(f"raised {type(error).__name__}: {error}") from error
    if not isinstance(losses, torch.Tensor) or losses.shape != target.shape:
        found = f"a tensor {tuple(losses.shape)}" if isinstance(losses, torch.Tensor) else f"a {type(losses).__name__}"
        one = "; leave the mean to the training (reduction='none')" if isinstance(losses, torch.Tensor) and losses.numel() == 1 else ""
        raise refuse(f"returned {found}; it must return a loss for every row, {tuple(target.shape)}{one}")
    values = losses.detach()
    if not bool(torch.isfinite(values).all()) or float(values.min()) < 0:
        raise refuse(f"returned {float(values.min()):.4g} as the lowest loss; {NEVER_BELOW}")
    close = CLOSE * float(values.mean()) + 1e-30
    alone = torch.cat([function(leaf[place : place + 1], target[place : place + 1]) for place in range(len(target))])
    if not torch.allclose(losses, alone, rtol=CLOSE, atol=close):
        raise refuse("gives a row another loss where it stands beside others; each row's loss must be its own")
    if classes and not torch.allclose(losses, function(leaf + 3, target), rtol=CLOSE, atol=close):
        raise refuse(
            "changes when the same number is added to all of a row's logits; it must go by softmax, since models give probabilities"
        )
    slopes = torch.autograd.grad(losses.sum(), leaf, allow_unused=True)[0] if losses.requires_grad else None
    if slopes is None or not bool(torch.isfinite(slopes).all()) or not bool(slopes.any()):
        raise refuse("has no finite slope in the predictions, so nothing can be learnt from it")
    try:
        torch.func.vmap(torch.func.grad(lambda some, true: function(some, true).sum()))(leaf.detach()[None], target[None])
    except Exception as error:
        said = str(error).strip().splitlines()[0]
        raise refuse(
            f"cannot be taken of several trainings at once ({type(error).__name__}: {said}); let no branch depend on values: torch.where"
        ) from error
