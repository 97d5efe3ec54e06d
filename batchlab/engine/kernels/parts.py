"""What the kernels are composed of: every activation, loss and optimizer, jitted and chosen by its number at run time."""

from collections.abc import Callable, Sequence
from typing import Any

from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from batchlab.engine import averaging
from batchlab.engine.losses import LOSSES
from batchlab.engine.optimizers import OPTIMIZERS
from batchlab.networks.activations import ACTIVATIONS

FAST = {"reassoc", "nsz", "contract", "arcp"}
"""Sums may be reordered, so that loops are vectorised; NaN and infinity keep their meaning, because divergence is detected by them."""
PLAIN: dict[str, Any] = {"fastmath": FAST, "_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Options of every function that allocates nothing: no slice counts references, for which the cores would wait for each other. Only kernels
call it, so nothing is compiled for other callers."""
INLINED: dict[str, Any] = {**PLAIN, "inline": "always"}
"""Of small ones, which the compiler then sees together with the loops around them: linear models train half as fast again."""


@intrinsic
def borrowed(typing, array):
    """Return the array without its reference counter: cores that count references to one array wait for each other at every slice."""

    def code(context, builder, signature, arguments):
        view = context.make_array(signature.return_type)(context, builder, arguments[0])
        view.meminfo = cgutils.get_null_value(view.meminfo.type)
        return view._getvalue()

    return array(array), code


@intrinsic
def _add_atomically(typing, counters, index, amount):
    """Add to `counters[index]` as one indivisible step that all cores see in the same order; return what was there before."""

    def code(context, builder, signature, arguments):
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.gep(view.data, [arguments[1]])
        return builder.atomic_rmw("add", place, arguments[2], "seq_cst")

    return types.int64(counters, types.int64, types.int64), code


@njit(**PLAIN)
def wait_for_all(counters, threads):
    """Return once all `threads` have come here as often as the caller: a barrier, by spinning, for work of microseconds.

    `counters` `[2]` start at 0: how many wait, and how many times all have met.
    """
    round_now = _add_atomically(counters, 1, 0)
    if _add_atomically(counters, 0, 1) == threads - 1:
        _add_atomically(counters, 0, -threads)
        _add_atomically(counters, 1, 1)
    while _add_atomically(counters, 1, 0) == round_now:
        pass


def one_of(functions: Sequence[Callable[..., Any]]) -> Any:
    """Return one jitted function whose first argument is the number of the function to call: all are compiled, once, into one kernel."""
    head = njit(functions[0], **PLAIN)
    if len(functions) == 1:

        @njit(**PLAIN)
        def last(number, *arguments):
            return head(*arguments)

        return last
    rest = one_of(functions[1:])

    @njit(**PLAIN)
    def chosen(number, *arguments):
        if number == 0:
            return head(*arguments)
        return rest(number - 1, *arguments)

    return chosen


def _over_a_block(value_and_slope: Callable[[float], tuple[float, float]]) -> Callable[..., None]:
    scalar = njit(value_and_slope, **PLAIN)

    def activate(values, bias, slopes):
        for row in range(values.shape[0]):
            for column in range(values.shape[1]):
                value, slope = scalar(values[row, column] + bias[column])
                values[row, column] = value
                slopes[row, column] = slope

    return activate


activate = one_of([_over_a_block(activation.value_and_slope) for activation in ACTIVATIONS.values()])
"""(activation, values [rows, width], bias [width], slopes [rows, width]): values ← f(values + bias), slopes ← f′(values + bias)."""

loss_and_slope = one_of([loss.value_and_slope for loss in LOSSES.values()])
"""(loss, outputs [rows, outputs], row, target, knee) → the row's loss; the row's outputs are overwritten by its slopes."""

average_share = njit(averaging.average_share, **PLAIN)
"""(step) → how much of the running average the weights after this step make up."""

update = one_of([kind.kernel for kind in OPTIMIZERS.values()])
"""(optimizer, weights, gradient, first, second, rate, step, settings, updated), all [parameters]: updated ← the new weights."""
