"""Processes that train together, as the command has them: started, asked, stopped, killed; what they come to is one process's."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from batchlab.cluster.chosen import hands_for, trainer_for
from batchlab.cluster.rank_hands import RankHands, check_devices
from batchlab.config import load_profile
from batchlab.engine.loop import train
from batchlab.engine.optimizers import Sgd
from batchlab.engine.records import Plan, Progress, Trial, TrialResult
from batchlab.errors import BadInput, BatchlabError
from batchlab.experiment import Experiment
from batchlab.imported import GIVEN
from batchlab.report.dividing import dividing_section, dividing_text
from batchlab.results import OverProcesses
from batchlab.rows.split import split
from batchlab.search.dividing import counts_up_to
from batchlab.search.keeping import Kept
from batchlab.search.search import Search
from batchlab.strategies.mini_batch import MiniBatch
from batchlab.table import pack
from tests.conftest import CHECKOUT

DOUBLE = ("train.processes=2", "train.precision=float64", "train.backend=torch")
TRIALS = (Trial(0.01, 0), Trial(0.03, 1))
STAYS = """
import sys
from pathlib import Path
from tests.test_rank_hands import experiment_of
from batchlab.cluster.rank_hands import RankHands

hands = RankHands(experiment_of(Path(sys.argv[1])))
print(hands.group.torchrun.pid, flush=True)
sys.stdin.read()
"""


def experiment_of(folder: Path, *more: str, data: str = "diabetes") -> Experiment:
    profile = load_profile("quick", data=data, strategies=["mini_batch"], overrides=[*DOUBLE, *more])
    table = pack(profile.source, profile.named_columns(), folder / "tables", profile.seed)
    return Experiment(profile, table, split(table, profile.split, profile.seed))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return experiment_of(tmp_path_factory.mktemp("ranks"))


@pytest.fixture(scope="module")
def hands(made: Experiment) -> Iterator[RankHands]:
    found = RankHands(made)
    yield found
    found.close()


def what(made: Experiment, **plan: Any) -> tuple[Any, ...]:
    limits = Plan(**{"epochs": 3, "evaluations": 3, "precision": "float64", "processes": 2, "optimizer": Sgd(), **plan})
    return made.data, made.model, MiniBatch(batch_rows=32), TRIALS, limits, made.loss, made.device


def weights(results: list[TrialResult]) -> np.ndarray:
    return np.array([np.concatenate([value.ravel() for value in result.weights.values()]) for result in results])


def ranks_of(hands: RankHands) -> list[psutil.Process]:
    assert hands.group.torchrun is not None
    return psutil.Process(hands.group.torchrun.pid).children()


@pytest.mark.parametrize("processes", [1, 2])
def test_a_training_comes_to_what_one_process_comes_to_and_says_how_far_it_is(made: Experiment, hands: RankHands, processes: int) -> None:
    told: list[Progress] = []
    found = hands.train(*what(made, processes=processes), told.append, marks=[100.0, 900.0])
    alone = train(*what(made), marks=[100.0, 900.0])
    np.testing.assert_allclose(weights(found), weights(alone), rtol=1e-10, atol=1e-12)
    assert [result.curve.rows_seen for result in found] == [result.curve.rows_seen for result in alone]
    assert told
    assert (found[0].waiting_seconds > 0) == (processes > 1)


def test_rows_are_written_for_the_processes_once(made: Experiment, hands: RankHands) -> None:
    for _ in range(2):
        hands.train(*what(made), marks=[64.0])
    assert len(list(Path(hands.scratch.name).glob("*.bench"))) == 1


def test_a_training_ends_where_it_is_when_it_is_enough(made: Experiment, hands: RankHands) -> None:
    asked: list[float] = []

    def enough() -> bool:
        asked.append(time.monotonic())
        return len(asked) > 3

    found = hands.train(*what(made, epochs=10**6, evaluations=1), should_stop=enough)
    assert 0 < found[0].rows_seen < 10**6 * made.data.population.row_count
    assert len(hands.train(*what(made), marks=[64.0])) == 2


def test_what_is_wrong_with_a_training_is_said_and_the_processes_go_on(made: Experiment, hands: RankHands) -> None:
    too_large = (made.data, made.model, MiniBatch(batch_rows=10**6), *what(made)[3:])
    before = ranks_of(hands)
    with pytest.raises(BadInput, match=r"1,?000,?000"):
        hands.train(*too_large)
    hands.train(*what(made), marks=[64.0])
    assert ranks_of(hands) == before


def test_a_killed_process_ends_the_others_and_the_training_goes_on_from_where_it_was_kept(
    made: Experiment, hands: RankHands, tmp_path: Path
) -> None:
    hands.train(*what(made), marks=[64.0])
    first, kept = ranks_of(hands), Kept(tmp_path / "kept", print, least_seconds=0.0, share=1.0)
    killed: list[int] = []

    def kills(progress: Progress) -> None:
        if not killed and progress.rows_seen > 0:
            killed.append(first[1].pid)
            first[1].kill()

    found = hands.train(*what(made, epochs=300), kills, keeper=kept)
    assert killed
    assert not any(process.is_running() for process in first)
    np.testing.assert_allclose(weights(found), weights(train(*what(made, epochs=300))), rtol=1e-9, atol=1e-11)


@pytest.mark.slow
def test_processes_that_end_again_and_again_are_given_up_with_why(made: Experiment) -> None:
    hands = RankHands(made)

    def kills(progress: Progress) -> None:
        for process in ranks_of(hands):
            process.kill()

    try:
        with pytest.raises(BatchlabError, match=r"the processes of a training ended 5 times in a row; the last time: exitcode *: -9"):
            hands.train(*what(made, epochs=10**6), kills)
    finally:
        hands.close()
    assert hands.group.torchrun is None


def test_when_the_command_is_killed_its_processes_end(tmp_path: Path) -> None:
    command = subprocess.Popen(
        [sys.executable, "-c", STAYS, str(tmp_path)], cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert command.stdout is not None
    torchrun = psutil.Process(int(command.stdout.readline()))
    everyone = [torchrun, *torchrun.children()]
    assert len(everyone) == 3
    command.send_signal(signal.SIGKILL)
    command.wait()
    _, alive = psutil.wait_procs(everyone, timeout=120)
    assert alive == []


@pytest.mark.slow
def test_a_comparison_over_two_processes_has_the_trainings_of_one(tmp_path: Path) -> None:
    untimed = ("search.max_minutes=inf", "search.objective=loss", "search.rates=3", "search.seeds=3", "search.optimizers=['sgd']")
    small = (*untimed, "search.batch_rows=[8,64]", "search.timings=4", "search.yardsticks=false", "train.epochs=4")
    found = {}
    for processes in (1, 2):
        made = experiment_of(tmp_path, *small, f"train.processes={processes}")
        search = Search(made, hands=hands_for(made))
        for part in search.parts():
            part.run()
        found[processes] = search
    one, two = (found[processes].known.confirmed for processes in (1, 2))
    assert [setting.learning_rate for setting in one] == [setting.learning_rate for setting in two]
    for setting in one:
        losses = [[result.validation_loss for result in known[setting]] for known in (one, two)]
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-8)
    timed = found[2].findings.steps_over_processes
    assert {item.processes for item in timed} == {1, 2}
    assert {item.batch_rows for item in timed} >= {8, 64}
    assert found[1].findings.steps_over_processes == ()


def test_a_retraining_has_them_too(made: Experiment) -> None:
    with trainer_for(made) as trains:
        found = trains(*what(made), marks=[200.0])
    np.testing.assert_allclose(weights(found), weights(train(*what(made), marks=[200.0])), rtol=1e-10, atol=1e-12)


def test_what_other_processes_cannot_import_or_where_they_would_be_too_many_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experiment: Callable[..., Experiment]
) -> None:
    with pytest.raises(BadInput, match=r"run\.on=ray hands out whole trainings, and train\.processes=2 divides each"):
        hands_for(experiment(overrides=["train.processes=2", "run.on=ray"]))
    made = experiment(overrides=["train.processes=2"])
    monkeypatch.setitem(GIVEN, made.profile.train.loss, print)
    with pytest.raises(BadInput, match=r"cannot import the loss of this session: put it into a file, and name it as package\.module"):
        hands_for(made)
    with pytest.raises(BadInput, match=rf"train\.processes is 999, and this machine has {torch.cuda.device_count()} GPUs"):
        check_devices(999, torch.device("cuda"))
    check_devices(999, torch.device("cpu"))


def test_steps_are_timed_over_powers_of_two_and_all_processes() -> None:
    assert [counts_up_to(count) for count in (1, 2, 3, 4, 6, 8)] == [[1], [1, 2], [1, 2, 3], [1, 2, 4], [1, 2, 4, 6], [1, 2, 4, 8]]


def over(processes: int, label: str, batch_rows: int, step: float, waiting: float, steps: float | None) -> OverProcesses:
    return OverProcesses(
        label=label,
        batch_rows=batch_rows,
        processes=processes,
        seconds_per_step=step,
        waiting_share=waiting,
        seconds_to_target=None if steps is None else step * steps,
    )


def test_what_processes_gain_is_said_for_the_batch_that_gains_most_and_the_one_that_gains_least() -> None:
    found = [
        over(1, "mini_batch 32", 32, 0.001, 0.0, 1000),
        over(1, "mini_batch 2048", 2048, 0.020, 0.0, 100),
        over(2, "mini_batch 32", 32, 0.002, 0.75, 1000),
        over(2, "mini_batch 2048", 2048, 0.0125, 0.2, 100),
    ]
    assert dividing_text(found) == [
        "Over 2 processes of this machine a step of mini_batch 2048 takes 0.625 times as long as in one (20% of it waiting for the others' "
        "gradients) and a step of mini_batch 32 takes 2 times as long as in one (75% of it waiting for the others' gradients). In one "
        "process the target is reached soonest with mini_batch 32 (1 s), over 2 with mini_batch 2048 (1.25 s): one process is enough."
    ]
    quicker = [*found[:3], over(2, "mini_batch 2048", 2048, 0.008, 0.2, 100)]
    assert dividing_text(quicker)[0].endswith("over 2 with mini_batch 2048 (800 ms): 2 processes are worth it.")
    assert dividing_text(found[:2]) == []
    assert dividing_text([]) == []


def test_of_targets_that_are_not_reached_nothing_is_promised() -> None:
    found = [over(count, "full_batch", 1000, 0.01 / count, 0.1, None) for count in (1, 2)]
    assert dividing_text(found)[0].endswith("(10% of it waiting for the others' gradients).")
    page = dividing_section(found)
    assert page.count("<tr>") >= 2
    assert "–" in page


def test_processes_have_the_cores_between_them(made: Experiment, hands: RankHands) -> None:
    hands.train(*what(made), marks=[64.0])
    threads = {process.environ()["OMP_NUM_THREADS"] for process in ranks_of(hands)}
    assert threads == {str(max(1, len(os.sched_getaffinity(0)) // 2))}
