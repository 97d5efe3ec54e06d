"""One training over many processes: what it comes to is what one process comes to, whoever has which rows."""

import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from batchlab.engine.backends.torch_stacked import check_divisible
from batchlab.engine.data import TrainingData
from batchlab.engine.loop import train
from batchlab.engine.losses import Loss
from batchlab.engine.optimizers import AdamW, Sgd
from batchlab.engine.ranks import Ranks
from batchlab.engine.records import Plan, Trial, TrialResult
from batchlab.engine.runs import Run
from batchlab.engine.schedule import runs
from batchlab.engine.stored import StoredRows
from batchlab.engine.streams import Stream
from batchlab.errors import BadInput
from batchlab.models.linear import Linear
from batchlab.models.mlp import Mlp
from batchlab.strategies import Population, Strategy
from batchlab.strategies.accumulated import Accumulated
from batchlab.strategies.data_loader import DataLoader
from batchlab.strategies.full_batch import FullBatch
from batchlab.strategies.growing import Growing
from batchlab.strategies.mini_batch import MiniBatch
from batchlab.strategies.streaming import Streaming
from tests.conftest import CHECKOUT

CPU = torch.device("cpu")
ROWS, STEPS = 1003, 50
TRIALS = (Trial(0.01, 0), Trial(0.03, 0), Trial(0.01, 7))
STREAMING = Streaming(batch_rows=16, block_rows=32, buffer_rows=128, workers=0)
IN_MEMORY: dict[str, Strategy] = {
    "mini_batch": MiniBatch(batch_rows=32),
    "fewer rows than processes": MiniBatch(batch_rows=2),
    "accumulated": Accumulated(portion_rows=100),
    "full_batch": FullBatch(),
    "growing": Growing(batch_rows=8),
    "data_loader": DataLoader(batch_rows=24, workers=0),
}
IN_FILES: dict[str, Strategy] = {"streaming": STREAMING, "mini_batch of files": MiniBatch(batch_rows=32)}


def numbers(folder: Path) -> tuple[TrainingData, TrainingData]:
    """Return the same rows in memory and in files, of double precision."""
    rng = np.random.default_rng(3)
    features = rng.standard_normal((ROWS, 5))
    target = np.sin(features[:, 0]) + 0.1 * rng.standard_normal(ROWS)
    np.save(folder / "features.npy", features)
    np.save(folder / "target.npy", target)
    rows = torch.from_numpy(features), torch.from_numpy(target)
    held_out = rows[0][:200].clone(), rows[1][:200].clone()
    files = StoredRows(folder / "features.npy", folder / "target.npy")
    return TrainingData(*rows, *held_out, Population(ROWS), 1), TrainingData.of_stored(files, *held_out, 1)


def arguments(data: TrainingData, strategy: Strategy, trials: Sequence[Trial] = TRIALS, **plan: Any) -> tuple[Any, ...]:
    given = {"epochs": 400, "max_steps": STEPS, "evaluations": 4, "precision": "float64", "optimizer": AdamW(), "backend": "torch"}
    return data, Mlp(widths=(8,), activation="tanh"), strategy, list(trials), Plan(**given | plan), Loss("mse"), CPU


def over(processes: int, asked: dict[str, tuple[Any, ...]], folder: Path) -> tuple[dict[str, list[TrialResult]], int]:
    """Train what is asked over so many processes; returns what came of it, and the bytes that were summed."""
    (folder / "asked").write_bytes(pickle.dumps(asked))
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}")
    done = subprocess.run([*torchrun, "-m", "tests.ranked", str(folder)], cwd=CHECKOUT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found: tuple[dict[str, list[TrialResult]], int] = pickle.loads((folder / "found").read_bytes())
    return found


def weights(results: Sequence[TrialResult]) -> np.ndarray:
    return np.array([np.concatenate([value.ravel() for value in result.weights.values()]) for result in results])


@pytest.mark.parametrize("processes", [2, 3])
def test_weights_and_losses_over_several_processes_are_those_of_one(processes: int, tmp_path: Path) -> None:
    memory, files = numbers(tmp_path)
    asked = {name: arguments(memory, strategy) for name, strategy in IN_MEMORY.items()}
    asked |= {name: arguments(files, strategy) for name, strategy in IN_FILES.items()}
    asked["diverging"] = arguments(memory, MiniBatch(batch_rows=32), [Trial(0.01, 0), Trial(1e6, 0)], optimizer=Sgd())
    found, _ = over(processes, asked, tmp_path)
    for name, given in asked.items():
        alone = train(*given)
        assert [result.steps for result in found[name]] == [result.steps for result in alone], name
        assert [result.rows_seen for result in found[name]] == [result.rows_seen for result in alone], name
        assert [result.diverged_at for result in found[name]] == [result.diverged_at for result in alone], name
        np.testing.assert_allclose(weights(found[name]), weights(alone), rtol=1e-10, atol=1e-10, err_msg=name)
        for one, other in zip(found[name], alone, strict=True):
            np.testing.assert_allclose(one.curve.validation_loss, other.curve.validation_loss, rtol=1e-9, err_msg=name)


def test_the_bytes_that_are_summed_are_a_gradient_and_a_loss_a_step(tmp_path: Path) -> None:
    memory, _ = numbers(tmp_path)
    steps = {}
    for count in (10, 30):
        given = {"bare": arguments(memory, MiniBatch(batch_rows=32), TRIALS[:1], max_steps=count, evaluations=1)}
        steps[count] = over(2, given, tmp_path)[1]
    gradient = 8 * (5 * 8 + 8 + 8 + 1)
    assert steps[30] - steps[10] == 20 * (gradient + 8)


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("strategy", IN_MEMORY.values(), ids=lambda strategy: strategy.kind)
def test_every_row_of_a_step_is_one_processs(strategy: Strategy, count: int) -> None:
    plan = Plan(epochs=1, evaluations=1)
    for run in runs(strategy, Population(ROWS), [0, 1], plan, 2**16):
        parts = [Ranks(rank, count).part_of(run) for rank in range(count)]
        for part in parts:
            assert np.array_equal(part.step_rows, run.step_rows)
            assert part.rows_seen == run.rows_seen
        for spans in zip(run.spans(), *(part.spans() for part in parts), strict=True):
            for span, *own in zip(*spans, strict=True):
                rows = [part.rows[:, piece] for part, piece in zip(parts, own, strict=True)]
                assert np.array_equal(np.concatenate(rows, axis=1), run.rows[:, span])
                sizes = [piece.shape[1] for piece in rows]
                assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("count", [2, 3])
def test_of_a_stream_every_process_reads_blocks_of_its_own_and_all_of_them_are_read_once(count: int, tmp_path: Path) -> None:
    _, files = numbers(tmp_path)
    assert files.stored is not None
    plan, seen, sizes = Plan(epochs=1, evaluations=1), [], []
    for rank in range(count):
        with Stream(files.stored, STREAMING, [0], 2**12, Ranks(rank, count)) as stream:
            part: list[np.ndarray] = []
            for run in runs(STREAMING, files.population, [0], plan, 2**11):
                own, window = stream.delivered(run)
                order = window.order[0]
                np.testing.assert_array_equal(window.features[0][order], files.stored.arrays[0][own.rows[0]])
                np.testing.assert_array_equal(window.target[0][order], files.stored.arrays[1][own.rows[0]])
                part.append(own.rows[0])
        seen.append(np.concatenate(part))
        sizes.append(len(seen[-1]))
        blocks = np.unique(seen[-1] // STREAMING.block_rows)
        assert len(seen[-1]) == np.isin(np.arange(ROWS) // STREAMING.block_rows, blocks).sum()
    assert np.array_equal(np.sort(np.concatenate(seen)), np.arange(ROWS))
    assert max(sizes) - min(sizes) <= 4 * STREAMING.block_rows


def test_a_module_that_carries_numbers_of_all_rows_along_is_refused_by_name() -> None:
    with pytest.raises(BadInput, match=r"carries numbers of all of them along \(1\.running_mean, 1\.running_var"):
        check_divisible(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), needs_rows=True)
    with pytest.raises(BadInput, match="the module computes with all of them together, as batch normalization does"):
        check_divisible(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False)), needs_rows=True)
    check_divisible(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), needs_rows=False)


def test_the_kernels_train_in_one_process_only(tmp_path: Path) -> None:
    memory, _ = numbers(tmp_path)
    with pytest.raises(BadInput, match="in one process, not linear on cpu in float64 over 2 processes"):
        train(memory, Linear(), FullBatch(), TRIALS, Plan(backend="kernels", processes=2, precision="float64"), Loss("mse"), CPU)


def test_a_run_alone_is_left_as_it_is() -> None:
    run = next(iter(runs(MiniBatch(batch_rows=8), Population(20), [0], Plan(epochs=1, evaluations=1), 100)))
    assert isinstance(run, Run)
    assert Ranks().part_of(run) is run
