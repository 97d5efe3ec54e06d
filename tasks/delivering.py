"""Recording, later and by another process, what was told while MLflow or Prefect was away."""

from filelock import FileLock, Timeout

from tasks import outages, prefect_reports, progress, spool, store, unfinished
from tasks.data import opened
from tasks.drawing import page_links, page_title
from tasks.recording import Ended, Recording, best_first, recorded_setting
from tasks.reporting import concluded
from tasks.spool import Told
from tasks.tracking import ended_on_error, is_gone, reopened


def deliver() -> int:
    """Record every verdict that waits, the earliest first, until one cannot be; return how many were.

    Another process that does is left to it. What fails is told in a line and stays kept: the command whose work this follows is done.
    """
    if not store.something_is_spooled():
        return 0
    count = 0
    try:
        with FileLock(store.spool() / ".lock", timeout=0):
            waiting = spool.waiting()
            if waiting and outages.store_answers():
                while count < len(waiting) and _delivered(waiting[count]):
                    count += 1
    except Timeout:
        pass
    return count


def _delivered(item: Told) -> bool:
    """Record one verdict; whether nothing of it is left to record."""
    run_id = item.comparison.run_id
    progress.announce(f"recording the verdict on {item.comparison.profile.source.name} that was told before")
    try:
        if is_gone(run_id):
            progress.announce("its MLflow run was deleted: it is not recorded")
            spool.forget(run_id)
        elif item.result is not None:
            _tell_prefect(item)
        else:
            _record(item)
    except Exception as error:
        progress.announce(f"it is not recorded yet: {outages.reason_of(error) or error}")
    return not spool.holds(run_id)


def _record(item: Told) -> None:
    comparison = item.comparison
    experiment = opened(comparison.profile, comparison.table, comparison.split)
    search = Ended(experiment, *spool.evidence_of(item))
    recording = Recording(search, item, waits=False)
    recording.patience.tried(lambda: reopened(comparison.run_id, {}), None)
    with ended_on_error(comparison.run_id):
        results = {label: recorded_setting(label, recording) for label in best_first(search.findings)}
        concluded(recording, [results[label] for label in search.findings.labels])


def _tell_prefect(item: Told) -> None:
    """Tell Prefect what only it lacks."""
    comparison = item.comparison
    experiment = opened(comparison.profile, comparison.table, comparison.split)
    prefect_reports.tell(item, page_title(experiment), page_links(comparison))
    spool.forget(comparison.run_id)
    unfinished.forget(comparison.run_id)
