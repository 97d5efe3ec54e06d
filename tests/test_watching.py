"""What a retraining finds before it trains: where the model stands, what was recommended last, and what of the data is new to it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient

from batchlab.config import Profile, load_profile
from batchlab.errors import BadInput
from batchlab.retraining.challenger import challenged
from batchlab.retraining.dividing import held_out, retraining_split
from batchlab.retraining.fresh import mark_of
from batchlab.retraining.outcome import Mode
from batchlab.retraining.recipe import asked_of, followed
from batchlab.retraining.saved import Lineage
from batchlab.table import PackedTable, pack
from tasks import model_files, registry, store
from tasks.history import decisions, rolled_back, shown
from tasks.model_names import check_name, model_name
from tasks.models import log_model
from tasks.provenance import hardware
from tasks.standing import Standing, standing_of
from tasks.tracking import recorded_run
from tasks.watching import Study, study
from tests.growing import Growing, sample


def recipe(batch_rows: int) -> dict[str, Any]:
    train = {"optimizer": {"kind": "sgd"}, "learning_rate": [0.05]}
    return {"strategies": {"mini_batch": {"kind": "mini_batch", "batch_rows": batch_rows}}, "train": train}


@dataclass
class Keeper:
    """A model that is kept retrained on data that grow, a step at a time, in the store of this test alone."""

    client: MlflowClient
    data: Growing
    settings: list[str] = field(default_factory=list)

    @property
    def profile(self) -> Profile:
        settings = ['columns.time="day"', "train.epochs=3", "retraining.seeds=2", *self.settings]
        return load_profile("nightly", data=str(self.data.folder), target="y", overrides=settings)

    def packed(self) -> PackedTable:
        return pack(self.profile.source, self.profile.named_columns(), store.tables())

    def register(self, promote: bool, compared: bool = False, **known: object) -> registry.Version:
        """Train a model on all rows and register it: as champion if it is to be, after a comparison or without."""
        profile, table = followed(self.profile, recipe(32)), self.packed()
        split = retraining_split(table, profile, None)
        trained = challenged(profile, table, split, None, 0)
        facts = {
            "recipe": recipe(32),
            "asked": asked_of(self.profile),
            "compared_rows": 10**6,
            "comparison_run_id": "",
            "hardware": hardware(),
        }
        facts |= {"mark": mark_of(table), "held_out": held_out(table, split), "target": "y", "source": profile.source.identity}
        name = model_name(profile)
        with recorded_run(store.experiment_id(f"retraining-{name}"), "trained", {}) as run_id:
            uri = log_model(run_id, trained.experiment, trained.shipped, Lineage.model_validate(facts | known))
            assert self.client.get_run(run_id).info.status == "RUNNING"
        tags = {registry.TABLE: table.schema.digest, **({registry.COMPARISON: "a run"} if compared else {})}
        version = registry.registered(name, uri, run_id, tags)
        if promote:
            registry.promoted(version, registry.champion_of(name))
            registry.set_mark(name, mark_of(table))
        return version

    def decide(self, version: registry.Version, decision: str, champion: str, fails: bool = False) -> None:
        """Record a decision on a version, in a run that may fail after it."""
        tags = {"batchlab.version": str(version.number), "batchlab.champion": champion, "decision": decision, "reason": f"{decision}."}
        try:
            with recorded_run(store.experiment_id(f"retraining-{version.name}"), "decided", tags):
                if fails:
                    raise OSError("the report could not be written")
        except OSError:
            pass

    def studied(self, mode: Mode = "retrain", name: str | None = None) -> Study:
        standing = standing_of(self.profile, name, mode)
        return study.fn(self.profile, standing, self.packed().path, mode, 0)


@pytest.fixture
def keeper(mlruns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keeper]:
    monkeypatch.setenv("BATCHLAB_MLRUNS", str(mlruns))
    store.client.cache_clear()
    data = Growing(tmp_path / "amounts")
    data.grow(2000, slope=2.0)
    yield Keeper(store.client(), data)
    store.client.cache_clear()


def strategy_of(found: Study) -> int:
    (strategy,) = found.profile.strategies.values()
    return strategy.rows_per_step(10**6)


def test_a_comparison_is_remembered_though_its_challenger_was_refused_and_the_champions_setting_followed(keeper: Keeper) -> None:
    keeper.register(promote=True, compared_rows=300)
    keeper.data.grow(600, slope=2.0)
    (growth,) = keeper.studied().stale
    assert growth.startswith("2,100 rows train now, at least 2 times the 300 of the last comparison")
    refused = keeper.register(promote=False, compared=True, recipe=recipe(64), compared_rows=2100)
    keeper.register(promote=False, compared_rows=300)  # a night later, with the champion's setting
    found = keeper.studied()
    assert (found.standing.champion, found.stale, strategy_of(found)) == (1, (), 32)
    update = keeper.studied("update")
    assert (update.stale, update.remarks, strategy_of(update)) == ((), (), 32)
    keeper.client.delete_model_version(refused.name, str(refused.number))
    assert keeper.studied().stale == (growth,)
    assert keeper.studied("update").remarks == (f"a comparison is due: {growth}",)


def test_drift_is_told_once_but_again_after_an_update(keeper: Keeper) -> None:
    version = keeper.register(promote=True)
    before = registry.mark_of(version.name)
    keeper.data.grow(400, slope=2.0, shift=4.0)
    updating, found = keeper.studied("update"), keeper.studied()
    assert found.drift is not None
    assert updating.drift == found.drift
    assert (found.drift.drifted, found.drift.reference_rows, before is not None and found.mark.since == before.last) == (True, 2000, True)
    assert any("the data have drifted" in reason for reason in found.stale)
    assert updating.mark.since is None
    registry.set_mark(version.name, found.mark)
    keeper.data.grow(400, slope=2.0, shift=4.0)
    again = keeper.studied()
    assert again.drift is not None
    assert (again.drift.drifted, again.drift.reference_rows, again.mark.since, again.stale) == (False, 400, found.mark.since, ())


def test_a_table_without_old_rows_is_retrained_on_without_a_look_for_drift(keeper: Keeper) -> None:
    keeper.register(promote=True)
    keeper.data.grow(600, slope=2.0)
    (keeper.data.folder / "0001.parquet").unlink()
    found = keeper.studied()
    assert (found.drift, found.remarks, found.fresh_rows) == (
        None,
        ("drift was not looked for: no row of the table is from before the last decision",),
        600,
    )


def test_rows_that_decided_before_a_kill_do_not_decide_again(keeper: Keeper) -> None:
    first = keeper.register(promote=True)
    old = registry.mark_of(first.name)
    keeper.data.grow(600, slope=2.0)
    second = keeper.register(promote=False)
    registry.promoted(second, first)  # and killed before it set the mark
    assert registry.mark_of(first.name) == old
    assert keeper.studied().quiet == "nothing new: amounts is what it was at the last decision, 2,600 rows"
    assert rolled_back(None, "to see") == "Version 1 of 'amounts-y' is champion now, before it was version 2: to see"
    registry.set_mark(first.name, mark_of(keeper.packed()))
    assert (keeper.studied().quiet or "").startswith("nothing new")


def test_a_relation_that_changed_is_drift_of_the_champions_losses(keeper: Keeper) -> None:
    keeper.register(promote=True)
    keeper.data.grow(400, slope=2.0)
    same = keeper.studied().drift
    assert same is not None
    assert same.losses is not None
    assert not same.drifted
    keeper.data.grow(600, slope=-2.0)
    found = keeper.studied()
    assert found.drift is not None
    assert [item.name for item in found.drift.worst] == ["losses"]
    assert any("the champion's losses (PSI" in reason for reason in found.stale)


def test_rows_that_came_late_or_twice_are_counted_where_none_is_newer(keeper: Keeper) -> None:
    keeper.register(promote=True)
    keeper.data.add(sample(50, seed=7, slope=2.0).assign(day=pd.Timestamp("2020-01-02")))
    quiet = keeper.studied().quiet or ""
    assert quiet.startswith("nothing new: amounts has changed, but none of its 2,050 rows is newer than those of the last decision")
    assert quiet.endswith("; 50 more than then are late or repeated")


def test_few_rows_and_days_that_cannot_be_divided_wait(keeper: Keeper) -> None:
    keeper.register(promote=True)
    keeper.data.grow(300, slope=2.0)
    keeper.settings = ["retraining.holdout=0.2"]
    assert keeper.studied().quiet == (
        "waiting for more: 300 rows are new, and it takes 500 (retraining.gate.fewest_rows over retraining.holdout 0.2)"
    )
    keeper.settings = ["split.embargo=10000h"]
    quiet = keeper.studied().quiet or ""
    assert quiet.startswith("waiting for more: of 2,300 rows 0 / 0 / 150 can train / validate / judge")
    assert quiet.endswith("or split.embargo (10000h)")


def test_a_refused_first_challenger_is_not_trained_again_on_the_same_data(keeper: Keeper) -> None:
    version = keeper.register(promote=False)
    assert keeper.studied().quiet is None  # nobody has decided on it
    registry.set_mark(version.name, mark_of(keeper.packed()))
    keeper.decide(version, "kept", "None")
    assert keeper.studied().quiet == "nothing new: amounts is what it was when the last challenger was refused, 2,000 rows"
    keeper.settings = ["model.kind=mlp"]
    assert keeper.studied().stale == ("the profile asks for something else than at the last comparison: model",)
    keeper.settings = []
    keeper.data.grow(300, slope=2.0)
    found = keeper.studied()
    assert (found.quiet, found.stale, found.fresh_rows) == (None, (), 2300)


def test_a_run_that_fails_after_its_decision_has_decided(keeper: Keeper) -> None:
    version = keeper.register(promote=True)
    keeper.decide(version, "first", "1", fails=True)
    (decision,) = decisions(version.name)
    assert (decision.decision, decision.version) == ("first", 1)
    assert "(first): first." in shown(None)["since"]
    with pytest.raises(BadInput, match="no champion before version 1 of 'amounts-y' is still there, so there is nothing to go back to"):
        rolled_back(None, "")


def test_models_that_cannot_be_used_are_refused_with_a_way_out(keeper: Keeper, tmp_path: Path) -> None:
    version = keeper.register(promote=True)
    with pytest.raises(BadInput, match="model name 'a/b' has '/' in it; use 1 to 200 letters"):
        standing_of(keeper.profile, "a/b", "retrain")
    keeper.client.create_registered_model("foreign")
    assert standing_of(keeper.profile, "foreign", "retrain") == Standing(name="foreign")
    keeper.client.create_model_version("foreign", source=(tmp_path / "amounts").as_uri())
    with pytest.raises(
        BadInput, match="a model 'foreign' is registered already, and none of its 1 versions was made by `batchlab retrain`"
    ):
        standing_of(keeper.profile, "foreign", "retrain")
    keeper.client.set_registered_model_alias("foreign", "champion", "1")
    with pytest.raises(BadInput, match="the files of models:/foreign/1 are not in the store any more; promote another version"):
        standing_of(keeper.profile, "foreign", "retrain")
    (Path(mlflow.artifacts.download_artifacts(version.uri)) / "MLmodel").unlink()
    model_files.downloaded.cache_clear()
    with pytest.raises(BadInput, match=r"the files of models:/amounts-y/1 are not in the store any more; promote another version"):
        keeper.studied()
    assert registry.recommended(version.name) is None


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "all dots"),
        ("..", "all dots"),
        (" a", "blank at its ends"),
        ("x" * 201, "201 signs long"),
        ("a@b?", "'?' '@'"),
        ("a\nb", r"'\n'"),
    ],
)
def test_names_that_no_model_can_bear_are_refused(name: str, why: str) -> None:
    with pytest.raises(BadInput) as refused:
        check_name(name)
    assert why in str(refused.value)
    for fine in ("sales-amount", "sales, north (2026) 'x'", "naïve 模型"):
        check_name(fine)


def test_fresh_rows_that_lack_a_column_break_the_contract_however_large_the_table_is(keeper: Keeper) -> None:
    keeper.data.grow(20_000, slope=2.0)
    keeper.register(promote=True)
    keeper.data.add(sample(500, seed=7, slope=2.0).assign(day=pd.date_range("2030-01-01", periods=500, freq="s")).drop(columns="x"))
    keeper.settings.append("retraining.days_ahead=100000")
    assert keeper.packed().schema.rows == 22_500  # 2% of the table, which the whole table's contract allows
    with pytest.raises(BadInput, match=r"breaks its contract: column 'x' misses 100.0% of its values in the fresh rows, more than 5.0%"):
        keeper.studied()
