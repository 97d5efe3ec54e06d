"""The profile: defaults < TOML < overrides, and errors that name the nearest valid key."""

from collections.abc import Callable
from pathlib import Path

import pytest

from batchlab.config import load_profile
from batchlab.errors import BadInput
from batchlab.experiment import Experiment


@pytest.mark.parametrize("name", ["lesson", "lesson-raw", "quick", "full"])
def test_every_shipped_profile_loads(name: str) -> None:
    assert {"full_batch", "accumulated", "mini_batch", "stochastic", "data_loader"} <= set(load_profile(name).strategies)


@pytest.mark.parametrize("profile", ["quick", "full"])
@pytest.mark.parametrize("data", ["diabetes", "breast_cancer", "digits", "wine"])
def test_every_shipped_profile_can_train_on_every_bundled_data_set(profile: str, data: str, experiment: Callable[..., Experiment]) -> None:
    experiment(profile, data=data).check()


def test_the_lesson_is_the_notebooks_problem() -> None:
    lesson, raw = load_profile("lesson"), load_profile("lesson-raw")
    assert (lesson.source.model_dump()["rows"], lesson.train.epochs, raw.train.learning_rate) == (100, 1000, (0.01,))
    assert (lesson.search.batch_rows, raw.strategies["mini_batch"].rows_per_step(100)) == ((5, 10, 25, 50), 10)
    assert lesson.split.kind == "in_sample"
    assert (lesson.scale, raw.scale, lesson.train.optimizer, lesson.source) == (True, False, raw.train.optimizer, raw.source)


def test_overrides_win_over_the_file_and_the_file_over_defaults(scratch: Path) -> None:
    (scratch / "mine.toml").write_text("train = { epochs = 7, evaluations = 3 }\nstrategies = { full_batch = {} }\n")
    profile = load_profile("mine.toml", overrides=["train.epochs=9"])
    assert (profile.train.epochs, profile.train.evaluations, profile.train.loss) == (9, 3, "auto")


def test_changing_a_kind_starts_from_that_kinds_defaults() -> None:
    overrides = ["train.optimizer.momentum=0.9", "train.optimizer.kind=adam", "train.optimizer.weight_decay=0.1"]
    optimizer = load_profile("quick", overrides=overrides).train.optimizer
    assert (optimizer.kind, optimizer.weight_decay) == ("adam", 0.1)


def test_a_default_kind_takes_settings_without_naming_it() -> None:
    optimizer = load_profile("quick", overrides=["train.optimizer.momentum=0.9", "train.optimizer.nesterov=true"]).train.optimizer
    assert optimizer.model_dump() == {"kind": "sgd", "weight_decay": 0.0, "momentum": 0.9, "nesterov": True}


def test_strategies_are_chosen_by_name_from_the_profile_or_by_kind() -> None:
    profile = load_profile("lesson-raw", strategies=["mini_batch", "stochastic"])
    assert list(profile.strategies) == ["mini_batch", "stochastic"]
    assert profile.strategies["mini_batch"].rows_per_step(100) == 10


def test_a_setting_of_a_strategy_that_was_not_chosen_does_not_bring_it_in() -> None:
    profile = load_profile(
        "quick", strategies=["wide"], overrides=["strategies.wide.kind=mini_batch", "strategies.stochastic.kind=stochastic"]
    )
    assert list(profile.strategies) == ["wide"]


def test_one_learning_rate_or_several_are_taken() -> None:
    assert load_profile("quick", overrides=["train.learning_rate=0.5"]).train.learning_rate == (0.5,)
    assert load_profile("quick", overrides=["train.learning_rate=[0.1, 0.2]"]).train.learning_rate == (0.1, 0.2)


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ({"name": "leson"}, "profile 'leson' does not exist; did you mean 'lesson'?"),
        ({"name": "gone.toml"}, "profile file 'gone.toml' does not exist"),
        ({"overrides": ["train.epoch=3"]}, "train: key 'epoch' does not exist; did you mean 'epochs'?"),
        ({"overrides": ["trian.epochs=3"]}, "key 'trian' does not exist; did you mean 'train'?"),
        ({"overrides": ["train.epochs=0"]}, "train.epochs: input should be greater than 0 (got 0)"),
        ({"overrides": ["train.learning_rate=[0.1, -1]"]}, "train.learning_rate.1: input should be greater than 0 (got -1)"),
        ({"overrides": ["model.kind=mpl"]}, "model.kind 'mpl' does not exist; did you mean 'mlp'?"),
        ({"overrides": ["train.optimizer.kind=adma"]}, "train.optimizer.kind 'adma' does not exist; did you mean 'adam'?"),
        ({"overrides": ["train.optimizer.nesterov=true"]}, "nesterov needs a momentum above 0"),
        ({"overrides": ["device=gpu"]}, "device: input should be 'auto', 'cpu', 'cuda' or 'mps' (got 'gpu')"),
        ({"overrides": ["strategies.mini_batch.batch_row=3"]}, "strategies.mini_batch: key 'batch_row' does not exist; did you mean"),
        ({"overrides": ["epochs"]}, "--set takes key=value"),
        ({"strategies": ["minibatch"]}, "strategy 'minibatch' does not exist; did you mean 'mini_batch'?"),
        ({"strategies": []}, "no strategy was named"),
        ({"overrides": ["model=mlp"]}, "model is a table, not a value; set one of its keys, for example model.kind=…"),
        ({"overrides": ["train.learning_rate=inf"]}, "train.learning_rate.0: input should be a finite number"),
        ({"overrides": ["strategies.'a|b'.kind=stochastic"]}, "should match pattern"),
        ({"seed": 2**80}, "seed: input should be less than"),
        ({"data": ""}, "--data is empty"),
        ({"data": "diabtes"}, "did you mean 'diabetes'?"),
        ({"task": "regresion"}, "task: input should be 'auto', 'regression', 'binary' or 'multiclass'"),
        ({"seed": -1}, "seed: input should be greater than or equal to 0 (got -1)"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line_that_names_the_right_one(choices: dict[str, object], expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_profile(**choices)  # type: ignore[arg-type]
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
