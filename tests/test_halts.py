"""Trainings that are killed: what is kept of them in files, and that those which take it up end as if nothing had happened."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchlab.engine.halts import Halt, name_of
from batchlab.engine.optimizers import AdamW
from batchlab.engine.records import Plan, Progress, Trial, TrialResult
from batchlab.search.keeping import Kept
from batchlab.search.saving import latest_of, load, save
from batchlab.strategies import Strategy
from batchlab.strategies.mini_batch import MiniBatch
from tests.test_going_on import BACKENDS, STRATEGIES, TRIALS, assert_same, plan_of, trained

MARKS = [200.0, 600.0, 1000.0]


class Killed(BaseException):
    """Stands for the end of the process."""


def kept_in(folder: Path, said: Callable[[str], None] = lambda text: None) -> Kept:
    return Kept(folder, said, least_seconds=0.0, share=math.inf)


def killed_after(calls: int) -> Callable[[Progress], None]:
    """Return what ends a training when it has told of its progress so often."""
    told = []

    def tell(progress: Progress) -> None:
        told.append(progress)
        if len(told) == calls:
            raise Killed

    return tell


def killed_and_taken_up(folder: Path, strategy: Strategy, plan: Plan, calls: int, **options: object) -> list[TrialResult]:
    """Train until the end comes, again and again, each time from what was kept."""
    for _ in range(200):
        try:
            return trained(strategy, plan, on_progress=killed_after(calls), keeper=kept_in(folder), **options)
        except Killed:
            continue
    raise AssertionError("it never comes to its end")


@BACKENDS
@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: f"{strategy.kind}-{getattr(strategy, 'growth', '')}")
def test_a_training_that_is_killed_again_and_again_ends_as_an_undisturbed_one_bit_for_bit(
    tmp_path: Path, backend: str, strategy: Strategy
) -> None:
    plan = plan_of(backend, optimizer=AdamW())
    killed = killed_and_taken_up(tmp_path / "state", strategy, plan, 2, marks=MARKS)
    for one, other in zip(trained(strategy, plan, marks=MARKS), killed, strict=True):
        assert_same(one, other)
        assert other.curve.wall_seconds == sorted(other.curve.wall_seconds)


@pytest.mark.parametrize("keeps", [{"keep": "settled"}, {"patience": 2}, {}], ids=["settled", "patience", "last"])
def test_what_is_kept_of_the_best_weights_comes_back_too(tmp_path: Path, keeps: dict[str, object]) -> None:
    plan = plan_of("kernels", epochs=12, evaluations=24, **keeps)
    trials = [*TRIALS, Trial(0.9, 1), Trial(1e9, 2)]  # of which one goes up and down, and one diverges
    whole = trained(MiniBatch(batch_rows=16), plan, trials)
    for one, other in zip(whole, killed_and_taken_up(tmp_path, MiniBatch(batch_rows=16), plan, 7, trials=trials), strict=True):
        assert_same(one, other)
        assert one.validation_loss == other.validation_loss


def test_a_training_that_had_come_to_its_end_is_not_made_again(tmp_path: Path) -> None:
    plan = plan_of("kernels")
    whole = trained(MiniBatch(batch_rows=16), plan, keeper=kept_in(tmp_path))
    told: list[Progress] = []
    again = trained(MiniBatch(batch_rows=16), plan, keeper=kept_in(tmp_path), on_progress=told.append)
    assert len(told) == 1  # that of the end
    for one, other in zip(whole, again, strict=True):
        assert_same(one, other)


def test_one_that_ended_is_written_with_the_next_and_not_before_it_is_due(tmp_path: Path) -> None:
    keeper = Kept(tmp_path / "state", lambda text: None, least_seconds=3600.0)
    trained(MiniBatch(batch_rows=16), plan_of("kernels"), keeper=keeper)
    assert not keeper.folder.exists()
    keeper.keep("other", halt_of())
    assert len(list(keeper.folder.glob("*.npz"))) == 2


def halt_of(weights: float = 1.0) -> Halt:
    (result,) = trained(MiniBatch(batch_rows=16), plan_of("kernels"), TRIALS[:1])
    assert result.state is not None
    return Halt([result.state], weights, np.zeros(1, np.int64), np.zeros(1), np.zeros((0, 0)), np.zeros(0), np.zeros(0))


def test_a_name_tells_apart_all_that_changes_a_number() -> None:
    usual = {"strategy": MiniBatch(batch_rows=16), "rows": 200, "trials": [Trial(0.1, 0)], "plan": Plan(), "marks": (1.0,), "begun": None}

    def name(**changed: Any) -> str:
        return name_of(**usual | changed)

    changes: list[dict[str, Any]] = [
        {"rows": 201},
        {"strategy": MiniBatch(batch_rows=17)},
        {"trials": [Trial(0.2, 0)]},
        {"trials": [Trial(0.1, 1)]},
        {"trials": [Trial(0.1, 0, division=1)]},
        {"trials": [Trial(0.1, 0, start={"weight": np.ones(3)})]},
        {"trials": [Trial(0.1, 0, start={"weight": np.zeros(3)})]},
        {"trials": [Trial(0.1, 0), Trial(0.1, 0)]},
        {"plan": Plan(epochs=3)},
        {"marks": (2.0,)},
        {"begun": halt_of().states},
    ]
    assert name() == name()
    assert len({name(), *(name(**change) for change in changes)}) == 1 + len(changes)


# Files


def test_a_file_that_was_cut_changed_or_is_of_another_kind_gives_way_to_the_one_before_and_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    keeper = kept_in(tmp_path, said.append)
    keeper.keep("one", halt_of(1.0))
    keeper.keep("one", halt_of(2.0))
    path = tmp_path / "one.npz"
    whole = path.read_bytes()
    found = kept_in(tmp_path, said.append).found("one")
    assert found is not None
    assert found.seconds == 2.0
    changed = [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in range(0, len(whole), len(whole) // 50)]
    for damage in (b"", whole[:-1], whole + b" ", *changed):
        path.write_bytes(damage)
        found = kept_in(tmp_path, said.append).found("one")
        assert found is not None
        assert found.seconds == 1.0
        assert str(path) in said[-1]
        assert said[-1].endswith("It is started again.")


def test_states_that_cannot_be_written_are_told_of_once_and_stop_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said: list[str] = []
    keeper = kept_in(tmp_path / "file" / "state", said.append)  # under a file no folder can be made
    whole = trained(MiniBatch(batch_rows=16), plan_of("kernels"), marks=MARKS)
    for one, other in zip(whole, trained(MiniBatch(batch_rows=16), plan_of("kernels"), marks=MARKS, keeper=keeper), strict=True):
        assert_same(one, other)
    assert len(said) == 1
    assert "could not be written" in said[0]


def test_what_cannot_be_written_whole_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    save(halt_of(1.0), path)
    broken = halt_of(2.0)
    object.__setattr__(broken, "kept_weights", np.array([object()]))  # which no file may hold
    with pytest.raises(ValueError, match="pickle"):
        save(broken, path)
    assert [state.seconds for state in latest_of(path, Halt) if isinstance(state, Halt)] == [1.0]
    assert [item.name for item in tmp_path.iterdir()] == ["one.npz"]
    assert load(path, Halt).seconds == 1.0
