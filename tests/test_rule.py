"""What decides a search, as people write it: what is taken, and what is refused in one clear line."""

import math

import pytest

from batchlab.config import load_profile
from batchlab.engine.optimizers import Adam, AdamW, Sgd
from batchlab.errors import BadInput
from batchlab.search.space import Setting, first_settings, lines_of, optimizers_of


def test_without_a_word_a_search_tries_sgd_momentum_and_adamw_for_two_minutes() -> None:
    rule = load_profile("quick").search
    assert rule.optimizers == (Sgd(), Sgd(momentum=0.9), AdamW())
    assert (rule.objective, rule.margin, rule.max_minutes, rule.defaults) == ("best", 0.01, 2, True)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("search.optimizers=adamw", (AdamW(),)),
        ('search.optimizers="momentum"', (Sgd(momentum=0.9),)),
        ('search.optimizers=["adam", "sgd"]', (Adam(), Sgd())),
        ('search.optimizers={kind = "adam", beta1 = 0.8}', (Adam(beta1=0.8),)),
        ('search.optimizers=["sgd", {kind = "sgd", momentum = 0.5, nesterov = true}]', (Sgd(), Sgd(momentum=0.5, nesterov=True))),
        ("search.optimizers={momentum = 0.5}", (Sgd(momentum=0.5),)),
        ("search.optimizers.kind=adamw", (AdamW(),)),
    ],
)
def test_optimizers_are_named_one_or_several_or_written_as_tables_with_their_kind(override: str, expected: tuple[object, ...]) -> None:
    assert load_profile("quick", overrides=[override]).search.optimizers == expected


def test_an_optimizer_named_twice_is_tried_once_and_one_that_training_names_is_the_only_one() -> None:
    assert optimizers_of(load_profile("quick", overrides=['search.optimizers=["adam", "adam", "sgd"]'])) == (Adam(), Sgd())
    assert optimizers_of(load_profile("quick", overrides=["train.optimizer.kind=adam"])) == (Adam(),)


@pytest.mark.parametrize(("given", "expected"), [("[0.02, 0.5]", {0.02, 0.5}), ("0.15", {0.15})])
def test_given_learning_rates_are_the_only_ones_that_a_race_begins_with(given: str, expected: set[float]) -> None:
    profile = load_profile("quick", overrides=[f"train.learning_rate={given}"])
    settings = first_settings(profile, lines_of(profile, 1000))
    assert {item.learning_rate for item in settings if not item.typed} == expected
    assert len(settings) == len(set(settings))


def test_every_optimizer_begins_with_as_many_rates_as_asked_for_and_what_people_type_comes_first() -> None:
    profile = load_profile("quick", overrides=["search.rates=4", "search.batch_rows=[8, 64]"], strategies=["mini_batch"])
    settings = first_settings(profile, lines_of(profile, 1000))
    assert [item.typed for item in settings] == [True, True] + [False] * 2 * 3 * 4
    rates = sorted(item.learning_rate for item in settings if item.branch == settings[2].branch and not item.typed)
    assert rates == [0.03, 0.1, 0.3, 1.0]


def test_strategies_that_update_alike_share_their_settings() -> None:
    profile = load_profile("quick", overrides=["search.defaults=false"], strategies=["full_batch", "accumulated"])
    settings: tuple[Setting, ...] = first_settings(profile, lines_of(profile, 1000))
    assert len(settings) == 3 * 5
    assert len(lines_of(profile, 1000)) == 2


def test_a_search_may_be_without_a_limit() -> None:
    assert math.isinf(load_profile("quick", overrides=["search.max_minutes=inf"]).search.max_minutes)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("search.optimizers=adma", "optimizer 'adma' does not exist; did you mean 'adam'?"),
        ("search.optimizers=adma", "or a table with the kind (sgd, adam, adamw) and its settings"),
        ('search.optimizers=["sgd", "momentm"]', "optimizer 'momentm' does not exist; did you mean 'momentum'?"),
        ('search.optimizers={kind = "adma"}', "search.optimizers.0.kind 'adma' does not exist; did you mean 'adam'?"),
        ('search.optimizers={kind = "sgd", momentm = 0.1}', "key 'momentm' does not exist; did you mean 'momentum'?"),
        ('search.optimizers={kind = "sgd", momentum = 2}', "momentum: input should be less than 1 (got 2)"),
        ('search.optimizers={kind = "sgd", nesterov = true}', "nesterov needs a momentum above 0"),
        ("search.optimizers=[]", "search.optimizers: value should have at least 1 item"),
        ("search.optimizers=3", "search.optimizers.0 is a table, not a value"),
        ("search.margin=0", "search.margin: input should be greater than 0 (got 0)"),
        ("search.margin=1", "search.margin: input should be less than 1 (got 1)"),
        ("search.margin=-1", "search.margin: input should be greater than 0 (got -1)"),
        ("search.margin=2", "search.margin: input should be less than 1 (got 2)"),
        ("search.margin=nan", "search.margin: input should be a finite number"),
        ("search.margin=1%", "search.margin: input should be a valid number"),
        ("search.objective=test_loss", "search.objective: input should be 'best', 'time', 'rows', 'memory'"),
        ("search.rates=2", "search.rates: input should be greater than or equal to 3 (got 2)"),
        ("search.tuning_seeds=1", "search.tuning_seeds: input should be greater than or equal to 2 (got 1)"),
        ("search.seeds=1", "search.seeds: input should be greater than or equal to 2 (got 1)"),
        ("search.timings=5", "search.timings: input should be a multiple of 2 (got 5)"),
        ("search.max_minutes=0", "search.max_minutes: input should be greater than 0 (got 0)"),
        ("search.max_minutes=-1", "search.max_minutes: input should be greater than 0 (got -1)"),
        ("search.max_minutes=nan", "search.max_minutes: input should be"),
        ("search.target_loss=0", "search.target_loss: input should be greater than 0 (got 0)"),
        ("search.target_loss=inf", "search.target_loss: input should be a finite number"),
        ("search.batch_rows=[0]", "search.batch_rows.0: input should be greater than 0 (got 0)"),
        ("search.batch_rows=[]", "search.batch_rows: tuple should have at least 1 item"),
        ("search.rounds=3", "search: key 'rounds' does not exist. Valid: batch_rows, "),
        ("train.learning_rate=[]", "train.learning_rate: value should have at least 1 item"),
        ("train.learning_rate=[0.1, 0]", "train.learning_rate.1: input should be greater than 0 (got 0)"),
        ("train.learning_rate=fast", "train.learning_rate.0: input should be a valid number"),
    ],
)
def test_a_wrong_rule_is_refused_in_one_line_that_says_what_would_be_right(override: str, expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_profile("quick", overrides=[override])
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
