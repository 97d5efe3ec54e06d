"""What decides a search: the grid, the seeds, the target, the objective and the time it may take."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from batchlab.records import Record


class SearchRule(Record):
    """How the best setting is looked for. Every strategy gets the same number of rates, seeds and rows."""

    objective: Literal["time", "rows", "memory", "test_loss"] = "time"
    target_loss: PositiveFloat | None = None
    batch_rows: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | None = None
    rates: Annotated[int, Field(ge=3)] = 7
    finer_rates: Annotated[int, Field(ge=2, multiple_of=2)] = 4
    rounds: Annotated[int, Field(ge=0)] = 1
    tuning_seeds: PositiveInt = 5
    final_rates: PositiveInt = 3
    final_seeds: PositiveInt = 10
    seeds: Annotated[int, Field(ge=2)] = 10
    timings: Annotated[int, Field(ge=4, multiple_of=2)] = 8
    max_minutes: PositiveFloat | None = None
    defaults: bool = True
