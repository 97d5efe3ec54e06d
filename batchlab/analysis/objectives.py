"""What a search may be asked for. The name of a new objective goes here, its measure into `verdict.MEASURES`, its words into
`report.wording.WORDS`."""

from typing import Literal

Objective = Literal["best", "time", "rows", "memory", "loss"]
