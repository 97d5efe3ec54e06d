"""A challenger on a table that grew: which rows train and judge it, what it starts from, and the champion on the same rows."""

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from batchlab.config import Profile, load_profile
from batchlab.engine.records import Progress
from batchlab.errors import BadInput, UnknownName
from batchlab.experiment import Experiment
from batchlab.retraining import saved
from batchlab.retraining.carrying import carried, relaid
from batchlab.retraining.challenger import Challenger, challenged
from batchlab.retraining.dividing import NotYet, held_out, retraining_split, update_split, windows
from batchlab.retraining.fresh import Mark, Stretch, check_not_ahead, fresh_count, mark_of, reference_rows, rows_within, unusable_share
from batchlab.retraining.judging import Registered, judged, labels_of
from batchlab.retraining.recipe import asked_of, followed
from batchlab.retraining.saved import Lineage, Saved
from batchlab.retraining.staleness import check_same, stale_reasons
from batchlab.rows.assigning import TEST, TRAIN, UNUSED, VALIDATION
from batchlab.scoring.shipping import export, predicted, shipped
from batchlab.search.keeping import Kept
from batchlab.serving.batchlab_serving import Served, _load_pyfunc
from batchlab.table import PackedTable, pack
from tests.test_halts import Killed, killed_after

RECIPE = {
    "strategies": {"mini_batch": {"kind": "mini_batch", "batch_rows": 32}},
    "train": {"optimizer": {"kind": "sgd"}, "learning_rate": [0.05]},
}


def rows(count: int, start: str, seed: int, places: list[str], slope: float = 2.0, classes: list[str] | None = None) -> pd.DataFrame:
    """Rows an hour: numbers with gaps, a large number, a boolean, a category, and a target that follows them."""
    rng = np.random.default_rng(seed)
    x, level, place = rng.normal(size=count), rng.normal(size=count) + 0.3 * seed, rng.choice(places, count)
    y = slope * x + level + 3 * (place == places[0]) + rng.normal(size=count)
    frame = pd.DataFrame({"day": pd.date_range(start, periods=count, freq="h"), "x": np.where(rng.random(count) < 0.05, np.nan, x)})
    frame["level"], frame["open"], frame["place"] = level * 1e3 + 1.6e9, rng.random(count) < 0.5, place
    frame["y"] = y if classes is None else np.array(classes)[np.clip(np.digitize(y, [0.0, 3.0]), 0, len(classes) - 1)]
    return frame


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.mkdir()
    return made


def packed(folder: Path, *overrides: str, time: str | None = "day") -> tuple[Profile, PackedTable]:
    timed = [f'columns.time="{time}"'] if time else []
    settings = load_profile("nightly", data=str(folder), target="y", overrides=[*timed, "train.epochs=5", *overrides])
    table = pack(settings.source, settings.named_columns(), folder.parent / "tables", settings.seed, settings.checks)
    return followed(settings, RECIPE), table


def champion_of(folder: Path, profile: Profile, table: PackedTable) -> tuple[Challenger, Registered, Served]:
    """Train, save and open a first model, as the registry does."""
    split = retraining_split(table, profile, None)
    trained = challenged(profile, table, split, None, seed=0)
    place = folder.parent / f"model-{table.schema.digest}"
    place.mkdir()
    lineage = Lineage(
        recipe=RECIPE,
        asked=asked_of(profile),
        compared_rows=split.sizes()["train"],
        comparison_run_id="run",
        hardware={"cores": 2},
        mark=mark_of(table),
        held_out=held_out(table, split),
        classes=table.schema.target.classes,
    )
    export(trained.experiment.ship(trained.shipped), table.schema.columns, place)
    saved.save(place, trained.experiment.preparation, trained.shipped.weights, lineage)
    served = _load_pyfunc(str(place))
    return trained, Registered(saved.opened(place), served.graph, 1, 1000), served


def test_a_first_model_holds_out_the_latest_rows_and_a_retraining_the_latest_of_the_fresh_ones(folder: Path) -> None:
    rows(1000, "2020-01-01", 0, ["a", "b"]).to_parquet(folder / "1.parquet")
    profile, table = packed(folder)
    first = retraining_split(table, profile, None)
    assert first.sizes() == {"train": 722, "validation": 128, "test": 150}
    assert (first.labels[-150:] == TEST).all()
    mark = mark_of(table)
    assert (mark.rows, mark.newest, mark.last) == (1000, table.side_column("time")[-1], table.side_column("time")[-1])  # type: ignore[index]
    assert len(rows_within(table, held_out(table, first))) == 150
    rows(600, "2020-03-01", 1, ["a", "b"]).to_parquet(folder / "0-later-though-its-name-is-first.parquet")
    _, grown = packed(folder)
    assert fresh_count(grown, mark) == 600
    second = retraining_split(grown, profile, mark)
    assert second.sizes() == {"train": 1105, "validation": 195, "test": 300}
    assert (second.labels[300:600] == TEST).all()  # the file that is first holds the latest rows
    assert set(reference_rows(grown, mark, 100)) == set(range(600, 1600))
    assert len(rows_within(grown, held_out(table, first))) == 150


@pytest.mark.parametrize("classes", [None, ["low", "mid"]])
def test_without_a_time_column_the_order_of_rows_tells_which_are_fresh(folder: Path, classes: list[str] | None) -> None:
    frame = rows(900, "2020-01-01", 0, ["a", "b"], classes=classes).drop(columns="day")
    frame[:500].to_parquet(folder / "1.parquet")
    profile, table = packed(folder, time=None)
    mark = mark_of(table)
    assert (mark.newest, mark.last) == (None, 499)
    if classes:
        frame.loc[510:515, "y"] = "a class that sorts before the others"
    frame[500:].to_parquet(folder / "2.parquet")
    _, grown = packed(folder, time=None)
    assert fresh_count(grown, mark) == 400
    assert retraining_split(grown, profile, mark).test.tolist() == list(range(700, 900))
    frame[:50].to_parquet(folder / "0.parquet")
    _, shuffled = packed(folder, time=None)
    with pytest.raises(BadInput, match="the first 500 rows are not those of the last decision"):
        fresh_count(shuffled, mark)


def test_an_update_trains_on_fresh_rows_and_as_many_old_ones_as_replay_says(folder: Path) -> None:
    rows(1000, "2020-01-01", 0, ["a", "b"]).to_parquet(folder / "1.parquet")
    profile, table = packed(folder, "retraining.replay=0.5", 'split.embargo="5h"')
    mark = mark_of(table)
    rows(600, "2020-03-01", 1, ["a", "b"]).to_parquet(folder / "2.parquet")
    _, grown = packed(folder)
    labels = update_split(grown, profile, mark, seed=0).labels
    fresh, old = labels[1000:], labels[:1000]
    assert (fresh == TEST).sum() == 300
    assert (fresh == VALIDATION).sum() == 45 - 5
    assert (fresh == TRAIN).sum() == 255 - 5
    assert (fresh == UNUSED).sum() == 10
    assert ((old == TRAIN).sum(), (old == UNUSED).sum()) == (125, 875)
    again, other = (update_split(grown, profile, mark, seed).digest for seed in (0, 1))
    assert again == update_split(grown, profile, mark, seed=0).digest != other


def test_replay_spares_the_old_holdout_and_keeps_every_class(folder: Path) -> None:
    frame = rows(1000, "2020-01-01", 0, ["a", "b"], classes=["low", "mid"])
    frame.loc[:9, "y"] = "rare"
    frame.to_parquet(folder / "1.parquet")
    profile, table = packed(folder, "retraining.replay=0")
    mark, stretch = mark_of(table), held_out(table, retraining_split(table, profile, None))
    rows(400, "2020-03-01", 1, ["a", "b"], classes=["low", "mid"]).to_parquet(folder / "2.parquet")
    _, grown = packed(folder)
    assert np.flatnonzero(update_split(grown, profile, mark, 0, stretch).labels[:1000] == TRAIN).tolist() == [9]
    replaying = profile.model_copy(update={"retraining": profile.retraining.model_copy(update={"replay": 100.0})})
    labels = update_split(grown, replaying, mark, 0, stretch).labels
    assert (labels[:850] == TRAIN).all()
    assert (labels[850:1000] == UNUSED).all()


def days(count: int, start: str, a_day: int, seed: int) -> pd.DataFrame:
    """Rows that bear their day only."""
    return rows(count * a_day, start, seed, ["a", "b"]).assign(day=pd.date_range(start, periods=count).repeat(a_day))


def test_rows_of_one_day_all_judge_and_what_cannot_be_divided_waits(folder: Path) -> None:
    days(6, "2020-01-01", 1500, 0).to_parquet(folder / "1.parquet")
    profile, table = packed(folder)
    mark = mark_of(table)
    days(1, "2020-01-07", 1500, 1).to_parquet(folder / "2.parquet")
    _, grown = packed(folder)
    assert retraining_split(grown, profile, mark).sizes() == {"train": 7500, "validation": 1500, "test": 1500}
    with pytest.raises(NotYet, match="of 10,500 rows 0 / 0 / 1,500 can train / validate / judge, since those of one time stay together"):
        update_split(grown, profile, mark, 0)
    days(4, "2020-01-08", 1000, 2).to_parquet(folder / "3.parquet")
    _, grown = packed(folder)
    assert update_split(grown, profile, mark, 0).sizes() == {"train": 3000, "validation": 1000, "test": 3000}
    far, _ = packed(folder, 'split.embargo="9 days"')
    with pytest.raises(NotYet, match=r"0 / 3,000 can .* or change .* or split.embargo \(9 days\)"):
        retraining_split(grown, far, mark)


def test_a_class_that_only_judges_waits_for_rows_that_train(folder: Path) -> None:
    frame = rows(1000, "2020-01-01", 0, ["a", "b"], classes=["low", "mid"])
    frame.loc[997:, "y"] = "new"
    frame.to_parquet(folder / "1.parquet")
    profile, table = packed(folder)
    with pytest.raises(NotYet, match="no row that trains is of class 'new', which 3 of the later rows are; mend them"):
        retraining_split(table, profile, None)


def test_a_mark_of_another_kind_of_time_tells_nothing(folder: Path) -> None:
    rows(500, "2020-01-01", 0, ["a", "b"]).to_parquet(folder / "1.parquet")
    (_, dated), (_, standing) = packed(folder), packed(folder, time=None)
    by_date, by_row = mark_of(dated), mark_of(standing)
    with pytest.raises(BadInput, match="went by the order of rows, the table goes by dates"):
        fresh_count(dated, by_row)
    with pytest.raises(BadInput, match="went by dates, the table goes by the order of rows"):
        fresh_count(standing, by_date)
    with pytest.raises(BadInput, match="went by a time in numbers, the table goes by dates"):
        fresh_count(dated, by_date.model_copy(update={"dated": False}))
    assert (by_date.text, by_row.text) == ("2020-01-21 19:00:00", "row 500")


def test_rows_that_are_dated_ahead_are_refused(folder: Path) -> None:
    frame = rows(500, "2020-01-01", 0, ["a", "b"])
    frame.loc[499, "day"] = pd.Timestamp("2206-01-01")
    frame.to_parquet(folder / "1.parquet")
    _, table = packed(folder)
    now = datetime(2020, 6, 1, tzinfo=UTC)
    with pytest.raises(BadInput, match=r"1 of 500 rows are dated after 2020-06-02, up to 2206-01-01: .* retraining\.days_ahead"):
        check_not_ahead(table, 1, now)
    check_not_ahead(table, 1e5, now)
    check_not_ahead(packed(folder, time=None)[1], 1, now)


def test_unusable_rows_are_counted_since_the_mark(folder: Path) -> None:
    def spoilt(frame: pd.DataFrame, count: int) -> pd.DataFrame:
        return frame.assign(y=frame["y"].where(np.arange(len(frame)) >= count, np.inf))

    spoilt(rows(1000, "2020-01-01", 0, ["a", "b"]), 10).to_parquet(folder / "1.parquet")
    _, table = packed(folder)
    mark = mark_of(table)
    assert (mark.quarantined, unusable_share(table, None)) == (10, 0.01)
    spoilt(rows(200, "2020-03-01", 1, ["a", "b"]), 40).to_parquet(folder / "2.parquet")
    _, grown = packed(folder)
    assert unusable_share(grown, mark) == 0.2
    assert unusable_share(grown, mark.model_copy(update={"quarantined": None})) == 50 / 1200


def test_what_has_drifted_is_no_reference_any_more(folder: Path) -> None:
    rows(2000, "2020-01-01", 0, ["a", "b"]).to_parquet(folder / "1.parquet")
    _, table = packed(folder)
    mark = mark_of(table)
    assert len(reference_rows(table, mark, 5000)) == 2000
    since = mark.model_copy(update={"since": float(table.side_column("time")[1699])})  # type: ignore[index]
    assert reference_rows(table, since, 5000).tolist() == list(range(1700, 2000))


def test_a_champion_predicts_the_same_for_raw_rows_and_for_rows_packed_in_another_table(folder: Path) -> None:
    rows(1000, "2020-01-01", 0, ["a", "b"]).to_parquet(folder / "1.parquet")
    profile, table = packed(folder)
    trained, champion, served = champion_of(folder, profile, table)
    later = rows(600, "2020-03-01", 5, ["zz", "b", "0"])
    later.to_parquet(folder / "0.parquet")
    _, grown = packed(folder)
    assert grown.schema.columns != table.schema.columns  # another vocabulary in another order, another offset
    raw = pd.concat([later, pd.read_parquet(folder / "1.parquet")])
    expected = served.predict(raw)
    every = np.arange(1600)
    np.testing.assert_allclose(champion.predicted(grown, every), expected, atol=1e-6)
    preparation = carried(champion.saved.preparation, champion.saved.columns, grown.schema.columns)
    moved = shipped(profile.model, trained.experiment.shape, champion.saved.weights, preparation, False)
    np.testing.assert_allclose(predicted(moved, grown.seen, every), expected, atol=1e-6)
    np.testing.assert_array_equal(relaid(table.features, table.schema.columns, table.schema.columns), table.features)


def test_a_column_that_is_gone_or_holds_something_else_is_named(folder: Path) -> None:
    rows(1000, "2020-01-01", 0, ["a", "b"]).to_parquet(folder / "1.parquet")
    profile, table = packed(folder)
    _, champion, _ = champion_of(folder, profile, table)
    columns = [column for column in table.schema.columns if column.name != "x"]
    columns = [replace(column, kind="number", vocabulary=()) if column.name == "place" else column for column in columns]
    with pytest.raises(BadInput, match="column 'x' is missing; column 'place' holds number values, the model was trained on category ones"):
        relaid(table.features, champion.saved.columns, columns)
    with pytest.raises(BadInput, match="column 'x' is missing"):
        carried(champion.saved.preparation, champion.saved.columns, columns)
    with pytest.raises(UnknownName, match="did you mean 'place'"):
        labels_of(table, "plac", np.arange(3))
    assert labels_of(table, "place", np.arange(3)) == pd.read_parquet(folder / "1.parquet")["place"][:3].tolist()


@pytest.mark.parametrize("backend", ["kernels", "torch"])
@pytest.mark.parametrize("model", ["linear", "mlp"])
def test_a_warm_start_begins_where_the_champion_is(folder: Path, backend: str, model: str) -> None:
    rows(1000, "2020-01-01", 0, ["a", "b"]).to_parquet(folder / "1.parquet")
    profile, table = packed(folder, f"model.kind={model}", f"train.backend={backend}", "retraining.start=warm", "retraining.seeds=2")
    _, champion, _ = champion_of(folder, profile, table)
    rows(600, "2020-03-01", 1, ["zz", "b", "a"]).to_parquet(folder / "2.parquet")
    _, grown = packed(folder, f"model.kind={model}")
    split = retraining_split(grown, profile, mark_of(table))
    warm = challenged(profile, grown, split, champion.saved, seed=0)
    assert warm.start == "warm"
    assert len({result.trial.seed for result in warm.results}) == 2
    experiment = warm.experiment
    own = experiment.ship(warm.shipped)
    begun = shipped(experiment.model, experiment.shape, champion.saved.weights, experiment.preparation, False)
    with torch.no_grad():
        truth = grown.target[split.validation]
        outputs = predicted(begun, grown.seen, split.validation)[:, 0]
    first = np.mean((outputs - truth) ** 2) / experiment.loss_unit
    assert warm.shipped.curve.validation_loss[0] == pytest.approx(first, rel=1e-4)
    assert not np.array_equal(predicted(own, grown.seen, split.validation)[:, 0], outputs)


def test_a_challenger_that_is_killed_while_it_trains_goes_on_and_ends_as_an_undisturbed_one(folder: Path, tmp_path: Path) -> None:
    rows(1000, "2020-01-01", 0, ["a", "b"]).to_parquet(folder / "1.parquet")
    profile, table = packed(folder, "retraining.seeds=2")
    _, champion, _ = champion_of(folder, profile, table)
    rows(600, "2020-03-01", 1, ["a", "b"]).to_parquet(folder / "2.parquet")
    _, grown = packed(folder)
    split = retraining_split(grown, profile, mark_of(table))
    parts = list(windows(split, grown, profile, mark_of(table)))

    def once(on_progress: Callable[[Progress], None], keeper: Kept | None) -> Challenger:
        return challenged(profile, grown, split, champion.saved, 0, on_progress, windows=parts, keeper=keeper)

    whole, lives = once(lambda progress: None, None), 0
    calls = 3 + len(parts) + 2  # each training that had come to its end tells of that again
    again = None
    while again is None and lives < 50:
        keeper = Kept(tmp_path / "state", lambda text: None, least_seconds=0.0, share=math.inf)
        try:
            again = once(killed_after(calls), keeper)
        except Killed:
            lives += 1
    assert again is not None
    assert lives > 1
    assert (again.start, again.remarks, again.train_rows) == (whole.start, whole.remarks, whole.train_rows)
    np.testing.assert_array_equal(again.validation_losses, whole.validation_losses)
    for name, weights in whole.shipped.weights.items():
        np.testing.assert_array_equal(again.shipped.weights[name], weights)


def test_the_better_start_is_measured_and_one_that_is_impossible_is_said(folder: Path) -> None:
    rows(1000, "2020-01-01", 0, ["a", "b"]).to_parquet(folder / "1.parquet")
    profile, table = packed(folder)
    _, champion, _ = champion_of(folder, profile, table)
    split = retraining_split(table, profile, None)
    measured = challenged(profile, table, split, champion.saved, seed=1)
    (remark,) = measured.remarks
    assert remark.startswith("mean validation loss over 8 seeds by start: scratch ")
    assert f"; taken: {measured.start} " in remark
    wider = profile.model_copy(update={"model": load_profile(overrides=["model.kind=mlp"]).model})
    other = challenged(wider, table, split, champion.saved, seed=1)
    assert other.start == "scratch"
    assert other.remarks == ("not from the champion's weights: the profile asks for something else than it was trained for: model.",)
    with pytest.raises(BadInput, match=r"the champion cannot be updated: the profile asks .*: model\. Retrain it instead"):
        challenged(wider, table, split, champion.saved, seed=1, only_warm=True)
    assert challenged(profile, table, split, champion.saved, seed=1, only_warm=True).start == "warm"
    unknown = replace(champion.saved, lineage=champion.saved.lineage.model_copy(update={"asked": {}}))
    assert challenged(wider, table, split, unknown, seed=1).remarks[0].startswith("not from the champion's weights: its weights are")


def test_a_class_that_the_champion_never_saw_costs_it_the_most_and_starts_the_challenger_from_scratch(folder: Path) -> None:
    rows(1000, "2020-01-01", 0, ["a", "b"], classes=["low", "mid"]).to_parquet(folder / "1.parquet")
    profile, table = packed(folder)
    _, champion, _ = champion_of(folder, profile, table)
    rows(800, "2020-03-01", 1, ["a", "b"], classes=["high", "low", "mid"]).to_parquet(folder / "2.parquet")
    _, grown = packed(folder)
    assert grown.schema.target.classes == ("high", "low", "mid")
    found = champion.predicted(grown, np.arange(1800))
    assert (found[:, 0] == 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)
    split = retraining_split(grown, profile, mark_of(table))
    trained = challenged(profile, grown, split, champion.saved, seed=0)
    assert trained.remarks == ("not from the champion's weights: its classes are low, mid, the table's high, low, mid.",)
    rival = replace(champion, saved=_saved_as(trained), graph=_graph(trained), number=2)
    promotion = judged(trained, rival, champion, None)
    assert promotion.decision == "promoted", promotion.reasons
    assert promotion.champion_loss is not None
    assert promotion.champion_loss > 100


def _saved_as(trained: Challenger) -> Saved:
    schema = trained.experiment.table.schema
    lineage = Lineage(
        recipe=RECIPE,
        asked={},
        compared_rows=1,
        comparison_run_id="",
        hardware={},
        mark=Mark(digest="", rows=1),
        held_out=held_out(trained.experiment.table, trained.experiment.split),
        classes=schema.target.classes,
    )
    return Saved(schema.columns, trained.experiment.preparation, trained.shipped.weights, lineage)


def _graph(trained: Challenger) -> torch.nn.Module:
    return trained.experiment.ship(trained.shipped)


def test_a_challenger_that_diverges_is_kept_out_with_the_reason(folder: Path) -> None:
    rows(1000, "2020-01-01", 0, ["a", "b"]).to_parquet(folder / "1.parquet")
    profile, table = packed(folder)
    _, champion, _ = champion_of(folder, profile, table)
    wild = profile.model_copy(update={"train": profile.train.model_copy(update={"learning_rate": (1e6,)})})
    split = retraining_split(table, profile, None)
    trained = challenged(wild, table, split, None, seed=0)
    assert trained.diverged
    rival = replace(champion, saved=_saved_as(trained), graph=_graph(trained), number=2)
    promotion = judged(trained, rival, champion, None)
    assert promotion.decision == "kept"
    assert promotion.failed[0].name == "finite"
    whole = challenged(profile, table, split, None, seed=0)
    one_lost = replace(whole, results=[*whole.results[:-1], replace(whole.results[-1], diverged_at=3)])
    told = judged(one_lost, replace(rival, graph=_graph(whole)), champion, None)
    assert told.text.startswith("The champion is kept. The challenger diverged: 1 of 8 mean losses of trainings with other seeds")
    assert not any("nothing to improve" in reason for reason in told.reasons)


def test_a_recommendation_is_stale_after_growth_on_other_hardware_and_for_another_question(folder: Path) -> None:
    rows(1000, "2020-01-01", 0, ["a", "b"]).to_parquet(folder / "1.parquet")
    profile, table = packed(folder)
    _, champion, _ = champion_of(folder, profile, table)
    lineage, rule, asked = champion.saved.lineage, profile.retraining.stale, asked_of(profile)
    assert stale_reasons(lineage, rule, 1443, None, {"cores": 2}, asked) == ()
    (growth,) = stale_reasons(lineage, rule, 1444, None, {"cores": 2}, asked)
    assert growth.startswith("1,444 rows train now, at least 2 times the 722 of the last comparison")
    (hardware,) = stale_reasons(lineage, rule, 722, None, {"cores": 16}, asked)
    assert hardware == "the hardware is another: cores was 2, is 16"
    (gone,) = stale_reasons(lineage.model_copy(update={"hardware": {"cores": 2, "gpu": "H200"}}), rule, 722, None, {"cores": 2}, asked)
    assert gone == "the hardware is another: gpu was H200, is None"
    (question,) = stale_reasons(lineage, rule, 722, None, {"cores": 2}, asked | {"model": {"kind": "mlp"}})
    assert question == "the profile asks for something else than at the last comparison: model"
    for override, part in (("device=cpu", "device"), ("search.objective=memory", "search"), ("search.max_minutes=1", None)):
        other = asked_of(packed(folder, override)[0])
        assert bool(stale_reasons(lineage, rule, 722, None, {"cores": 2}, other)) == (part is not None)


def test_a_model_of_another_target_time_or_place_is_another_model(folder: Path) -> None:
    rows(1000, "2020-01-01", 0, ["a", "b"]).to_parquet(folder / "1.parquet")
    profile, table = packed(folder)
    _, champion, _ = champion_of(folder, profile, table)
    lineage = champion.saved.lineage.model_copy(update={"target": "y", "source": profile.source.identity})
    check_same("m", lineage, profile, any_source=False)
    with pytest.raises(BadInput, match="model 'm' is another one: it predicts 'z', and the target is 'y'"):
        check_same("m", lineage.model_copy(update={"target": "z"}), profile, any_source=True)
    with pytest.raises(BadInput, match="its rows were ordered by 'day', and now as they stand"):
        check_same("m", lineage, packed(folder, time=None)[0], any_source=True)
    elsewhere = lineage.model_copy(update={"source": "parquet /elsewhere/data"})
    check_same("m", elsewhere, profile, any_source=True)
    with pytest.raises(BadInput, match=r"its rows came from 'parquet /elsewhere/data', and these are from '.*data' \(name it"):
        check_same("m", elsewhere, profile, any_source=False)


def test_rows_that_trained_the_champion_do_not_judge(folder: Path) -> None:
    rows(1000, "2020-01-01", 0, ["a", "b"]).to_parquet(folder / "1.parquet")
    profile, table = packed(folder)
    trained, champion, _ = champion_of(folder, profile, table)
    rival = replace(champion, saved=_saved_as(trained), graph=_graph(trained), number=2)
    assert judged(trained, rival, champion, None).holdout_rows == 150
    newer = Stretch(after=float(table.side_column("time")[979]), last=1e18)  # type: ignore[index]
    quicker = replace(champion, saved=replace(champion.saved, lineage=champion.saved.lineage.model_copy(update={"held_out": newer})))
    assert judged(trained, rival, quicker, None).holdout_rows == 20


def test_a_preparation_that_is_given_is_kept(folder: Path) -> None:
    rows(1000, "2020-01-01", 0, ["a", "b"]).to_parquet(folder / "1.parquet")
    profile, table = packed(folder)
    split = retraining_split(table, profile, None)
    plain = Experiment(profile, table, split)
    given = replace(plain, given_preparation=replace(plain.preparation, mean=plain.preparation.mean + 1))
    assert given.preparation.digest != plain.preparation.digest
    np.testing.assert_allclose(given.data.features[0, 0] + 1 / plain.preparation.scale[0], plain.data.features[0, 0], rtol=1e-5)


def test_a_time_in_numbers_goes_on_under_the_contract(folder: Path) -> None:
    frame = rows(1000, "2020-01-01", 0, ["a", "b"]).assign(day=np.random.default_rng(0).permutation(1000) * 0.5)
    frame.to_parquet(folder / "1.parquet")
    _, table = packed(folder)
    frame.assign(day=frame["day"] + 5000).to_parquet(folder / "2.parquet")
    _, grown = packed(folder)
    assert (grown.schema.quarantined, fresh_count(grown, mark_of(table))) == ({}, 1000)


def grown_after_a_change(folder: Path, *overrides: str) -> tuple[Profile, PackedTable, PackedTable]:
    """A table of 4,000 rows, and with 1,200 more in which the slope is another."""
    rows(4000, "2020-01-01", 0, ["a", "b"]).to_parquet(folder / "1.parquet")
    profile, table = packed(folder, "retraining.seeds=2", *overrides)
    rows(1200, "2020-08-01", 0, ["a", "b"], slope=-4.0).to_parquet(folder / "2.parquet")
    return profile, table, packed(folder)[1]


def test_windows_are_the_latest_training_rows_up_to_half_of_them(folder: Path) -> None:
    profile, table, grown = grown_after_a_change(folder)
    mark = mark_of(table)
    split = retraining_split(grown, profile, mark)
    assert split.sizes() == {"train": 4400, "validation": 200, "test": 600}
    found = list(windows(split, grown, profile, mark))
    assert [part.sizes() for part in found] == [{"train": rows, "validation": 200, "test": 600} for rows in (2000, 400)]
    for part in found:
        kept = np.flatnonzero(part.labels == TRAIN)
        assert kept.tolist() == list(range(4400 - len(kept), 4400))
        assert (part.labels[4400:] == split.labels[4400:]).all()
    assert list(windows(split, grown, profile, mark.model_copy(update={"newest": -1e18}))) == []  # all is fresh
    days(10, "2021-01-01", 300, 0).to_parquet(folder / "0.parquet")
    _, daily = packed(folder)
    whole = retraining_split(daily, profile, mark_of(grown))
    times = np.asarray(daily.side_column("time"))
    for part in windows(whole, daily, profile, mark_of(grown)):
        assert not set(times[part.labels == TRAIN]) & set(times[(part.labels == UNUSED)])


def test_a_window_in_which_a_class_is_missing_is_none(folder: Path) -> None:
    frame = rows(4000, "2020-01-01", 0, ["a", "b"], classes=["low", "mid"])
    frame.loc[:5, "y"] = "rare"
    frame.to_parquet(folder / "1.parquet")
    profile, table = packed(folder)
    rows(1200, "2020-08-01", 1, ["a", "b"], classes=["low", "mid"]).to_parquet(folder / "2.parquet")
    _, grown = packed(folder)
    assert list(windows(retraining_split(grown, profile, mark_of(table)), grown, profile, mark_of(table))) == []


def test_after_a_change_the_latest_rows_train_and_else_all_do(folder: Path) -> None:
    profile, table, grown = grown_after_a_change(folder)
    _, champion, _ = champion_of(folder, profile, table)
    mark = mark_of(table)
    split = retraining_split(grown, profile, mark)
    latest = challenged(profile, grown, split, champion.saved, 0, windows=windows(split, grown, profile, mark))
    assert (latest.start, latest.train_rows) == ("warm", 400)
    (remark,) = latest.remarks
    assert "warm on the latest 2,000 rows" in remark
    assert "; taken: warm on the latest 400 rows " in remark
    alone = challenged(profile, grown, split, champion.saved, 0)
    assert alone.train_rows == 4400
    assert latest.validation_losses.mean() < 0.5 * alone.validation_losses.mean()
    rows(1200, "2020-08-01", 0, ["a", "b"]).to_parquet(folder / "2.parquet")
    _, same = packed(folder)
    split = retraining_split(same, profile, mark)
    assert challenged(profile, same, split, champion.saved, 0, windows=windows(split, same, profile, mark)).train_rows == 4400


def test_a_batch_that_the_rows_cannot_fill_is_all_of_them_and_that_is_said(folder: Path) -> None:
    rows(1000, "2020-01-01", 0, ["a", "b"]).to_parquet(folder / "1.parquet")
    profile, table = packed(folder, "retraining.seeds=2")
    _, champion, _ = champion_of(folder, profile, table)
    mark = mark_of(table)
    rows(200, "2020-03-01", 1, ["a", "b"]).to_parquet(folder / "2.parquet")
    _, grown = packed(folder)
    wide = followed(profile, RECIPE | {"strategies": {"mini_batch": {"kind": "mini_batch", "batch_rows": 256}}})
    split = update_split(grown, wide, mark, 0)
    trained = challenged(wide, grown, split, champion.saved, 0, only_warm=True)
    assert trained.remarks == ("the recommended batch has 256 rows and only 170 train, so each step takes all of them",)
    assert trained.experiment.profile.strategies["mini_batch"].rows_per_step(170) == 170
    assert not trained.diverged
