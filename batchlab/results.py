"""What a comparison found: the records behind the JSON, the tables and the report."""

from typing import Any, Literal

from batchlab.records import Result
from batchlab.table.target import Task


class RowCounts(Result):
    """Rows of each part of the split."""

    train: int
    validation: int
    test: int


Status = Literal["reached", "not_reached", "behind", "diverged"]
Interval = tuple[float, float | None]
"""A 95% confidence interval; None where the data do not bound it."""


class StrategyResult(Result):
    """One row of the table: a strategy with its best optimizer and learning rate. Losses are in the target's unit squared for MSE; None for
    a diverged one.

    `status` is `behind` for one that left the race before the end; `reason` then says when, with the losses. `mean_validation_loss` and
    `mean_test_loss` are means over its `draws`: seeds and, on small tables, divisions. `steps_to_target`, `rows_to_target` and
    `seconds_to_target` are those of the mean curve over draws, None where it does not get there; their intervals then hold a lower bound
    only. Losses and `metrics` are those of the saved model; None, as `mlflow_run_id`, for one that an interruption left unrecorded.
    `train_seconds` is what all trials of the setting took together.
    """

    name: str
    label: str
    kind: str
    batch_rows: int
    optimizer: str
    learning_rate: float
    recommended: bool
    status: Status
    reason: str | None
    draws: int
    mean_validation_loss: float | None
    mean_test_loss: float | None
    steps_to_target: float | None
    steps_to_target_ci: Interval | None
    rows_to_target: float | None
    rows_to_target_ci: Interval | None
    seconds_to_target: float | None
    seconds_to_target_ci: Interval | None
    seconds_per_step: float
    seconds_per_step_ci: Interval
    delivery_share: float
    peak_bytes: float | None
    noise_scale: float | None
    noise_scale_ci: Interval | None
    train_loss: float | None
    validation_loss: float | None
    test_loss: float | None
    metrics: dict[str, float | None]
    steps: int
    epochs: float
    rows_seen: int
    train_seconds: float
    mlflow_run_id: str | None


class Period(Result):
    """The recommended setting in one period of a walk forward, trained on the rows before it: mean test loss over seeds, and what always
    predicting the training rows' mean costs. `first` and `last` are the period's moments."""

    number: int
    first: str
    last: str
    train_rows: int
    test_rows: int
    test_loss: float
    test_loss_ci: Interval
    constant_test_loss: float


class YardstickResult(Result):
    """A cheap way to predict, scored on the split's rows: mean losses as settings have them, and the seconds that fitting took, on `rows`
    of `of_rows` training rows. `key` is `constant`, `last_known`, `linear`, `boosting` or that of a later one.

    `difference` is its test loss over the mean one of the recommended setting, less 1, with its 95% interval over draws and test rows; None
    where they cannot be compared. `beats` says that it is lower, detectably and by more than the margin.
    """

    key: str
    name: str
    validation_loss: float | None
    test_loss: float | None
    difference: float | None
    difference_ci: tuple[float, float] | None
    beats: bool
    seconds: float
    rows: int
    of_rows: int
    note: str = ""


class Fetching(Result):
    """What a loop costs that fetches a data set's items anew, as measured on `cores` cores.

    Seconds are those of an item: for its own code (`decode_seconds`), for putting it into a batch, for copying it to the device.
    `step_seconds` are a plain loop's with rows in memory, by the rows of a step; `trained` the rows a second of the loop that fetches
    `batch_rows` of the `items` a step, by the number of its DataLoader's workers.
    """

    items: int
    batch_rows: int
    decode_seconds: float
    collate_seconds: float
    copy_seconds: float
    step_seconds: dict[int, float]
    trained: dict[int, float]
    cores: int

    @property
    def item_seconds(self) -> float:
        """What a worker needs for an item."""
        return self.decode_seconds + self.collate_seconds

    def kept_busy_by(self, rows: int) -> float:
        """Return how many workers, each on a core of its own, deliver as fast as steps of so many rows take them."""
        return self.item_seconds * rows / self.step_seconds[rows]


class OverProcesses(Result):
    """A step of one row of the table, of `batch_rows` rows, divided over so many `processes`: its seconds, how much of them is waiting for
    the other processes, and the seconds that the steps to the target come to; None where that is not reached."""

    label: str
    batch_rows: int
    processes: int
    seconds_per_step: float
    waiting_share: float
    seconds_to_target: float | None = None


class TrainingFacts(Result):
    """What a training is made of beside the setting: the network as keys of a profile and its inputs and outputs, loss and schedule,
    whether numbers are `scaled` and weights averaged, and the rows of an epoch. `loss_unit` turns losses as training sees them into the
    target's unit; `target_mean` and `target_scale` are what it was scaled by. `input_names` says what the inputs are, in their order; empty
    where they are many. Of a `window` of several rows the inputs are those of all of them, oldest first, and the names those of one; the
    target is that of the row `horizon` later. With `versions` every epoch takes another one of so many of each row (an augmentation)."""

    model: dict[str, Any]
    inputs: int
    outputs: int
    loss: str
    huber_delta: float
    scaled: bool
    loss_unit: float
    averaging: bool
    schedule: dict[str, Any]
    train_rows: int
    input_names: tuple[str, ...] = ()
    window: int = 1
    horizon: int = 0
    target_mean: float = 0.0
    target_scale: float = 1.0
    versions: int = 0

    @property
    def classifies(self) -> bool:
        """Whether the target is a class: a regression has one output."""
        return self.outputs > 1


class Verdict(Result):
    """The recommendation: train with this strategy, batch size, optimizer and learning rate for `rows` rows.

    `loss` is its mean validation loss over fresh draws with its 95% interval, `one_training_ci` the interval of one further training's;
    `best_loss` the lowest one of any setting, and `as_good` the settings that are neither detectably nor by more than `margin` worse than
    that. `value` and `ci` are in loss (objectives `best` and `loss`), seconds, rows or bytes, as `objective` says. `ratio` is the
    runner-up's seconds (rows, bytes; loss for `loss`) to the target over the recommended one's with its 97.5% interval,
    `full_batch_ratio` full batch's; `ties` cannot be told from the recommendation in that. `left_out` names what was not measured, with
    the reason; `fetching` is what a loop over a data set's items costs, `processes` what steps cost that are divided over some;
    `yardsticks` are cheap ways to predict, scored beside it.
    `settings` are the keys of a profile that train so, `training` is what else a training is made of, and `code` says both in a few lines.
    """

    strategy: str | None
    batch_rows: int | None
    optimizer: str | None
    learning_rate: float | None
    rows: int | None
    objective: str
    margin: float
    value: float | None
    ci: Interval | None
    loss: float | None
    loss_ci: Interval | None
    one_training_ci: Interval | None
    seconds_to_target: float | None
    seconds_to_target_ci: Interval | None
    test_loss: float | None
    best_loss: float | None
    as_good: tuple[str, ...]
    runner_up: str | None
    ratio: float | None
    ratio_ci: Interval | None
    detectable: bool
    ties: tuple[str, ...]
    full_batch_ratio: float | None
    full_batch_ratio_ci: Interval | None
    critical_batch: float | None
    critical_batch_ci: Interval | None
    throughput_knee: float | None
    memory_ceiling: int
    target_loss: float | None
    trainings: int
    search_seconds: float
    left_out: tuple[str, ...] = ()
    periods: tuple[Period, ...] = ()
    yardsticks: tuple[YardstickResult, ...] = ()
    fetching: Fetching | None = None
    processes: tuple[OverProcesses, ...] = ()
    notes: tuple[str, ...]
    text: str
    settings: dict[str, Any] | None = None
    training: TrainingFacts | None = None

    def code(self, library: Literal["torch", "lightning", "skorch", "keras"] = "torch") -> str:
        """Return a few lines that train with the recommended setting in another library, of arrays `X` `[rows, inputs]` and `y` `[rows]`.

        Raises BadInput where nothing is recommended, and for what the library cannot say in a few lines.
        """
        from batchlab.snippets.snippets import code_of

        return code_of(self, library)


class ComparisonFacts(Result):
    """What was compared, and where its records are."""

    mlflow_run_id: str
    mlflow_experiment_id: str
    prefect_flow_run_id: str | None
    task: Task
    device: str
    rows: RowCounts
    split_digest: str


class Comparison(Result):
    """The whole result, as `--json` writes it."""

    comparison: ComparisonFacts
    verdict: Verdict
    strategies: tuple[StrategyResult, ...]
    typed: tuple[StrategyResult, ...] = ()
