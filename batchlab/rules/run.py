from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from batchlab.records import Record


class RunRule(Record):
    """Where trainings run: in this process, or on a Ray cluster at `address`, whose workers take so many `cores` and so much of the GPUs
    for each stack of trainings. Timings, memory and loaders are measured in this process in any case."""

    on: Literal["local", "ray"] = "local"
    address: str = "auto"
    cores: PositiveInt = 1
    gpus: Annotated[float, Field(ge=0)] = 0.0
