"""What came of a retraining: the record that the flow returns and --json writes."""

from typing import Literal

from batchlab.records import Result
from batchlab.retraining.drift import Drift
from batchlab.retraining.promotion import Promotion

Mode = Literal["retrain", "update"]


class Retraining(Result):
    """What a retraining of the model `name` came to, in one sentence as `text`.

    `nothing_new` and `waiting` trained nothing. `champion` is the version that is in use afterwards. `stale` says why a comparison was
    made first; `remarks` are what people should know; `start` says what the challenger's training began from.
    """

    outcome: Literal["nothing_new", "waiting", "first", "promoted", "kept"]
    text: str
    name: str
    mode: Mode
    champion: int | None
    fresh_rows: int = 0
    train_rows: int = 0
    start: str | None = None
    stale: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    drift: Drift | None = None
    promotion: Promotion | None = None
    mlflow_run_id: str | None = None
    comparison_run_id: str | None = None
