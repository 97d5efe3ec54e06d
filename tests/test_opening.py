"""A comparison's MLflow run, opened by a process of its own while the command imports."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tasks import opening, spool, store, tracking
from tasks.opening import Wanted
from tasks.provenance import OWNER, provenance

DATASET = {"name": "prices", "digest": "abc", "source_type": "local", "source": "{}", "schema": "{}", "profile": "{}"}


@pytest.fixture(autouse=True)
def own_store(mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHLAB_MLRUNS", str(mlruns))
    store.client.cache_clear()


def wanted(before: str | None = None) -> Wanted:
    tags = {**provenance(), "batchlab.kind": "comparison"}
    params = {"train.epochs": "3", "seed": "0"}
    return Wanted(experiment="comparison-prices", name="comparing on prices", tags=tags, params=params, dataset=DATASET, before=before)


def told_of(found: opening.Opened) -> tuple[object, ...]:
    """What the store has of a run that its moment and id do not decide."""
    run = store.client().get_run(found.run_id)
    inputs = [(item.dataset.name, item.dataset.digest, [tag.value for tag in item.tags]) for item in run.inputs.dataset_inputs]
    return run.info.experiment_id, run.info.run_name, run.info.status, run.data.tags, run.data.params, inputs


def test_a_process_of_its_own_opens_the_run_that_this_one_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "__init__.py").write_text("raise SystemExit('a folder of that name where one works is not ours')")
    monkeypatch.chdir(tmp_path)
    opening.begin()
    helper = opening.helper.process
    assert helper is not None
    apart, here = opening.opened(wanted()), opening.opened_here(wanted())
    assert helper.returncode is not None, "it has ended"
    assert apart.run_id != here.run_id
    assert told_of(apart) == told_of(here)
    assert store.client().get_run(apart.run_id).data.tags[OWNER] == provenance()[OWNER], "the run is this process's, whoever opened it"


def test_a_run_that_was_ended_is_gone_on_with_and_what_it_had_recorded_of_settings_is_removed() -> None:
    before = opening.opened_here(wanted())
    tracking.created_run(before.experiment_id, "mini_batch", {"mlflow.parentRunId": before.run_id})
    store.client().set_terminated(before.run_id, "KILLED")
    opening.begin()
    again = opening.opened(wanted(before.run_id))
    assert (again.run_id, again.taken_up) == (before.run_id, True)
    runs = store.client().search_runs([before.experiment_id])
    assert [(run.info.run_id, run.info.status) for run in runs] == [(before.run_id, "RUNNING")]


def test_one_that_was_deleted_meanwhile_is_not_gone_on_with() -> None:
    before = opening.opened_here(wanted())
    store.client().delete_run(before.run_id)
    found = opening.opened(wanted(before.run_id))
    assert found.run_id != before.run_id
    assert not found.taken_up


@pytest.mark.parametrize("moment", ["before", "after"])
def test_where_that_process_dies_this_one_opens_the_run(moment: str) -> None:
    opening.begin()
    helper = opening.helper.process
    assert helper is not None
    helper.send_signal(signal.SIGKILL if moment == "before" else signal.SIGSTOP)
    if moment == "after":  # it was asked, and never answers
        killer = subprocess.Popen([sys.executable, "-c", f"import os, time; time.sleep(0.5); os.kill({helper.pid}, 9)"])
    found = opening.opened(wanted())
    assert store.client().get_run(found.run_id).info.status == "RUNNING"
    if moment == "after":
        assert killer.wait() == 0


def test_where_the_store_cannot_be_opened_the_command_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    opening.begin()
    with pytest.raises(Exception, match=r"127\.0\.0\.1:9"):
        opening.opened(wanted())


def test_a_process_that_nothing_was_wanted_of_ends() -> None:
    opening.begin()
    helper = opening.helper.process
    assert helper is not None
    opening.end()
    assert helper.wait(60) == -signal.SIGKILL
    assert opening.helper.process is None


def test_that_process_ends_with_the_command_that_began_it() -> None:
    code = "from tasks import opening; opening.begin(); print(opening.helper.process.pid, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        helper = psutil.Process(int(command.stdout.readline()))
        os.kill(command.pid, signal.SIGKILL)
    until = time.monotonic() + 60
    while helper.is_running() and helper.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_it_does_not_import_what_is_trained_with() -> None:
    code = "import sys, tasks.opening; print([name for name in ('torch', 'prefect', 'mlflow') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_samples_of_the_machine_are_kept_and_no_store_is_made_where_one_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks import sampling

    monkeypatch.chdir(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "SECONDS_BETWEEN", 0.01)
        with sampling.sampling("r" * 32):
            until = time.monotonic() + 60
            while len(spool.samples_of("r" * 32)) < 3:
                assert time.monotonic() < until
                time.sleep(0.01)
    assert {"cpu_utilization_percentage", "system_memory_usage_megabytes", "moment"} <= set(spool.samples_of("r" * 32)[0])
    assert not (tmp_path / "mlflow.db").exists()


WAITING = """
import sys, threading
from tasks import sampling, warming

def imported(): return [name for name in ("mlflow", "torch.export._trace", "matplotlib.figure") if name in sys.modules]

warming.begin()
ended = threading.Event()
sampler = threading.Thread(target=sampling._sample, args=("r", ended))
sampler.start()
sampler.join(2)
warming.settle()  # nothing is under way
before = imported(), sampler.is_alive()
ended.set()
sampler.join()
warming.allow()
warming.settle()
print(*before, imported())
"""


def test_what_comes_after_a_search_is_imported_when_it_allows_that_and_waited_for_before_steps_are_timed() -> None:
    done = subprocess.run([sys.executable, "-c", WAITING], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True ['mlflow', 'torch.export._trace', 'matplotlib.figure']"
