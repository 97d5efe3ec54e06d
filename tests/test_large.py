"""Rows that stay in files: the same training as from memory, and a whole search on them; and walking forward."""

import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from batchlab.errors import BadInput
from batchlab.experiment import Experiment
from batchlab.search.records import verdict_of
from batchlab.search.search import Search
from tests.conftest import SMALL
from tests.test_search import MEASURED_APART, run

Make = Callable[..., Experiment]
IN_FILES = "memory_gib=0.00001"


@pytest.mark.parametrize("strategy", ["full_batch", "accumulated", "mini_batch", "stochastic", "streaming", "data_loader", "growing"])
def test_every_strategy_trains_from_files_as_from_memory(strategy: str, experiment: Make) -> None:
    overrides = ["train.epochs=2", "train.learning_rate=[0.01,0.03]"]
    weights = []
    for more in ([], [IN_FILES]):
        made = experiment("quick", data="breast_cancer", strategies=[strategy], overrides=[*overrides, *more])
        assert (made.data.stored is not None) == bool(more)
        weights.append([result.weights for result in made.train(strategy)])
    for held, stored in zip(*weights, strict=True):
        for name, values in held.items():
            np.testing.assert_array_equal(stored[name], values)


def test_a_search_on_rows_in_files_gives_a_verdict_and_says_what_it_left_out(experiment: Make) -> None:
    sizes = "search.batch_rows=[8,64]"
    made = experiment(
        "quick", data="diabetes", strategies=["streaming", "accumulated"], overrides=[IN_FILES, sizes, "train.epochs=20", *SMALL]
    )
    search = run(Search(made), leaving_out=["peak memory"])
    verdict = verdict_of(search.findings, "")
    assert verdict.strategy is not None
    assert {"streaming", "accumulated"} <= {item.candidate.name for item in search.findings.settings}
    assert any("sorted order was not tried" in note for note in verdict.notes)
    assert any("loaders were not compared" in note for note in verdict.notes)


def test_rows_in_files_are_float32(experiment: Make) -> None:
    with pytest.raises(BadInput, match=r"265 training rows take more than memory allows .* use train\.precision=float32"):
        experiment("quick", data="diabetes", overrides=[IN_FILES, "train.precision=float64"])


def test_the_recommended_setting_walks_forward_through_every_period(experiment: Make, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = 900
    frame = pd.DataFrame({"x": rng.normal(size=rows), "day": pd.date_range("2024-01-01", periods=rows, freq="h")}).sample(
        frac=1, random_state=0
    )
    frame["y"] = 2 * frame["x"] + 0.1 * rng.normal(size=rows)
    frame.to_parquet(tmp_path / "rows.parquet")
    overrides = [
        "columns.time=day",
        "split.kind=walk_forward",
        "split.folds=3",
        "split.embargo=12h",
        "search.batch_rows=[16]",
        "train.epochs=20",
    ]
    made = experiment("quick", data=str(tmp_path / "rows.parquet"), target="y", strategies=["mini_batch"], overrides=[*overrides, *SMALL])
    search = run(Search(made), MEASURED_APART)
    periods = verdict_of(search.findings, "").periods
    assert [period.number for period in periods] == [1, 2, 3]
    assert [period.train_rows for period in periods] == sorted(period.train_rows for period in periods)
    for before, after in pairwise(periods):
        assert before.last < after.first
    assert all(period.test_loss < 0.1 * period.constant_test_loss for period in periods)
    assert any("lower than always predicting the mean in 3 of 3 periods" in note for note in search.findings.notes)


WIDE = """
import resource, sys
from pathlib import Path
import numpy as np, torch
from batchlab.allowance import give_back_freed_memory
from batchlab.config import load_profile
from batchlab.experiment import Experiment
from batchlab.rows.split import split
from batchlab.table import pack

give_back_freed_memory()
folder = Path(sys.argv[1])
rng = np.random.default_rng(0)
np.savez(folder / "rows.npz", x=rng.standard_normal((2**13, 2**12), dtype=np.float32), y=rng.standard_normal(2**13))
settings = load_profile("quick", data=str(folder / "rows.npz"), target="y", overrides=["memory_gib=0.1"])
table = pack(settings.source, settings.named_columns(), folder / "tables")
made = Experiment(settings, table, split(table, settings.split, settings.seed))
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
peak = lambda: 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
before = peak()
print(made.data.features.nbytes, len(made.data.validation_target), peak() - before)
"""
"""Makes 8,192 rows of 4,096 numbers ready to be trained on from files, and prints by how many bytes the process's peak has grown."""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of a process's memory begins anew on Linux only")
def test_memory_does_not_grow_with_the_width_of_rows(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WIDE, str(tmp_path)], capture_output=True, text=True, check=True)
    held, validated, grown = map(int, done.stdout.split())
    assert held > 2**26
    assert 1024 <= validated < 8192 // 5
    assert grown < 2**28
