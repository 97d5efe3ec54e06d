"""A comparison's MLflow run, opened by a process of its own: MLflow takes seconds to import, and the command imports what it trains with
meanwhile, on another core.

`python -m tasks.opening` says when it is ready, reads one line, what is `Wanted`, and answers with one, what was `Opened`. Where it
fails, or where none was begun, the same is done in this process, which then tells what is wrong.
"""

import os
import sys

from pydantic import ValidationError

from batchlab.records import Record
from tasks import outages, store, tracking
from tasks.beside import Beside, answering

helper = Beside("tasks.opening")


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
    helper.begin()


def end() -> None:
    """End a process that was begun and that nothing was wanted of."""
    helper.end()


def opened(wanted: Wanted) -> Opened:
    """Open the run, by the process that was begun for it if there is one."""
    said = helper.answer() if helper.told(wanted.model_dump_json()) else ""
    try:
        found = Opened.model_validate_json(said) if said else None
    except ValidationError:
        found = None
    helper.end()
    return found or opened_here(wanted)


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
    answer = answering()
    store.client()
    answer("ready")
    if line := sys.stdin.readline():
        answer(opened_here(Wanted.model_validate_json(line)).model_dump_json())
    os._exit(0)  # taking down what was imported would take the search's time


if __name__ == "__main__":
    main()
