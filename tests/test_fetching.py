"""A loop that fetches a data set's items anew: where its time goes, what workers gain, and what is said where it cannot be measured."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

import batchlab
from batchlab.config import load_profile
from batchlab.experiment import Experiment
from batchlab.report.fetching import best_workers, fetching_text
from batchlab.report.fetching_section import fetching_section
from batchlab.results import Fetching
from batchlab.rows.split import split
from batchlab.search.apart import ApartFailed, ApartLate, Fetcher
from batchlab.search.fetching import Loop
from batchlab.search.loaders import warm_workers
from batchlab.search.plain import Arrays, plain, restored
from batchlab.sources.items import GivenItems
from batchlab.table import pack
from tests.conftest import SMALL
from tests.dying import Dying

HERE = __name__
DECODE_SECONDS, ITEMS = 0.002, 120


class Slow(Dataset[tuple[torch.Tensor, float]]):
    """Items that take some time to decode."""

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, number: int) -> tuple[torch.Tensor, float]:
        time.sleep(DECODE_SECONDS)
        return torch.full((2, 3), float(number)), float(number % 7)


class Failing(Slow):
    """Items that cannot be fetched a second time: in another process than the one that packed them."""

    def __init__(self) -> None:
        self.packed_by = os.getpid()

    def __getitem__(self, number: int) -> tuple[torch.Tensor, float]:
        if os.getpid() != self.packed_by:
            raise ValueError("no such picture")
        return super().__getitem__(number)


def slow() -> Slow:
    return Slow()


def net(features: Any, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(6, outputs))


@pytest.fixture(scope="module")
def experiment(tables: Path) -> Experiment:
    overrides = ["model.kind=custom", f"model.factory={HERE}:net"]
    settings = load_profile("quick", data=f"{HERE}:slow", overrides=overrides)
    table = pack(settings.source, settings.named_columns(), tables)
    return Experiment(settings, table, split(table, settings.split, settings.seed))


def test_what_an_item_takes_and_what_a_loop_trains_is_measured(experiment: Experiment) -> None:
    assert experiment.given_items == GivenItems(f"{HERE}:slow")
    found = Loop.of(GivenItems(f"{HERE}:slow"), experiment).measured((16, 64), 5.0)
    assert found.items == ITEMS
    assert found.batch_rows == 16
    assert found.decode_seconds >= DECODE_SECONDS
    assert found.collate_seconds > 0
    assert set(found.step_seconds) == {16, 64}
    assert list(found.trained) == list(range(len(found.trained)))
    assert 0 < found.trained[0] <= 1 / DECODE_SECONDS
    assert all(speed <= max(1, workers) / DECODE_SECONDS * 1.5 for workers, speed in found.trained.items())


def test_batches_that_take_long_are_measured_smaller_and_without_time_only_the_loop_without_workers(
    experiment: Experiment,
) -> None:
    found = Loop.of(GivenItems(Slow()), experiment).measured((64_000,), 0.0)
    assert found.batch_rows <= 0.25 / DECODE_SECONDS
    assert list(found.trained) == [0]


def test_a_worker_that_dies_ends_the_measurement(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchlab.search.fetching.STUCK_SECONDS", 10)  # torch looks for the dead when it has waited so long
    warm_workers()
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        Loop.of(GivenItems(Dying()), experiment).measured((16,), 1e9)


def test_items_that_fail_in_the_measuring_process_are_said_in_a_line(experiment: Experiment) -> None:
    fetcher = Fetcher(experiment, GivenItems(Failing()))
    with pytest.raises(ApartFailed, match=r"^ValueError: no such picture$"):
        fetcher.fetching((16,), 1e9)
    fetcher.stop()


def test_a_measuring_process_that_is_not_up_in_time_is_not_waited_for(experiment: Experiment) -> None:
    fetcher = Fetcher(experiment, GivenItems(f"{HERE}:slow"))
    with pytest.raises(ApartLate, match="in time"):
        fetcher.fetching((16,), 0.0)
    fetcher.stop()


def test_a_large_data_set_is_not_copied_but_named(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchlab.search.apart.MOST_SENT", 100)
    with pytest.raises(ApartFailed, match="GiB would be copied to another process; name what makes it"):
        Fetcher(experiment, GivenItems(Slow()))


def test_a_data_set_that_no_other_process_can_be_given_is_named(experiment: Experiment) -> None:
    class Local(Slow):
        pass

    with pytest.raises(ApartFailed, match=r"cannot be given to another process: .*Local"):
        Fetcher(experiment, GivenItems(Local()))


@pytest.mark.slow
def test_the_verdict_on_a_data_set_says_where_a_loops_time_goes() -> None:
    overrides = [*SMALL, "train.epochs=2", "train.learning_rate=[0.01]", "train.optimizer.kind=sgd", "search.batch_rows=[16]"]
    found = batchlab.compare(Slow(), model=net, strategies=["mini_batch"], overrides=overrides, max_minutes=5, progress=False)
    fetching = found.verdict.fetching
    assert fetching is not None
    assert fetching.batch_rows == 16
    assert "a loop that fetches items anew trains on" in found.verdict.text
    assert "Where a loop&#x27;s time goes" in found.page()
    assert batchlab.results.Verdict.model_validate_json(found.verdict.model_dump_json()).fetching == fetching


def made(**changes: Any) -> Fetching:
    """A millisecond an item on two cores, and a step of 32 rows that takes one, too."""
    known: dict[str, Any] = {
        "items": 1000,
        "batch_rows": 32,
        "decode_seconds": 0.00096,
        "collate_seconds": 0.00004,
        "copy_seconds": 0.0,
        "step_seconds": {32: 0.001, 256: 0.004},
        "trained": {0: 900.0, 1: 960.0, 2: 1900.0},
        "cores": 2,
    }
    return Fetching(**{**known, **changes})


def test_a_loader_that_keeps_the_model_waiting_is_the_limit_with_the_workers_that_would_cure_it() -> None:
    (said,) = fetching_text(made())
    assert said.startswith(
        "Fetching an item takes 1 ms (96% in its own code, the rest to make a batch of it); a step of 32 takes the model 31.3 µs"
    )
    assert "trains on 900 rows a second without workers, 1,900 with 2, and on 32,000 from memory" in said
    assert "The loader is the limit: what keeps the model busy is some 32 workers, each on a core of its own (2 cores here)" in said
    assert made().kept_busy_by(256) == pytest.approx(64)


def test_a_model_that_is_slower_than_the_loader_is_the_limit() -> None:
    busy = made(step_seconds={32: 0.02}, trained={0: 980.0, 1: 1590.0, 2: 1600.0})
    assert best_workers(busy) == 1
    assert fetching_text(busy)[0].endswith("With 1 worker the model is the limit, not the loader.")
    alone = made(step_seconds={32: 0.4}, trained={0: 78.0, 1: 80.0})
    assert "78 rows a second without workers (workers gain nothing here)" in fetching_text(alone)[0]
    assert fetching_text(alone)[0].endswith("With no workers the model is the limit, not the loader.")
    assert fetching_text(made(collate_seconds=2e-6))[0].startswith("Fetching an item takes 962 µs (nearly all in its own code)")
    assert "copying it 5 µs" in fetching_text(made(copy_seconds=5e-6))[0]


def test_the_page_has_a_row_for_each_number_of_workers_and_each_size_of_a_step() -> None:
    shown = fetching_section(made())
    assert shown.count("<tr>") == 2 + 3 + 2
    assert '<td data-label="the limit">the loader</td>' in shown
    assert fetching_text(None) == []


def test_a_killed_search_takes_up_what_fetching_costs() -> None:
    store = Arrays()
    assert restored(plain(made(), store), store.joined()) == made()
