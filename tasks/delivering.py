"""Recording, later and by another process, what was told while MLflow or Prefect was away."""

from filelock import FileLock, Timeout

from batchlab.errors import BadInput
from tasks import outages, prefect_reports, progress, spool, store
from tasks.data import opened
from tasks.recording import Ended, Recording, best_first, recorded_setting
from tasks.reporting import concluded, page_links, page_title
from tasks.spool import Told
from tasks.tracking import ended_on_error, reopened


def deliver() -> int:
    """Record every verdict that waits, the earliest first, until one cannot be; return how many were. Another process that does is left
    to it."""
    if not store.something_is_spooled() or not outages.store_answers():
        return 0
    with_all = 0
    try:
        with FileLock(store.spool() / ".lock", timeout=0):
            for item in spool.waiting():
                if not _delivered(item):
                    break
                with_all += 1
    except Timeout:
        return 0
    return with_all


def _delivered(item: Told) -> bool:
    """Record one verdict; whether all of it is recorded now. One whose run or rows are gone is told of and forgotten."""
    from mlflow.exceptions import MlflowException

    run_id = item.comparison.run_id
    progress.announce(f"recording the verdict on {item.comparison.profile.source.name} that was told before")
    try:
        _recorded(item)
    except (BadInput, FileNotFoundError) as error:
        progress.announce(f"it cannot be recorded any more: {error}")
        spool.forget(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        progress.announce(f"it cannot be recorded any more: {error.message}")
        spool.forget(run_id)
    return not spool.holds(run_id)


def _recorded(item: Told) -> None:
    comparison = item.comparison
    experiment = opened(comparison.profile, comparison.table, comparison.split)
    if item.result is not None:
        _told_prefect(item, page_title(experiment))
        return
    search = Ended(experiment, *spool.evidence_of(item))
    recording = Recording(search, item, waits=False)
    recording.patience.tried(lambda: reopened(comparison.run_id, {}), None)
    with ended_on_error(comparison.run_id):
        results = {label: recorded_setting(label, recording) for label in best_first(search.findings)}
        concluded(recording, [results[label] for label in search.findings.labels])


def _told_prefect(item: Told, title: str) -> None:
    try:
        prefect_reports.tell(item, title, page_links(item.comparison))
    except Exception as error:
        if outages.reason_of(error) is None:
            raise
        progress.announce(f"Prefect at {item.comparison.prefect} does not answer yet")
        return
    spool.forget(item.comparison.run_id)
