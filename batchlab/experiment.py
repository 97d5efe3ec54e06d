"""A comparison without Prefect or MLflow: settle the profile, the rows and their preparation, then train and ship each strategy."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batchlab.allowance import Allowance
from batchlab.config import Profile
from batchlab.engine.data import TrainingData
from batchlab.engine.device import chosen_device
from batchlab.engine.losses import Loss, chosen_loss
from batchlab.engine.records import OnProgress, Trial, TrialResult
from batchlab.engine.stability import divergence_reason, largest_stable_rate
from batchlab.errors import BadInput
from batchlab.files.mapped import gathered
from batchlab.imported import GIVEN
from batchlab.models import Model
from batchlab.models.custom import Custom
from batchlab.models.mlp import Mlp
from batchlab.rows.leakage import Leak, leaks
from batchlab.rows.portrait import Portrait, portrayed
from batchlab.rows.preparation import Preparation, measured_preparation
from batchlab.rows.split import Split
from batchlab.rows.timeline import TIMED, Order
from batchlab.rows.training_data import prepared
from batchlab.sources.dataset import DataSet
from batchlab.sources.items import GivenItems
from batchlab.table import PackedTable

if TYPE_CHECKING:
    import torch

    from batchlab.scoring.shipping import ShippedModel


MOST_FITTED = 100_000
"""So many training rows say what always predicting the mean costs in a loss of the user's own."""
MOST_TESTED = 1_000_000
"""Of more rows the test loss, what a constant costs, and the largest stable rate are those of a sample."""


@dataclass(frozen=True)
class Experiment:
    """A profile applied to a packed table and its split; everything else follows from these three, and from a preparation where one is
    given: a model that goes on training keeps its own. `items` is the data set that the rows were fetched of, where one was given in
    Python."""

    profile: Profile
    table: PackedTable
    split: Split
    given_preparation: Preparation | None = None
    items: GivenItems | None = field(default=None, compare=False, repr=False)

    def check(self) -> None:
        """Raise BadInput for whatever would stop a strategy from training: its batch, the loss, the device, the model."""
        from batchlab.engine.backends.base import seeded_network

        _ = self.loss, self.device, self.preparation, self.model
        refused = [f"{name}: {error}" for name in self.profile.strategies if (error := self._refusal(name))]
        if refused:
            raise BadInput(" ".join(refused))
        seeded_network(self.model, self.shape, self.profile.seed)

    def _refusal(self, strategy: str) -> BadInput | None:
        from batchlab.engine.backends.choice import uses_kernels

        chosen, population = self.profile.strategies[strategy], self.data.population
        try:
            if not chosen.takes_grid:  # a search finds sizes that fit
                chosen.check(population)
            uses_kernels(self.model, self.profile.train, self.device, chosen.rows_per_step(population.row_count))
        except BadInput as error:
            return error
        return None

    @cached_property
    def loss(self) -> Loss:
        """The loss that the profile asks for on this task; raises BadInput for one that cannot be trained with."""
        loss = chosen_loss(self.profile.train.loss, self.table.schema.target.task, self.profile.train.huber_delta)
        if loss.own is None:
            return loss
        truth, known = self.truth(self.split.rows("train", MOST_FITTED)), self.preparation
        return replace(loss, own=loss.own.fitted(loss.name, truth, known.target_mean, known.target_scale, self._classes))

    @cached_property
    def device(self) -> "torch.device":
        """The device that the profile asks for; raises BadInput when it is not there."""
        return chosen_device(self.profile.device, self.profile.train.precision)

    @cached_property
    def preparation(self) -> Preparation:
        """How packed columns become inputs, with statistics of the training rows."""
        if self.given_preparation is not None:
            return self.given_preparation
        profile = self.profile
        return measured_preparation(
            self.table,
            self.split,
            profile.scale,
            profile.encoding,
            profile.target_scale,
            features_as_they_are=profile.model.takes_integers,
            row_shape=profile.model.row_shape,
        )

    @cached_property
    def model(self) -> Model:
        """The profile's model, told which inputs are categories to embed, or how many rows it sees; raises BadInput for one that cannot."""
        model, sizes = self.profile.model.for_windows(self.table.span, self.preparation.width), self.preparation.embedded_sizes
        if not sizes:
            return model
        if self.table.span > 1:
            raise BadInput("encoding.categories 'embedding' is for models that see one row at a time; use 'one_hot' with columns.window.")
        if not isinstance(model, Mlp):
            raise BadInput(f"encoding.categories 'embedding' needs model.kind mlp, not {model.kind}; use 'one_hot'.")
        from batchlab.engine.embedding import EmbeddedMlp

        return EmbeddedMlp(**model.model_dump(), embedded=sizes)

    @property
    def given_items(self) -> GivenItems | None:
        """The data set that the rows were fetched of, or the name of what makes it; None for other sources."""
        source = self.profile.source
        return GivenItems(source.factory) if isinstance(source, DataSet) else self.items

    @property
    def steps_in_torch(self) -> bool:
        """Whether code of the user's own, a network or a loss, runs in every step: small ones then cost as much as large ones."""
        return self.model.code is not None or self.loss.own is not None

    @cached_property
    def data(self) -> TrainingData:
        """Training and validation rows, as inputs; rows that take more than their share of the allowance stay in files."""
        import torch

        real = torch.float64 if self.profile.train.precision == "float64" else torch.float32
        versions = self.table.versions if self.items is None else self.items.versions
        return prepared(self.table, self.split, self.preparation, real, Allowance.of(self.profile.memory_gib), versions)

    @cached_property
    def leaks(self) -> tuple[Leak, ...]:
        """In which ways the scores may be better than new rows will be."""
        return leaks(self.table, self.split, self.profile.columns, self.profile.split.kind)

    @cached_property
    def portrait(self) -> Portrait:
        """What the table looks like, and how the split divides it."""
        order = Order(self.profile.columns.time, self.profile.split.kind in TIMED)
        return portrayed(self.table, self.split, order)

    @property
    def shape(self) -> tuple[int, int]:
        """Inputs and outputs of the network."""
        return self.table.span * self.preparation.width, max(1, self._classes)

    @property
    def _classes(self) -> int:
        return len(self.table.schema.target.classes)

    @property
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the network's weights, by name."""
        from batchlab.engine.backends.base import seeded_network
        from batchlab.networks.layout import Layout

        return Layout.of(seeded_network(self.model, self.shape, self.profile.seed)).shapes

    @property
    def loss_unit(self) -> float:
        """What a loss of the scaled target is multiplied by to be in the unit of the target, or of its logarithm (squared, for MSE and
        Huber), or in that of the user's own loss."""
        return self.preparation.target_scale**2 if self.loss.own is None else self.loss.own.unit

    @property
    def loss_unit_name(self) -> str:
        """The unit of losses for people."""
        target = self.table.schema.target
        if self.loss.own is not None:
            return self.loss.label
        if target.classes:
            return "nats"
        return f"log({target.name})²" if self.preparation.log_target else f"{target.name}²"

    def truth(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the targets of these rows `[rows]` as losses compare them: in the target's unit or, where that is what is learnt, as
        logarithms."""
        return self.preparation.unscaled(gathered(self.table.target, rows))

    def losses(self, rows: NDArray[np.int64], predictions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return each row's loss `[rows]` for predictions in the target's unit, or for probabilities."""
        from batchlab.scoring.evaluation import row_losses

        return row_losses(self.truth(rows), self.preparation.unscaled(predictions), self.loss, self.preparation.target_scale)

    def train(self, strategy: str, on_progress: OnProgress = lambda progress: None) -> list[TrialResult]:
        """Train the named strategy with every learning rate of the profile (without any, a coarse grid), stacked, one seed each."""
        from batchlab.engine.loop import train
        from batchlab.engine.rates import first

        profile = self.profile
        rates = profile.train.learning_rate or first(profile.train.rule, profile.search.rates)
        trials = [Trial(rate, profile.seed) for rate in rates]
        return train(self.data, self.model, profile.strategies[strategy], trials, profile.train, self.loss, self.device, on_progress)

    @cached_property
    def constant_loss(self) -> float:
        """The validation loss of always predicting the training rows' mean, or their shares of classes; scaled as training sees it."""
        import torch

        data = self.data
        target = data.target if data.stored is None and data.places is None else data.evaluated[0][1]
        if self.table.schema.target.classes:
            outputs = torch.log(torch.bincount(target, minlength=data.output_count) / len(target))
        else:
            outputs = target.mean()[None]
        rows = outputs.to(data.features.dtype).expand(1, len(data.validation_target), -1)
        return float(self.loss.per_row(rows, data.validation_target[None]).mean())

    @property
    def of_this_session(self) -> str | None:
        """Which of the module and the loss other processes cannot import, in words; None where they can."""
        if self.profile.train.loss in GIVEN:
            return "the loss"
        return "the module" if isinstance(self.profile.model, Custom) and self.profile.model.factory in GIVEN else None

    def test_losses(self, results: Sequence[TrialResult]) -> NDArray[np.float64]:
        """Return the mean loss `[results]` on the test rows, in the target's unit; infinite for a diverged trial."""
        found = [math.inf if result.diverged_at is not None else self._test_loss(result) for result in results]
        return np.array(found)

    @property
    def constant_test_loss(self) -> float:
        """The test loss of always predicting the training rows' mean, or their shares of classes, in the target's unit."""
        from batchlab.scoring.evaluation import mean_loss

        train, truth = (self.truth(self.split.rows(part, MOST_TESTED)) for part in ("train", "test"))
        classes = self.table.schema.target.classes
        constant = np.bincount(train, minlength=len(classes)) / len(train) if classes else np.array([train.mean()])
        return mean_loss(truth, np.tile(constant, (len(truth), 1)), self.loss, self.preparation.target_scale)

    def _test_loss(self, result: TrialResult) -> float:
        return float(self.losses(self.split.rows("test", MOST_TESTED), self._tested(result)[1]).mean())

    def test_scores(self, result: TrialResult) -> dict[str, float | None]:
        """Return what the trial's model scores on the test rows, by name."""
        from batchlab.scoring.evaluation import scores

        return scores(*self._tested(result), self.table.schema.target)

    def _tested(self, result: TrialResult) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Return the test rows' truth, and what the trial's model predicts of them."""
        from batchlab.scoring.shipping import predicted

        rows = self.split.rows("test", MOST_TESTED)
        return gathered(self.table.target, rows), predicted(self.ship(result), self.table.seen, rows)

    def ship(self, result: TrialResult) -> "ShippedModel":
        """Return the trial's model with its preparation inside: packed columns in, prediction in the target's unit out."""
        from batchlab.scoring.shipping import shipped

        return shipped(self.model, self.shape, result.weights, self.preparation, bool(self._classes), self.table.span)

    def reason(self, result: TrialResult) -> str | None:
        """Say why the trial ended as it did; None for nothing to say."""
        if result.diverged_at is not None:
            return divergence_reason(
                result.diverged_at, result.trial.learning_rate, self.stable_rate, bool(self.profile.scale), self.loss.name == "mse"
            )
        plan = self.profile.train
        if result.stopped == "patience":
            return f"stopped early after step {result.steps}; kept the weights of step {result.curve.step[result.kept]}"
        if result.steps == plan.max_steps and result.epochs < plan.epochs:
            return f"reached max_steps {plan.max_steps} after {result.epochs:.3g} of {plan.epochs} epochs"
        return None

    @cached_property
    def stable_rate(self) -> float | None:
        """The largest stable learning rate of a linear model on the training rows; None for other models, Adam, and a loss of one's own."""
        if not self.profile.model.is_linear or self.loss.own is not None:
            return None
        whole = self.data.stored is None and self.data.places is None
        features = (self.data.features if whole else self.data.evaluated[0][0]).double().numpy()
        return largest_stable_rate(np.asarray(features, np.float64), self.loss, self.profile.train.rule)
