"""What decides a search: the objective, what is tried, with how many seeds, and the time it may take."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt
from pydantic_core import PydanticCustomError

from batchlab.analysis.objectives import Objective
from batchlab.engine.optimizers import OPTIMIZERS, Adam, AdamW, AnyOptimizer, Sgd
from batchlab.errors import nearest
from batchlab.records import Record

NAMED_OPTIMIZERS: dict[str, AnyOptimizer] = {"sgd": Sgd(), "momentum": Sgd(momentum=0.9), "adam": Adam(), "adamw": AdamW()}
"""Optimizers that `search.optimizers` may name; any other is a table with its `kind`."""


def _optimizer(value: Any) -> Any:
    if isinstance(value, dict) and "kind" not in value:
        return {"kind": "sgd", **value}  # as in train.optimizer
    if isinstance(value, str) and value not in NAMED_OPTIMIZERS:
        close = nearest(value, NAMED_OPTIMIZERS).rstrip(".")
        raise PydanticCustomError(
            "unknown_optimizer",
            "optimizer '{name}' does not exist{close}; or a table with the kind ({kinds}) and its settings",
            {"name": value, "close": close, "kinds": ", ".join(OPTIMIZERS)},
        )
    return NAMED_OPTIMIZERS[value] if isinstance(value, str) else value


def _as_tuple(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,)


TriedOptimizer = Annotated[AnyOptimizer, BeforeValidator(_optimizer)]


class SearchRule(Record):
    """How the best setting is looked for.

    `objective` `best` recommends the cheapest setting, in seconds, of those whose loss is neither detectably nor by more than `margin` of
    it worse than the best one's; `loss` the lowest loss at any price; `time`, `rows` and `memory` the least of these among the settings
    that reach the target. The target is the best loss plus the margin, unless `target_loss` is given. `optimizers` are tried unless
    `train.optimizer` names one. Every setting starts with `rates` learning rates and `tuning_seeds` seeds; what is left of them is
    confirmed with at most `seeds` fresh ones. `max_minutes` bounds the whole search; `inf` does not. `yardsticks` are cheap ways to predict
    that are scored beside the settings.
    """

    objective: Objective = "best"
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.01
    target_loss: PositiveFloat | None = None
    batch_rows: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | None = None
    optimizers: Annotated[tuple[TriedOptimizer, ...], BeforeValidator(_as_tuple), Field(min_length=1)] = (
        NAMED_OPTIMIZERS["sgd"],
        NAMED_OPTIMIZERS["momentum"],
        NAMED_OPTIMIZERS["adamw"],
    )
    rates: Annotated[int, Field(ge=3)] = 5
    tuning_seeds: Annotated[int, Field(ge=2)] = 2
    seeds: Annotated[int, Field(ge=2)] = 10
    timings: Annotated[int, Field(ge=4, multiple_of=2)] = 8
    max_minutes: Annotated[float, Field(gt=0, allow_inf_nan=True)] = 2.0
    defaults: bool = True
    yardsticks: bool = True
