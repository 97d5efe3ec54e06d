"""Losses of one's own: trained with as with those there are, judged and told in their own unit, or refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import batchlab
from batchlab.config import Profile, load_profile
from batchlab.engine.backends.choice import uses_kernels
from batchlab.engine.loop import train
from batchlab.engine.own_loss import OwnLoss
from batchlab.engine.records import Trial
from batchlab.errors import BadInput
from batchlab.experiment import Experiment
from batchlab.rows.split import split
from batchlab.scoring.evaluation import row_losses
from batchlab.table import pack
from tests.conftest import SMALL
from tests.test_own_modules import LITTLE

HERE, CPU = __name__, torch.device("cpu")


def squared(predictions: Tensor, target: Tensor) -> Tensor:
    return (predictions - target) ** 2


def entropy(logits: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(logits, target, reduction="none")


def pinball(predictions: Tensor, target: Tensor) -> Tensor:
    """Nine of ten targets lie below what is predicted."""
    error = target - predictions
    return torch.maximum(0.9 * error, -0.1 * error)


def focal(logits: Tensor, target: Tensor) -> Tensor:
    loss = entropy(logits, target)
    return loss * (1 - torch.exp(-loss)) ** 2


def experiment_of(data: str, tables: Path, *overrides: str) -> Experiment:
    settings = load_profile("quick", data=data, overrides=["train.precision=float64", "train.epochs=3", *overrides])
    table = pack(settings.source, settings.named_columns(), tables, settings.seed)
    return Experiment(settings, table, split(table, settings.split, settings.seed))


@pytest.mark.parametrize("model", ["model.kind=linear", "model.kind=mlp"])
def test_squares_written_by_oneself_train_as_those_that_are_there(model: str, tables: Path) -> None:
    mine, theirs = (
        experiment_of("diabetes", tables, model, "train.backend=torch", f"train.loss={loss}") for loss in (f"{HERE}:squared", "mse")
    )
    assert not uses_kernels(mine.model, mine.profile.train.model_copy(update={"backend": "auto"}), CPU, 16)
    weights, losses = [], []
    for experiment in (mine, theirs):
        trials = [Trial(0.02, seed) for seed in range(3)]
        plan, strategy = experiment.profile.train, experiment.profile.strategies["mini_batch"]
        results = train(experiment.data, experiment.model, strategy, trials, plan, experiment.loss, CPU)
        weights.append([np.concatenate([value.ravel() for value in result.weights.values()]) for result in results])
        losses.append([result.validation_loss * experiment.loss_unit for result in results])
    assert mine.loss_unit == pytest.approx(theirs.loss_unit)
    np.testing.assert_allclose(weights[0], weights[1], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)


def test_a_loss_of_classes_is_divided_by_what_their_shares_cost(tables: Path) -> None:
    mine, theirs = (experiment_of("wine", tables, f"train.loss={loss}") for loss in (f"{HERE}:entropy", "cross_entropy"))
    outputs, target = torch.randn(2, 40, 3, dtype=torch.float64), torch.randint(3, (2, 40))
    torch.testing.assert_close(mine.loss.per_row(outputs, target) * mine.loss_unit, theirs.loss.per_row(outputs, target))
    probabilities, truth = outputs[0].softmax(-1).numpy(), target[0].numpy()
    np.testing.assert_allclose(row_losses(truth, probabilities, mine.loss, 1.0), row_losses(truth, probabilities, theirs.loss, 1.0))


def frame(rows: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((rows, 3))
    return pd.DataFrame(features, columns=["a", "b", "c"]).assign(y=1000 + 50 * features[:, 0] + 20 * rng.standard_normal(rows))


def test_a_quantile_is_learnt_and_told_in_the_losss_own_unit() -> None:
    overrides = [*LITTLE["overrides"], "train.epochs=20", "train.learning_rate=[0.1]", "train.optimizer.kind=adamw"]
    found = batchlab.compare(frame(), "y", loss=pinball, strategies=["mini_batch"], **{**LITTLE, "overrides": overrides})
    verdict, experiment = found.verdict, found.search.experiment
    best = found.search.findings.best
    assert best is not None
    assert verdict.loss is not None
    assert experiment.loss_unit_name == "pinball"
    model = experiment.ship(best.shown)
    rows = experiment.split.test
    predictions = model(torch.from_numpy(np.asarray(experiment.table.features[rows]))).detach().numpy()[:, 0]
    truth = experiment.table.target[rows]
    assert np.mean(truth < predictions) > 0.75
    own = np.maximum(0.9 * (truth - predictions), 0.1 * (predictions - truth))
    assert experiment.losses(rows, predictions[:, None].astype(float)).mean() == pytest.approx(own.mean(), rel=1e-4)
    assert verdict.loss == pytest.approx(20 * 0.1755, rel=0.35)  # the pinball loss of normal noise about its own quantile
    assert experiment.profile.train.loss == f"{HERE}:pinball"
    assert f"from {HERE} import pinball" in verdict.code("torch")


@pytest.mark.parametrize(("data", "loss", "outputs"), [("diabetes", "pinball", 1), ("wine", "focal", 3)])
def test_the_code_that_is_printed_trains_with_it(data: str, loss: str, outputs: int, tables: Path) -> None:
    from batchlab.report.wording import verdict_text
    from batchlab.search.records import verdict_of
    from batchlab.search.search import Search

    few = ("train.epochs=2", "train.precision=float32", f"train.loss={HERE}:{loss}", "search.rates=3", "search.defaults=false", *SMALL)
    settings = load_profile("quick", data=data, strategies=["mini_batch"], overrides=[*few, "search.optimizers=['sgd']"])
    table = pack(settings.source, settings.named_columns(), tables, settings.seed)
    search = Search(Experiment(settings, table, split(table, settings.split, settings.seed)))
    for part in search.parts():
        if not part.label.startswith(("first look", "race", "confirm")):
            break
        part.run()
    verdict = verdict_of(search.findings, verdict_text(search.findings))
    experiment = search.experiment
    namespace: dict[str, Any] = {"X": experiment.data.features.numpy(), "y": experiment.data.target.numpy()}
    code = verdict.code("torch")
    exec(compile(code, "snippet", "exec"), namespace)
    held = experiment.data.validation_features, experiment.data.validation_target
    with torch.no_grad():
        found = namespace["model"](held[0])
    assert found.shape == (len(held[1]), outputs)
    assert float(experiment.loss.per_row(found, held[1]).mean()) < 1.1 * experiment.constant_loss
    with pytest.raises(BadInput, match="take the code for torch or lightning"):
        verdict.code("skorch")


def scalar(predictions: Tensor, target: Tensor) -> Tensor:
    return ((predictions - target) ** 2).mean()


def mixing(predictions: Tensor, target: Tensor) -> Tensor:
    return (predictions - target) ** 2 / (predictions - target).abs().mean()


def flat(predictions: Tensor, target: Tensor) -> Tensor:
    return (predictions > target).float()


def negative(predictions: Tensor, target: Tensor) -> Tensor:
    return -predictions * target


def branching(predictions: Tensor, target: Tensor) -> Tensor:
    return (predictions - target) ** 2 if predictions.max().item() > -1e9 else predictions


def failing(predictions: Tensor, target: Tensor) -> Tensor:
    raise ValueError("no price")


def hinge(logits: Tensor, target: Tensor) -> Tensor:
    return functional.relu(1 - logits.gather(1, target[:, None])[:, 0])


REFUSED: list[tuple[Callable[..., Any], str]] = [
    (scalar, r"returned a tensor \(\); it must return a loss for every row, \(16,\); leave the mean to the training"),
    (mixing, "another loss where it stands beside others"),
    (flat, "no finite slope in the predictions"),
    (negative, "must be finite and never below 0"),
    (branching, "let no branch depend on values: torch.where"),
    (failing, r"raised ValueError: no price. It was called with \(16,\) predictions and \(16,\) targets"),
    (lambda predictions, target: 3, "returned a int"),
]


@pytest.mark.parametrize(("loss", "said"), REFUSED)
def test_a_loss_that_cannot_be_trained_with_is_refused_by_name(loss: Callable[..., Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        batchlab.compare(frame(), "y", loss=loss, **LITTLE)


def test_of_classes_a_loss_must_go_by_softmax() -> None:
    classes = frame().assign(y=lambda rows: np.where(rows["y"] > 1000, "up", "down"))
    with pytest.raises(BadInput, match="must go by softmax, since models give probabilities"):
        batchlab.compare(classes, "y", loss=hinge, **LITTLE)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("msee", "train.loss: 'msee' does not exist; did you mean 'mse'"),
        (f"{HERE}:pinbal", "did you mean 'pinball'"),
        ("nowhere:loss", "train.loss 'nowhere:loss' cannot be imported"),
        ("cross_entropy", "does not fit task regression"),
        (3, "loss is int; give a function"),
    ],
)
def test_what_is_no_loss_is_refused(given: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        batchlab.compare(frame(), "y", loss=given, **LITTLE)


def test_a_profile_that_names_a_loss_by_itself_runs_no_code(tmp_path: Path) -> None:
    path = tmp_path / "theirs.toml"
    path.write_text(f'[train]\nloss = "{HERE}:pinball"\n\n[strategies.mini_batch]\n')
    with pytest.raises(BadInput, match=r"runs code: train.loss is .* If you trust it, say so"):
        load_profile(str(path))
    trusted: Profile = load_profile(str(path), overrides=[f"train.loss={HERE}:pinball"])
    assert trusted.train.loss == f"{HERE}:pinball"
    path.write_text('[train]\nloss = "huber"\n\n[strategies.mini_batch]\n')
    assert load_profile(str(path)).train.loss == "huber"


def test_kernels_are_not_asked_for_what_they_do_not_know(tables: Path) -> None:
    experiment = experiment_of("diabetes", tables, f"train.loss={HERE}:pinball", "train.backend=kernels")
    with pytest.raises(BadInput, match="linear with a loss of your own"):
        experiment.check()


def test_losses_of_a_constant_target_are_not_divided_by_nothing() -> None:
    assert OwnLoss(squared).fitted("squared", np.full(20, 5.0), 5.0, 1.0, 0).unit == 1.0


def test_an_edited_loss_does_not_go_on_from_where_another_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.unfinished import settings_of

    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "loss_that_is_edited.py"
    path.write_text("def loss(predictions, target):\n    return abs(predictions - target)\n")
    settings = load_profile("quick", overrides=["train.loss=loss_that_is_edited:loss"])
    before = settings_of(settings)
    path.write_text("def loss(predictions, target):\n    return (predictions - target) ** 2\n")
    assert settings_of(settings) != before
    assert settings_of(load_profile("quick")) == settings_of(load_profile("quick"))
