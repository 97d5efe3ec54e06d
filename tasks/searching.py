"""Tasks that search: each part of the library's search is one task run, named after what it does."""

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from batchlab.search.search import Part, Search
from tasks import progress
from tasks.data import opened
from tasks.recording import ComparisonRun
from tasks.tracking import log_trials


@task(cache_policy=NO_CACHE)
def plan_search(comparison: ComparisonRun) -> Search:
    """Return the search that the profile asks for; nothing of it has run yet."""
    return Search(opened(comparison.profile, comparison.table, comparison.split), progress.within)


@task(task_run_name="{part.label}", cache_policy=NO_CACHE)
def work(part: Part, search: Search, comparison: ComparisonRun) -> None:
    """Run one part of the search; when it is interrupted or fails, the trials so far are kept."""
    progress.begin(part.label, part.number, search.part_count)
    try:
        part.run()
    except BaseException:
        log_trials(comparison.run_id, search)
        raise
    if part.label == "estimate":
        text = f"{search.planned_trainings:,} trainings of {search.budget_rows:,} rows each: {search.predicted()}"
        get_run_logger().info(text)
        progress.announce(text)
