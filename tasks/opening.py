"""A comparison's MLflow run, opened by a process of its own: MLflow takes seconds to import, and the command imports what it trains with
meanwhile, on another core.

`python -m tasks.opening` reads one line, what is `Wanted`, and answers with one, what was `Opened`. Where it fails, or where none was
begun, the same is done in this process, which then tells what is wrong.
"""

import atexit
import os
import subprocess
import sys
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from batchlab.records import Record
from tasks import outages, store, tracking

_helpers: list["subprocess.Popen[str]"] = []


class Wanted(Record):
    """The run that a comparison wants: in which experiment, under which name, with which tags, parameters and data set
    (`tracking.dataset_of`). `before` is the run of one that was ended, to be gone on with."""

    experiment: str
    name: str
    tags: dict[str, str]
    params: dict[str, str]
    dataset: dict[str, str]
    before: str | None = None


class Opened(Record):
    """The run, and whether it is the one before. `failure` says why it could not be described; it is again at the comparison's end."""

    experiment_id: str
    run_id: str
    taken_up: bool
    failure: str | None = None


def begin() -> None:
    """Start the process that is to open the next comparison's run."""
    command = [sys.executable, "-P", "-m", "tasks.opening"]  # -P: a folder of that name where the command was started is not ours
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    atexit.register(end)
    with suppress(OSError):
        # In a session of its own: Ctrl-C is this process's to deal with, and its end is that of the other's input.
        _helpers.append(subprocess.Popen(command, text=True, start_new_session=True, **pipes))


def end() -> None:
    """End a process that was begun and that nothing was wanted of."""
    while _helpers:
        _helpers.pop().kill()


def opened(wanted: Wanted) -> Opened:
    """Open the run, by the process that was begun for it if there is one."""
    found = _answer(_helpers.pop(), wanted) if _helpers else None
    return found or opened_here(wanted)


def _answer(helper: "subprocess.Popen[str]", wanted: Wanted) -> Opened | None:
    """Return the process's answer; None where it has none."""
    assert helper.stdin is not None
    assert helper.stdout is not None
    try:
        print(wanted.model_dump_json(), file=helper.stdin, flush=True)
        return Opened.model_validate_json(helper.stdout.readline())
    except (OSError, ValidationError):
        return None


def opened_here(wanted: Wanted) -> Opened:
    """Open the run; runs that a killed process left RUNNING are ended first."""
    store.client()
    with outages.impatient():
        tracking.end_abandoned()
        experiment_id = store.experiment_id(wanted.experiment)
        if wanted.before is None or tracking.is_gone(wanted.before):
            run_id = tracking.created_run(experiment_id, wanted.name, wanted.tags)
        else:
            run_id = wanted.before
            tracking.reopened(run_id, wanted.tags)
            tracking.remove_children(experiment_id, run_id)
        failure = None
        try:
            describe(run_id, wanted)
        except Exception as error:
            failure = outages.reason_of(error)
            if failure is None:
                raise
    return Opened(experiment_id=experiment_id, run_id=run_id, taken_up=run_id == wanted.before, failure=failure)


def describe(run_id: str, wanted: Wanted) -> None:
    """Write what is compared, on which machine; written again it changes nothing."""
    tracking.log_params(run_id, wanted.params)
    tracking.log_dataset(run_id, wanted.dataset, "comparison")


def main() -> None:
    """Import MLflow and make its database while nothing is wanted yet; then open what is."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what MLflow prints is no answer
    store.client()
    if line := sys.stdin.readline():
        print(opened_here(Wanted.model_validate_json(line)).model_dump_json(), file=answers, flush=True)
    os._exit(0)  # taking down what was imported would take the search's time


if __name__ == "__main__":
    main()
