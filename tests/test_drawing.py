"""A comparison's pages and pictures, drawn by a process of their own while settings are recorded."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from batchlab.search.search import Search
from tasks import drawing, spool, store
from tasks.drawing import Drawn, Wanted
from tasks.recording import plan_recording
from tests.test_outages import begun

SECONDS = {"full_batch": 0.25}


@pytest.fixture(scope="module")
def told(searched: Search, store_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[spool.Told]:
    """A verdict that is kept on disk, as after a search."""
    folder = tmp_path_factory.mktemp("drawing") / "mlruns"
    shutil.copytree(store_template, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BATCHLAB_MLRUNS", str(folder))
        patch.setenv("LOKY_MAX_CPU_COUNT", "2")
        store.client.cache_clear()
        told = spool.told(begun(searched))
        spool.keep(told, searched.findings, searched.known)
        yield told
    store.client.cache_clear()


@pytest.fixture(scope="module")
def wanted(told: spool.Told, searched: Search) -> Wanted:
    return drawing.wanted_of(told.comparison, searched.experiment)


@pytest.fixture(scope="module")
def here(wanted: Wanted, searched: Search) -> Drawn:
    """What this process draws."""
    return drawing.Sheet(wanted, searched.findings, searched.experiment).drawn(SECONDS)


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    yield
    drawing.helper.end()


def helper() -> "subprocess.Popen[str]":
    assert drawing.helper.process is not None
    return drawing.helper.process


def test_a_process_of_its_own_draws_what_this_one_would(
    wanted: Wanted, here: Drawn, searched: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "__init__.py").write_text("raise SystemExit('a folder of that name where one works is not ours')")
    monkeypatch.chdir(tmp_path)
    drawing.want(wanted)
    drawing.helper.wait_until_ready()
    process = helper()
    with monkeypatch.context() as patch:
        patch.setattr(drawing, "Sheet", None)  # nothing is drawn here
        apart = drawing.drawn(wanted, searched.findings, searched.experiment, SECONDS)
    assert apart == here
    assert process.returncode is not None, "it has ended"
    assert apart.page.count("<svg") > apart.data_page.count("<svg") > 0
    assert "recording" in apart.page
    assert set(apart.pictures) == {drawing.DATA, drawing.VERDICT}
    assert all(picture.startswith(b"\x89PNG") for picture in apart.pictures.values())


@pytest.mark.parametrize("fate", ["killed", "stuck", "without a verdict on disk"])
def test_where_that_process_fails_this_one_draws(
    fate: str, wanted: Wanted, here: Drawn, searched: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = wanted.model_copy(update={"run_id": "0" * 32}) if fate.startswith("without") else wanted
    drawing.want(asked)
    if fate == "killed":
        helper().kill()
    elif fate == "stuck":
        monkeypatch.setattr("tasks.beside.ANSWER_SECONDS", 0.5)
        helper().send_signal(signal.SIGSTOP)
    assert drawing.drawn(asked, searched.findings, searched.experiment, SECONDS) == here


def test_what_an_attempt_that_failed_had_wanted_is_not_drawn_for_the_next_one(wanted: Wanted, here: Drawn, searched: Search) -> None:
    drawing.want(wanted.model_copy(update={"title": "another title"}))
    before = helper()
    drawing.want(wanted)
    assert before.returncode == -signal.SIGKILL
    assert drawing.drawn(wanted, searched.findings, searched.experiment, SECONDS) == here


def test_on_one_core_and_where_memory_is_bounded_none_is_begun(
    told: spool.Told, wanted: Wanted, searched: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("LOKY_MAX_CPU_COUNT", "1")
        drawing.want(wanted)
    assert drawing.helper.process is None
    bounded = searched.experiment.profile.model_copy(update={"memory_gib": 1.0})
    monkeypatch.setitem(searched.experiment.__dict__, "profile", bounded)
    plan_recording.fn(searched, told)
    assert drawing.helper.process is None


def test_that_process_ends_with_the_command_that_began_it() -> None:
    code = "from tasks import drawing; drawing.helper.begin(); print(drawing.helper.process.pid, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        process = psutil.Process(int(command.stdout.readline()))
        os.kill(command.pid, signal.SIGKILL)
    process.wait(60)


DRAWS: Any = """
import sys
from tasks import drawing, spool
from batchlab.experiment import Experiment
from batchlab.rows.split import Split
from batchlab.table import PackedTable
wanted = drawing.Wanted.model_validate_json(sys.argv[1])
told = spool.of(wanted.run_id)
compared = told.comparison
experiment = Experiment(compared.profile, PackedTable.open(compared.table), Split.open(compared.split))
assert drawing.Sheet(wanted, spool.evidence_of(told)[0], experiment).drawn({}).page
print(sorted({"torch", "prefect", "mlflow"} & set(sys.modules)))
"""


def test_what_draws_imports_neither_torch_nor_prefect_nor_mlflow(wanted: Wanted) -> None:
    command = [sys.executable, "-c", DRAWS, wanted.model_dump_json()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
