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
        few = truth[np.linspace(0, len(truth) - 1, ROWS).astype(int)]
        _Tried.of(name, self.function, few, mean, scale, classes).check()
        losses = self.of_predictions(truth, constant)
        unit = float(losses.mean())
        if not np.isfinite(unit) or losses.min() < 0:
            always = f"where {'the shares of classes are' if classes else 'the mean is'} always predicted"
            raise BadInput(f"train.loss '{name}': {always}, its mean is {unit:.4g} and its lowest {losses.min():.4g}; {NEVER_BELOW}.")
        return replace(self, mean=mean, scale=scale, unit=unit or 1.0)

    def _in_unit(self, values: "Tensor") -> "Tensor":
        return values * self.scale + self.mean


@dataclass(frozen=True)
class _Tried:
    """A function tried on a few outputs `[rows]` (of classes `[rows, classes]`) and targets `[rows]`."""

    name: str
    function: Function
    outputs: "Tensor"
    target: "Tensor"

    @classmethod
    def of(cls, name: str, function: Function, truth: NDArray[Any], mean: float, scale: float, classes: int) -> "_Tried":
        """Return the trial on random outputs that look like predictions of these targets."""
        import torch

        draw = torch.Generator().manual_seed(0)
        if classes:
            outputs, target = torch.randn(len(truth), classes, generator=draw), torch.from_numpy(np.array(truth))
        else:
            outputs = torch.randn(len(truth), generator=draw) * scale + mean
            target = torch.from_numpy(np.array(truth, np.float32))
        return cls(name, function, outputs.requires_grad_(), target)

    def check(self) -> None:
        """Raise BadInput unless the function gives every row a loss of its own, with a slope, for one training as for several at once."""
        losses = self._losses()
        self._check_rows(losses)
        self._check_slopes(losses)
        self._check_several()

    def _refused(self, why: str) -> BadInput:
        what = "logits" if self.outputs.ndim > 1 else "predictions"
        given = f"{tuple(self.outputs.shape)} {what} and {tuple(self.target.shape)} targets"
        return BadInput(f"train.loss '{self.name}' {why}. It was called with {given}.")

    def _losses(self) -> "Tensor":
        """Return the losses; raises BadInput for what is not one finite number from 0 on for every row."""
        import torch

        try:
            losses = self.function(self.outputs, self.target)
        except Exception as error:
            raise self._refused(f"raised {type(error).__name__}: {error}") from error
        if not isinstance(losses, torch.Tensor):
            raise self._refused(f"returned a {type(losses).__name__}; it must return a tensor: a loss for every row")
        if losses.shape != self.target.shape:
            one = "; leave the mean to the training (reduction='none')" if losses.numel() == 1 else ""
            must = f"it must return a loss for every row, {tuple(self.target.shape)}{one}"
            raise self._refused(f"returned a tensor {tuple(losses.shape)}; {must}")
        lowest = float(losses.detach().min())
        if not bool(torch.isfinite(losses).all()) or lowest < 0:
            raise self._refused(f"returned {lowest:.4g} as the lowest loss; {NEVER_BELOW}")
        return losses

    def _check_rows(self, losses: "Tensor") -> None:
        import torch

        def same(others: "Tensor") -> bool:
            return torch.allclose(losses, others, rtol=CLOSE, atol=CLOSE * float(losses.detach().mean()) + 1e-30)

        rows = range(len(self.target))
        if not same(torch.cat([self.function(self.outputs[row : row + 1], self.target[row : row + 1]) for row in rows])):
            raise self._refused("gives a row another loss where it stands beside others; each row's loss must be its own")
        if self.outputs.ndim > 1 and not same(self.function(self.outputs + 3, self.target)):
            raise self._refused(
                "changes when the same number is added to all of a row's logits; it must go by softmax, since models give probabilities"
            )

    def _check_slopes(self, losses: "Tensor") -> None:
        import torch

        slopes = torch.autograd.grad(losses.sum(), self.outputs, allow_unused=True)[0] if losses.requires_grad else None
        if slopes is None or not bool(torch.isfinite(slopes).all()) or not bool(slopes.any()):
            raise self._refused("has no finite slope in the predictions, so nothing can be learnt from it")

    def _check_several(self) -> None:
        import torch

        def summed(outputs: "Tensor", target: "Tensor") -> "Tensor":
            return self.function(outputs, target).sum()

        try:
            torch.func.vmap(torch.func.grad(summed))(self.outputs.detach()[None], self.target[None])
        except Exception as error:
            said = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            raise self._refused(
                f"cannot be taken of several trainings at once ({said}); let no branch depend on values: torch.where"
            ) from error
