"""Streaming: a shuffle of tables larger than memory, the same order whoever reads the rows and wherever a training was stopped."""

import os
import pickle
import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batchlab.analysis.shuffling import measured
from batchlab.engine.data import StoredRows, TrainingData
from batchlab.engine.delivery import batches_of, longest_run, streamed
from batchlab.engine.gradients import drawn
from batchlab.engine.loop import train
from batchlab.engine.losses import Loss
from batchlab.engine.memory import Footprint, bytes_per_seed
from batchlab.engine.records import Plan, Trial, TrialResult
from batchlab.engine.runs import Run
from batchlab.engine.schedule import runs, taken_up
from batchlab.engine.streams import Stream
from batchlab.errors import BadInput, BatchlabError
from batchlab.models.linear import Linear
from batchlab.models.mlp import Mlp
from batchlab.strategies import STRATEGIES, Population, Strategy
from batchlab.strategies.accumulated import Accumulated
from batchlab.strategies.data_loader import DataLoader
from batchlab.strategies.full_batch import FullBatch
from batchlab.strategies.growing import Growing
from batchlab.strategies.mini_batch import MiniBatch
from batchlab.strategies.streaming import Streaming

CPU = torch.device("cpu")
THREAD = "batchlab-reads"


@st.composite
def settled(draw: st.DrawFn) -> tuple[Streaming, int]:
    """A streaming strategy and a number of rows: from less than a block to many buffers."""
    rows, block = draw(st.integers(1, 700)), draw(st.integers(1, 60))
    strategy = Streaming(
        batch_rows=draw(st.integers(1, rows)),
        block_rows=block,
        buffer_rows=draw(st.integers(block, 400)),
        workers=draw(st.integers(0, 2)),
    )
    return strategy, rows


def stored(folder: Path, rows: int, classes: int = 0) -> StoredRows:
    """Write rows whose first feature is their number."""
    rng = np.random.default_rng(rows)
    features = rng.standard_normal((rows, 3)).astype(np.float32)
    features[:, 0] = np.arange(rows)
    target = rng.integers(0, classes, rows) if classes else features[:, 1] - features[:, 2]
    np.save(folder / "features.npy", features)
    np.save(folder / "target.npy", target)
    return StoredRows(folder / "features.npy", folder / "target.npy")


def both(folder: Path, rows: int = 2000, classes: int = 0) -> tuple[TrainingData, TrainingData]:
    """The same rows in memory and in files."""
    files = stored(folder, rows, classes)
    features, target = (torch.from_numpy(np.load(path)) for path in (files.features, files.target))
    features[:, 0] /= rows
    np.save(files.features, features.numpy())
    validation = features[:50].clone(), target[:50].clone()
    of_files = TrainingData.of_stored(files, *validation, max(1, classes))
    return TrainingData(features, target, *validation, Population(rows), max(1, classes)), of_files


def trained(
    data: TrainingData, strategy: Strategy, classes: int = 0, model: Linear | Mlp | None = None, **plan: object
) -> list[TrialResult]:
    trials = [Trial(rate, seed) for rate in (0.01, 0.05) for seed in (0, 7)]
    limits = Plan(**{"epochs": 2, "evaluations": 3, **plan})  # type: ignore[arg-type]
    return train(data, model or Mlp(widths=(8,)), strategy, trials, limits, Loss("cross_entropy" if classes else "mse"), CPU)


def flat(result: TrialResult) -> np.ndarray:
    return np.concatenate([value.ravel() for value in result.weights.values()])


def reading() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(THREAD)]


def open_files(files: StoredRows) -> int:
    """How many descriptors of this process point to the features; Linux only."""
    links = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    return sum(os.path.realpath(link) == str(files.features.resolve()) for link in links if link.exists())


def joined(parts: Iterator[Run]) -> tuple[np.ndarray, list[int]]:
    """All rows `[seeds, rows]` and where steps end, counted from the start of the training."""
    found = list(parts)
    return np.concatenate([run.rows for run in found], axis=1), [run.rows_before + int(end) for run in found for end in run.steps]


@given(made=settled(), seed=st.integers(0, 2**31), epoch=st.integers(0, 50))
def test_every_row_comes_exactly_once_an_epoch(made: tuple[Streaming, int], seed: int, epoch: int) -> None:
    strategy, rows = made
    order = strategy.order(Population(rows), seed, epoch)
    np.testing.assert_array_equal(np.sort(order.rows), np.arange(rows))
    assert set(np.diff(order.steps, prepend=0)[:-1]) <= {strategy.batch_rows}
    assert order.steps[-1] == rows


@given(made=settled(), seed=st.integers(0, 2**31), done=st.integers(0, 100))
def test_pieces_are_the_order_from_any_step_on(made: tuple[Streaming, int], seed: int, done: int) -> None:
    strategy, rows = made
    whole = strategy.order(Population(rows), seed, 3)
    parts = list(strategy.pieces(Population(rows), seed, 3, done))
    expected = whole.rows[done * strategy.batch_rows :]
    np.testing.assert_array_equal(np.concatenate([part.rows for part in parts]) if parts else [], expected)
    for part in parts[:-1]:
        assert len(part.rows) % strategy.batch_rows == 0


@given(made=settled(), seed=st.integers(0, 2**31))
def test_a_buffer_has_rows_of_every_stretch_of_the_table(made: tuple[Streaming, int], seed: int) -> None:
    strategy, rows = made
    buffers, count = strategy.buffers(rows, seed, 0), strategy.buffer_count(rows)
    assert len(buffers) == count
    assert sum(len(buffer) for buffer in buffers) == rows
    for buffer in buffers:
        assert len(buffer) <= strategy.buffer_rows
        whole = buffer.blocks[: -(-rows // strategy.block_rows) // count]
        np.testing.assert_array_equal(whole // count, np.arange(len(whole)))


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    strategy = Streaming(batch_rows=8, block_rows=10, buffer_rows=100)
    orders = [tuple(strategy.order(Population(500), seed, epoch).rows) for seed, epoch in [(0, 0), (0, 1), (1, 0)]]
    assert len(set(orders)) == 3


@pytest.mark.parametrize("strategy", [kind() for kind in STRATEGIES.values()], ids=lambda strategy: strategy.kind)
def test_no_micro_batch_is_larger_than_the_strategy_says(strategy: Strategy) -> None:
    portions = strategy.order(Population(700), 0, 0).portions
    assert max(np.diff(portions, prepend=0)) <= strategy.rows_per_portion(700)
    assert all(len(piece.rows) <= strategy.rows_per_piece(700) for piece in strategy.pieces(Population(700), 0, 0))


@settings(max_examples=60)
@given(made=settled(), seeds=st.integers(1, 3), most_rows=st.integers(1, 300), epochs=st.integers(1, 3), data=st.data())
def test_a_training_taken_up_at_any_step_goes_on_as_the_unstopped_one(
    made: tuple[Streaming, int], seeds: int, most_rows: int, epochs: int, data: st.DataObject
) -> None:
    streaming, rows = made
    other = data.draw(st.sampled_from([MiniBatch(batch_rows=7), Growing(batch_rows=3, growth="schedule", epochs=1), Accumulated()]))
    plan = Plan(epochs=epochs, evaluations=3, **data.draw(st.sampled_from([{}, {"max_steps": 5}, {"max_rows": 50}])))
    for strategy in (streaming, other):
        order, ends = joined(runs(strategy, Population(rows), range(seeds), plan, most_rows))
        done = data.draw(st.integers(0, len(ends) - 1))
        rest, ends_of_rest = joined(runs(strategy, Population(rows), range(seeds), plan, most_rows, steps_done=done))
        seen = ends[done - 1] if done else 0
        np.testing.assert_array_equal(rest, order[:, seen:])
        assert ends_of_rest == ends[done:]
        assert list(runs(strategy, Population(rows), range(seeds), plan, most_rows, steps_done=len(ends))) == []


def test_taking_up_a_long_training_draws_no_row_of_what_was_done() -> None:
    strategy = Streaming(batch_rows=256)
    assert taken_up(strategy, Population(10**8), 10**6) == (2, 10**6 - 2 * 390625, 2 * 10**8 + (10**6 - 2 * 390625) * 256)
    first = next(runs(strategy, Population(10**7), [0], Plan(epochs=3), 1000, steps_done=39_063 + 39_000))
    assert (first.first_step, first.rows_before) == (39_063 + 39_001, 10**7 + 39_000 * 256)


def test_a_strategy_that_adapts_is_not_taken_up_in_the_middle() -> None:
    with pytest.raises(BadInput, match="begins at its first step, not after 5"):
        next(runs(Growing(), Population(100), [0], Plan(), 10, steps_done=5))


@settings(max_examples=40)
@given(made=settled(), seeds=st.integers(1, 3), most_rows=st.integers(1, 300), done=st.integers(0, 30))
def test_rows_read_from_files_are_those_of_the_order_whoever_reads_them(
    tmp_path_factory: pytest.TempPathFactory, made: tuple[Streaming, int], seeds: int, most_rows: int, done: int
) -> None:
    strategy, rows = made
    files = stored(tmp_path_factory.mktemp("rows"), rows)
    plan, numbers = Plan(epochs=3, evaluations=2), list(range(seeds))
    with Stream(files, strategy, numbers, longest_run(strategy, Population(rows), most_rows)) as stream:
        for run in runs(strategy, Population(rows), numbers, plan, most_rows, steps_done=done):
            _, window = stream.delivered(run)
            for seed in numbers:
                np.testing.assert_array_equal(window.features[seed][window.order[seed], 0], run.rows[seed])
                np.testing.assert_array_equal(window.target[seed][window.order[seed]], files.arrays[1][run.rows[seed]])
    assert not reading()


def test_workers_change_nothing_but_who_reads() -> None:
    assert len({Streaming(workers=workers).updates for workers in (0, 1, 2)}) == 1
    orders = [Streaming(block_rows=16, buffer_rows=128, workers=workers).order(Population(999), 4, 2).rows for workers in (0, 1, 2)]
    assert all((order == orders[0]).all() for order in orders)


@pytest.mark.parametrize("backend", ["kernels", "torch"])
@pytest.mark.parametrize("classes", [0, 3], ids=["regression", "classes"])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_weights_are_the_same_bit_for_bit_from_files_and_from_memory(tmp_path: Path, backend: str, classes: int, workers: int) -> None:
    strategy = Streaming(batch_rows=48, block_rows=32, buffer_rows=256, workers=workers)
    in_memory, in_files = (trained(data, strategy, classes, backend=backend) for data in both(tmp_path, classes=classes))
    for one, other in zip(in_memory, in_files, strict=True):
        np.testing.assert_array_equal(flat(one), flat(other))
        assert one.curve.validation_loss == other.curve.validation_loss
        assert one.curve.train_loss == other.curve.train_loss


@pytest.mark.parametrize("backend", ["kernels", "torch"])
@pytest.mark.parametrize(
    "strategy",
    [
        Accumulated(portion_rows=300),
        *(
            kind.model_validate({"batch_rows": 100} if "batch_rows" in kind.model_fields else {})
            for kind in STRATEGIES.values()
            if kind not in (Streaming, Accumulated)
        ),
    ],
    ids=lambda strategy: strategy.kind,
)
def test_every_other_strategy_trains_the_same_on_rows_in_files(tmp_path: Path, backend: str, strategy: Strategy) -> None:
    in_memory, in_files = (trained(data, strategy, 3, backend=backend) for data in both(tmp_path, classes=3))
    for one, other in zip(in_memory, in_files, strict=True):
        np.testing.assert_array_equal(flat(one), flat(other))


def test_loader_workers_map_the_files_themselves(tmp_path: Path) -> None:
    _, in_files = both(tmp_path)
    assert len(pickle.dumps(in_files.stored)) < 1000
    alone, helped = (trained(in_files, DataLoader(batch_rows=200, workers=workers), model=Linear())[0] for workers in (0, 1))
    np.testing.assert_array_equal(flat(alone), flat(helped))


def test_the_loss_of_many_rows_in_files_is_that_of_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory, in_files = both(tmp_path)
    sample = in_files.thinned(100, 20, seed=3).sample
    expected = in_memory.thinned(100, 20, seed=3).sample
    assert sample is not None
    assert expected is not None
    assert all(torch.equal(one, other) for one, other in zip(sample, expected, strict=True))
    monkeypatch.setattr("batchlab.engine.loop.SAMPLE_ROWS", 100)
    expected = in_memory.thinned(100, 50, seed=0)
    strategy = Streaming(batch_rows=100, block_rows=50, buffer_rows=500)
    assert trained(in_files, strategy)[0].curve.train_loss == trained(expected, strategy)[0].curve.train_loss


def test_batches_for_a_loop_of_your_own_are_those_of_the_order(tmp_path: Path) -> None:
    files, strategy = stored(tmp_path, 1000), Streaming(batch_rows=64, block_rows=32, buffer_rows=256)
    expected = np.concatenate([strategy.order(Population(1000), 5, epoch).rows for epoch in (0, 1)])
    batches = list(streamed(files, strategy, seed=5, epochs=2))
    np.testing.assert_array_equal(torch.cat([features[:, 0] for features, _ in batches]), expected)
    assert [len(target) for _, target in batches] == 2 * [*[64] * 15, 40]
    rest = list(streamed(files, strategy, seed=5, epochs=2, steps_done=20))
    np.testing.assert_array_equal(torch.cat([features[:, 0] for features, _ in rest]), expected[1000 + 4 * 64 :])


def test_reading_ahead_ends_when_a_loop_of_your_own_ends_early(tmp_path: Path) -> None:
    files = stored(tmp_path, 1000)
    with closing(streamed(files, Streaming(batch_rows=10, block_rows=8, buffer_rows=64, workers=2), seed=0, epochs=50)) as batches:  # type: ignore[type-var]
        assert len(list(islice(batches, 3))) == 3
        assert reading()
    assert not reading()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted through Linux's /proc")
def test_reading_ahead_ends_when_training_stops_early_or_fails(tmp_path: Path) -> None:
    _, data = both(tmp_path)
    strategy = Streaming(batch_rows=10, block_rows=8, buffer_rows=64, workers=2)
    assert data.stored is not None
    before = open_files(data.stored)
    (wild,) = train(data, Linear(), strategy, [Trial(1e6, 0)], Plan(epochs=50), Loss("mse"), CPU)
    assert wild.diverged_at is not None

    def fail(progress: object) -> None:
        assert reading()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, Linear(), strategy, [Trial(0.01, 0)], Plan(epochs=50), Loss("mse"), CPU, on_progress=fail)
    assert not reading()
    assert open_files(data.stored) == before


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_is_cut_while_it_is_read_is_named_with_the_numbers(tmp_path: Path, workers: int) -> None:
    files = stored(tmp_path, 4000)
    strategy = Streaming(batch_rows=10, block_rows=8, buffer_rows=64, workers=workers)
    batches = streamed(files, strategy, seed=0, epochs=1)
    next(batches)
    os.truncate(files.features, 20_000)
    with pytest.raises(BatchlabError, match=r"features\.npy ends at byte 20000, but its rows \d+ to \d+ end at byte \d+: it was cut"):
        for _ in streamed(files, strategy, seed=1, epochs=1):
            pass
    batches.close()  # type: ignore[attr-defined]
    assert not reading()


def test_files_that_cannot_be_rows_are_refused(tmp_path: Path) -> None:
    files = stored(tmp_path, 100)
    np.save(files.target, np.zeros(99, np.float32))
    with pytest.raises(BadInput, match=r"has shape \(100, 3\) and .* has \(99,\)"):
        _ = StoredRows(files.features, files.target).arrays
    os.truncate(files.features, 500)
    with pytest.raises(BadInput, match=r"features\.npy cannot be read as rows in \.npy form"):
        _ = StoredRows(files.features, files.target).arrays


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (
            Streaming(block_rows=300, buffer_rows=200),
            "block_rows is 300 but the buffer holds 200 rows (buffer_rows); use blocks of at most",
        ),
        (Streaming(batch_rows=354), "batch_rows is 354 but the training split has 353 rows; use at most 353"),
    ],
)
def test_settings_that_do_not_fit_are_refused(strategy: Streaming, expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        strategy.check(Population(353))
    assert expected in str(caught.value)


def test_a_global_shuffle_measures_one_and_a_sorted_table_the_batch() -> None:
    for strategy in (MiniBatch(batch_rows=32), Streaming(batch_rows=32, block_rows=64, buffer_rows=2**18)):
        good = measured(strategy, 200_000)
        assert good.variance_ratio == pytest.approx(1, abs=0.08)
        assert abs(good.serial_correlation) < 0.05
        assert abs(good.rank_correlation) < 0.01
    unshuffled = measured(MiniBatch(batch_rows=32, shuffled=False), 200_000)
    assert unshuffled.variance_ratio == pytest.approx(32, rel=0.01)
    assert unshuffled.rank_correlation == pytest.approx(1)
    assert measured(FullBatch(), 1000).variance_ratio == 1


def test_streaming_of_a_sorted_table_is_as_good_as_a_global_shuffle_through_a_small_buffer() -> None:
    streaming = measured(Streaming(batch_rows=64, block_rows=128, buffer_rows=2**14), 1_000_000)
    assert streaming.variance_ratio == pytest.approx(1, abs=0.05)
    two_blocks = measured(Streaming(batch_rows=64, block_rows=2**13, buffer_rows=2**14), 1_000_000)
    assert two_blocks.variance_ratio > 5
    assert "vary" in two_blocks.text


def test_the_quality_of_a_long_epoch_is_told_by_a_part_of_it() -> None:
    values = np.sort(np.random.default_rng(0).standard_normal(400_000)) ** 3
    strategy = Streaming(batch_rows=32, block_rows=64, buffer_rows=2**14)
    whole, part = measured(strategy, 400_000, values=values), measured(strategy, 400_000, values=values, most_rows=100_000)
    assert part.batches < whole.batches
    assert part.variance_ratio == pytest.approx(whole.variance_ratio, abs=0.15)


def test_seeds_that_stream_from_files_are_counted_with_their_buffers(tmp_path: Path) -> None:
    in_memory, in_files = both(tmp_path)
    strategy = Streaming(block_rows=100, buffer_rows=1000)
    assert bytes_per_seed(in_files, strategy) > bytes_per_seed(in_memory, strategy) + 3 * 1000 * 16
    assert bytes_per_seed(in_memory, MiniBatch()) == 2 * 4 * 2000
    needs = Footprint(fixed=10, per_replica=5, per_seed=100)
    assert [needs.fitting(free, replicas=40, seeds=3) for free in (120, 240, 330, 340, 10_000)] == [1, 2, 4, 6, 40]


def test_few_rows_of_a_large_table_are_drawn_without_numbering_it() -> None:
    rows = drawn(10**12, 1000)
    assert len(set(rows.tolist())) == 1000
    np.testing.assert_array_equal(drawn(100, 10), np.random.default_rng(0).permutation(100)[:10])


def test_a_window_holds_the_micro_batches_in_their_order(tmp_path: Path) -> None:
    files, strategy = stored(tmp_path, 300), Streaming(batch_rows=40, block_rows=16, buffer_rows=64)
    (run,) = runs(strategy, Population(300), [0, 1], Plan(epochs=1, evaluations=1), 1000)
    with Stream(files, strategy, [0, 1], longest_run(strategy, Population(300), 1000)) as stream:
        batches = list(batches_of(stream.delivered(run)[1], run, CPU))
    np.testing.assert_array_equal(torch.cat([features[..., 0] for features, _ in batches], dim=1), run.rows)
