"""Tasks that search: each part of the library's search is one task run, named after what it does."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prefect import task
from prefect.cache_policies import NO_CACHE

from batchlab.cluster.chosen import hands_for
from batchlab.report.wording import in_short
from batchlab.search.part import Part
from batchlab.search.search import Search
from tasks import outages, progress, spool, store, unfinished, warming
from tasks.data import opened
from tasks.spool import Told
from tasks.tracking import log_samples, log_trials
from tasks.unfinished import ComparisonRun

ENDING = "ending with the verdict of what is known; Ctrl-C once more gives it up"


@task(cache_policy=NO_CACHE)
def plan_search(comparison: ComparisonRun) -> Search:
    """Return the search that the profile asks for: at its beginning, or where the one that the run takes up was."""
    kept = unfinished.kept(comparison.run_id)
    known = kept.known() if comparison.taken_up else None
    if known is not None:
        progress.announce(
            f"taking up a comparison of the same rows, settings and code that did not come to its end: {known.all_trainings:,} trainings, "
            f"{known.seconds:.0f} s of search (--fresh starts anew)"
        )
    experiment = opened(comparison.profile, comparison.table, comparison.split)
    return Search(experiment, progress.within, known, kept, hands_for(experiment))


@task(task_run_name="{part.label}", cache_policy=NO_CACHE)
def work(part: Part, search: Search) -> None:
    """Run one part of the search."""
    progress.begin(f"{_so_far(search)}{part.label}", lambda: search.share, lambda: ENDING if search.stopped() else None)
    if part.timed:
        warming.settle()
    try:
        part.run()
    except BaseException:
        progress.finished()
        raise
    search.keep()
    if search.rule.max_minutes >= warming.LEAST_MINUTES and search.known.standings.share > 0:  # its first rung is over, which asks for most
        warming.allow()


@task(cache_policy=NO_CACHE)
def tell(search: Search, comparison: ComparisonRun) -> Told:
    """Tell the verdict as soon as it is known, with what the recommended setting's model scores on the test rows; records follow.

    It is kept on disk first, so that it can be recorded whatever becomes of this process, MLflow and Prefect.
    """
    found, experiment = search.findings, search.experiment
    scores = {} if found.best is None or not found.best.shown.weights else experiment.test_scores(found.best.shown)
    told = spool.told(comparison)
    _kept(lambda: spool.keep(told, found, search.known), "the verdict; it is lost unless it can be recorded now")
    progress.conclude(search, scores)
    warming.allow()
    return told


def _kept(write: Callable[[], None], what: str) -> None:
    """Write something to the store's folder; a disk that does not take it stops nothing and is told, once for each reason."""
    try:
        write()
    except OSError as error:
        progress.announce_once(f"{store.folder()} does not take {what} ({error.strerror})")


@contextmanager
def trials_kept(search: Search, comparison: ComparisonRun) -> Iterator[None]:
    """Record what a search that is interrupted or fails inside the block has come to, where the store answers: the error that ended it is
    to be told. An interruption may come between two parts as well as within one."""
    try:
        yield
    except BaseException:
        if outages.store_answers():
            try:
                with outages.impatient():
                    log_trials(comparison.run_id, search.known, search.experiment.loss_unit)
                    log_samples(comparison.run_id)
            except Exception as error:
                if outages.reason_of(error) is None:
                    raise
        raise


def _so_far(search: Search) -> str:
    """Say what loss the leader has, and who that is: first, for a terminal may have no room for more."""
    leader = search.known.standings.leader
    if leader is None:
        return ""
    return f"so far loss {leader.loss * search.experiment.loss_unit:.4g}, {in_short(leader.setting)} · "
