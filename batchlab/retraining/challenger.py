"""Training the challenger: the recommended setting with several seeds, from scratch or from the champion's weights."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from batchlab.cluster.chosen import trainer_for
from batchlab.config import Profile
from batchlab.engine.halts import Keeper
from batchlab.engine.records import OnProgress, Trial, TrialResult
from batchlab.errors import BadInput
from batchlab.experiment import Experiment
from batchlab.files.mapped import gathered
from batchlab.retraining.carrying import carried
from batchlab.retraining.improvement import chance_of_no_harm
from batchlab.retraining.recipe import SHAPING, asked_of, differing
from batchlab.retraining.saved import Saved
from batchlab.rows.split import Split, times_of
from batchlab.scoring.evaluation import row_losses
from batchlab.search.draws import budgeted, thinned
from batchlab.table import PackedTable

MOST_VALIDATED = 100_000
"""Of more validation rows a random sample tells whether a window is surely better."""
SEEDS_APART = 2_000_003
"""Seeds of retrainings are so far from those of comparisons."""


@dataclass(frozen=True)
class Challenger:
    """The trained challenger: its experiment, the trainings of all seeds, the one that is shipped (lowest settled validation loss), how it
    began, and what is to be said of that."""

    experiment: Experiment
    results: Sequence[TrialResult]
    start: str
    remarks: tuple[str, ...] = ()

    @property
    def shipped(self) -> TrialResult:
        """The training whose weights are shipped; one that lasted longest when all diverged."""
        return min(self.results, key=lambda result: (result.settled_loss, -result.steps))

    @property
    def train_rows(self) -> int:
        """How many rows trained it."""
        return self.experiment.split.sizes()["train"]

    @property
    def diverged(self) -> bool:
        """Whether every seed diverged."""
        return all(result.diverged_at is not None for result in self.results)

    @property
    def validation_losses(self) -> NDArray[np.float64]:
        """The settled validation loss of each seed, in the target's unit; infinite for a diverged one."""
        return np.array([result.settled_loss for result in self.results]) * self.experiment.loss_unit


def challenged(
    profile: Profile,
    table: PackedTable,
    split: Split,
    champion: Saved | None,
    seed: int,
    on_progress: OnProgress = lambda progress: None,
    only_warm: bool = False,
    windows: Iterable[Split] = (),
    keeper: Keeper | None = None,
) -> Challenger:
    """Return the challenger, trained with the one setting of `profile` as `retraining.start` says.

    `warm` continues the champion's weights, with its preparation; `measure` trains both ways and takes the one whose seeds have the lower
    validation loss on average. It also continues them on the latest rows alone, on each of the `windows`, the longest first: old rows teach
    what has changed since. A window is taken only where the validation rows say that it is surely better than what was best before it
    (paired test over blocks of time, at 1 − `retraining.gate.confidence`). Where warm is impossible, since columns, classes or the model
    have changed, it says so and starts from scratch; an update (`only_warm`) raises BadInput, since its rows are too few to train anew on.
    The `keeper` keeps where trainings stand, so that one that was killed goes on.
    """
    rule, scratch = profile.retraining, Experiment(profile, table, split)
    trained = partial(_trained, seed=seed, on_progress=on_progress, keeper=keeper)
    if only_warm and champion is not None:
        return trained(_updated(scratch, champion), "warm", champion)
    if champion is None or rule.start == "scratch":
        return trained(scratch, "scratch", None)
    try:
        warm = continued(scratch, champion)
    except BadInput as error:
        return replace(trained(scratch, "scratch", None), remarks=(f"not from the champion's weights: {error}",))
    if rule.start == "warm":
        return trained(warm, "warm", champion)
    ways = [trained(scratch, "scratch", None), trained(warm, "warm", champion)]
    better, said = min(ways, key=lambda way: float(way.validation_losses.mean())), [_way(way, split) for way in ways]
    for window in windows:
        latest = trained(replace(warm, split=window), "warm", champion)
        better, said = latest if _surely_better(latest, better) else better, [*said, _way(latest, split)]
    measured = f"mean validation loss over {rule.seeds} seeds by start: {', '.join(said)}; taken: {_way(better, split)}"
    return replace(better, remarks=(measured, *better.remarks))


def _way(challenger: Challenger, split: Split) -> str:
    """Say how a challenger began, on which rows where not on all, and what that came to."""
    rows = challenger.train_rows
    start = challenger.start if rows == split.sizes()["train"] else f"{challenger.start} on the latest {rows:,} rows"
    return f"{start} {challenger.validation_losses.mean():.6g}"


def _surely_better(one: Challenger, other: Challenger) -> bool:
    """Whether what one would ship costs surely less than the other's on the validation rows."""
    if one.shipped.diverged_at is not None or other.shipped.diverged_at is not None:
        return one.shipped.diverged_at is None
    confidence = one.experiment.profile.retraining.gate.confidence
    return chance_of_no_harm(_validation_row_losses(one), _validation_row_losses(other)) < 1 - confidence


def _validation_row_losses(challenger: Challenger) -> NDArray[np.float64]:
    """Return the losses `[rows]` of what the challenger would ship, on the validation rows in the order of time."""
    from batchlab.scoring.shipping import predicted

    experiment = challenger.experiment
    table, rows = experiment.table, experiment.split.rows("validation", MOST_VALIDATED)
    rows = rows[np.argsort(times_of(table)[rows], kind="stable")]
    predictions = predicted(experiment.ship(challenger.shipped), table.seen, rows)
    return row_losses(gathered(table.target, rows), predictions, experiment.loss, experiment.preparation.target_scale)


def _updated(experiment: Experiment, champion: Saved) -> Experiment:
    """Return the experiment that continues the champion; raises BadInput that says why it cannot be, and what can."""
    try:
        return continued(experiment, champion)
    except BadInput as error:
        raise BadInput(f"the champion cannot be updated: {error} Retrain it instead (mode retrain), which can start anew.") from error


def continued(experiment: Experiment, champion: Saved) -> Experiment:
    """Return the experiment with the champion's preparation, so that its weights mean the same; raises BadInput where they cannot, and
    where the profile asks for another model: what is like the champion would not be that."""
    asked = champion.lineage.asked
    if other := differing(asked, asked_of(experiment.profile), asked.keys() & SHAPING):
        raise BadInput(f"the profile asks for something else than it was trained for: {', '.join(other)}.")
    preparation = carried(champion.preparation, champion.columns, experiment.table.schema.columns)
    warm = replace(experiment, given_preparation=preparation)
    classes = experiment.table.schema.target.classes
    if classes != champion.lineage.classes:
        raise BadInput(f"its classes are {_listed(champion.lineage.classes)}, the table's {_listed(classes)}.")
    shapes = {name: values.shape for name, values in champion.weights.items()}
    expected = {name: tuple(shape) for name, shape in warm.weight_shapes.items()}
    if shapes != expected:
        raise BadInput(f"its weights are {shapes}, the model's {expected}.")
    return warm


def _trained(
    asked: Experiment, start: str, champion: Saved | None, seed: int, on_progress: OnProgress, keeper: Keeper | None
) -> Challenger:
    experiment, remarks = _fitting(asked)
    profile = experiment.profile
    (strategy,), (rate,) = profile.strategies.values(), profile.train.learning_rate or ()
    weights = None if champion is None else champion.weights
    trials = [Trial(rate, seed + SEEDS_APART + number, weights) for number in range(profile.retraining.seeds)]
    plan = budgeted(profile.train, experiment.split.sizes()["train"]).model_copy(update={"keep": "settled"})
    data, loss = thinned(experiment), experiment.loss
    with trainer_for(experiment) as trains:
        results = trains(data, experiment.model, strategy, trials, plan, loss, experiment.device, on_progress, keeper=keeper)
    return Challenger(experiment, results, start, remarks)


def _fitting(experiment: Experiment) -> tuple[Experiment, tuple[str, ...]]:
    """Return the experiment with a batch that its rows can fill, and what is to be said of that: fewer may train than when the setting was
    recommended."""
    (name, strategy), rows = next(iter(experiment.profile.strategies.items())), experiment.split.sizes()["train"]
    if (wanted := strategy.rows_per_step(rows)) <= rows:
        return experiment, ()
    strategies = {name: strategy.model_copy(update={"batch_rows": rows})}
    remark = f"the recommended batch has {wanted:,} rows and only {rows:,} train, so each step takes all of them"
    return replace(experiment, profile=experiment.profile.model_copy(update={"strategies": strategies})), (remark,)


def _listed(classes: Sequence[str]) -> str:
    return ", ".join(classes[:10]) or "none"
