"""The last look at trainings that confirm: at more validation rows than along their curves, which is what decides."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from batchlab.analysis.paired import variance_over_rows
from batchlab.engine.optimizers import Sgd
from batchlab.engine.records import TrialResult
from batchlab.experiment import Experiment
from batchlab.scoring.shipping import predicted
from batchlab.search.confirming import FEWEST_LOOKED_AT
from batchlab.search.draws import budgeted, divided, sampled, thinned
from batchlab.search.hands import Here
from batchlab.search.last_look import LAST_ROWS, LAST_VALUES, last_rows, looked_at_last, most_rows
from batchlab.search.space import Setting
from batchlab.search.work import CONFIRMING_LOOKS, Worker
from batchlab.strategies.mini_batch import MiniBatch
from tests.test_race import entry, flat, standing

FEW = 64
SMALL, LARGE = (Setting(MiniBatch(batch_rows=size), Sgd(), 0.03) for size in (32, 128))
Experiments = Callable[..., Experiment]


@pytest.fixture
def many_rows(experiment: Experiments) -> Experiment:
    """Rows enough for one division: draws share the validation rows."""
    return experiment(data="synthetic", overrides=["source.rows=30000", "source.noise=5000"])


def worker_of(made: Experiment) -> Worker:
    """Return a worker that confirms with the looks that there is time for without a limit."""
    data = divided(made, 4) or thinned(made)
    plan = budgeted(made.profile.train, made.data.population.row_count)
    return Worker(made, data, data, plan, lambda said, progress: None, lambda: float("inf"), Here())


def confirmed(made: Experiment, setting: Setting, last: bool) -> list[TrialResult]:
    """Return three trainings looked at on few rows, with a last look at all or without."""
    worker = worker_of(made)
    few = replace(worker, fresh_data=sampled(worker.fresh_data, FEW, 0))
    every = last_rows(made.data, len(made.data.validation_target), 0)
    return (replace(few, last_data=every) if last else few).confirm(setting, draws=3, rows=4000)


def test_a_training_ends_with_what_its_model_loses_on_all_rows_of_the_last_look(many_rows: Experiment) -> None:
    rows = many_rows.split.validation
    for result in confirmed(many_rows, SMALL, last=True):
        losses = many_rows.losses(rows, predicted(many_rows.ship(result), many_rows.table.seen, rows))
        assert result.validation_loss * many_rows.loss_unit == pytest.approx(float(losses.mean()), rel=1e-5)
        parts = [part.mean() for part in np.array_split(losses, len(result.curve.portions[-1]))]
        np.testing.assert_allclose(result.curve.portions[-1] * many_rows.loss_unit, parts, rtol=1e-4)


def test_its_curve_keeps_its_shape_and_what_was_trained_is_the_same(many_rows: Experiment) -> None:
    for bare, looked in zip(*(confirmed(many_rows, SMALL, last) for last in (False, True)), strict=True):
        factor = looked.validation_loss / bare.validation_loss
        np.testing.assert_allclose(looked.curve.validation_loss, np.array(bare.curve.validation_loss) * factor)
        np.testing.assert_allclose(looked.curve.last_validation_loss, np.array(bare.curve.last_validation_loss) * factor)
        assert looked.curve.train_loss == bare.curve.train_loss
        assert all((looked.weights[name] == bare.weights[name]).all() for name in bare.weights)


def test_the_rows_share_of_what_is_uncertain_between_settings_shrinks_with_it(many_rows: Experiment) -> None:
    scatter = {}
    for last in (False, True):
        own, other = (np.array([result.curve.portions[-1] for result in confirmed(many_rows, setting, last)]) for setting in (SMALL, LARGE))
        scatter[last], _ = variance_over_rows(own / own.mean() - other / other.mean())
    assert scatter[True] < scatter[False] / 2


def test_without_a_limit_it_goes_by_all_rows_and_with_one_by_as_many_as_a_training_is_worth(many_rows: Experiment) -> None:
    worker, held_out = worker_of(many_rows), len(many_rows.data.validation_target)
    standings = standing(entry(SMALL, flat(1.0)))
    worker = replace(worker, fresh_data=sampled(worker.fresh_data, FEW, 0))
    whole = worker.confirming(standings, look_seconds=0.0)
    assert whole.last_data is not None
    assert len(whole.last_data.validation_target) == held_out
    assert whole.looked_at_in_confirming == CONFIRMING_LOOKS * FEW + held_out
    dear = worker.confirming(standings, look_seconds=1e9)
    assert dear.last_data is not None
    assert len(dear.last_data.validation_target) == FEWEST_LOOKED_AT < held_out


def test_draws_that_divide_the_rows_look_at_their_own_alone(experiment: Experiments) -> None:
    assert worker_of(experiment()).confirming(standing(entry(SMALL, flat(1.0))), look_seconds=0.0).last_data is None


def test_it_goes_by_no_more_rows_than_memory_is_worth(many_rows: Experiment) -> None:
    data = many_rows.data
    assert most_rows(data) == len(data.validation_target)
    wide = replace(data, validation_features=data.validation_features[:, :1].expand(-1, LAST_VALUES // 100))
    assert most_rows(wide) == 100
    long = replace(
        data,
        validation_features=data.validation_features[:1].expand(2 * LAST_ROWS, -1),
        validation_target=data.target[:1].expand(2 * LAST_ROWS),
    )
    assert most_rows(long) == LAST_ROWS


def test_a_diverged_training_and_one_without_a_loss_stay_as_they_are(many_rows: Experiment) -> None:
    results = confirmed(many_rows, SMALL, last=False)
    gone = replace(results[0], diverged_at=3)
    nothing = replace(results[1], curve=replace(results[1].curve, validation_loss=[1.0, 0.0]))
    every = last_rows(many_rows.data, len(many_rows.data.validation_target), 0)
    found = looked_at_last(many_rows, every, SMALL, [gone, nothing, results[2]])
    assert found[:2] == [gone, nothing]
    assert found[2].validation_loss != results[2].validation_loss
