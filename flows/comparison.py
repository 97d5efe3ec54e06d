"""The main flow: bring in rows, split them, search every strategy's best setting, tell the verdict, record and score, report."""

from pathlib import Path

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from batchlab.config import Profile, load_profile
from batchlab.results import Comparison
from flows import ending
from tasks import progress
from tasks.abandoned import claim
from tasks.data import divide, ingest
from tasks.delivering import deliver
from tasks.recording import best_first, plan_recording, record
from tasks.reporting import comparison_run, conclude
from tasks.searching import plan_search, tell, trials_kept, work


# One worker thread, and every task on it: strategies are timed, so none may train beside another, and torch work on a second
# thread would make OpenMP's threads outnumber the cores, which slows small steps threefold (docs/adr/0006).
@flow(name="comparison", task_runner=ThreadPoolTaskRunner(max_workers=1), on_running=[claim], log_prints=False)
def comparison(
    profile: str = "quick",
    data: str | None = None,
    target: str | None = None,
    task: str | None = None,
    strategies: list[str] | None = None,
    overrides: list[str] | None = None,
    seed: int | None = None,
    fresh: bool = False,
) -> Comparison:
    """Compare batching strategies on one data set.

    Args:
        profile: A shipped profile (lesson, lesson-raw, quick, full) or the path of a TOML file.
        data: A bundled data set, `synthetic`, a CSV file, a Parquet file or a folder of them; the profile's source when left out.
        target: The column to predict.
        task: regression, binary or multiclass; inferred from the target when left out.
        strategies: Names of the strategies to compare; all of the profile's when left out.
        overrides: Settings on top of the profile, as key=value, for example train.epochs=200.
        seed: Seed of the split, the initial weights and the order of rows.
        fresh: Start anew, also where one of the same rows, settings and code did not come to its end.
    """
    settings = load_profile(profile, data=data, target=target, task=task, strategies=strategies, overrides=overrides or [], seed=seed)
    table = ingest.submit(settings).result()
    parts = divide.submit(settings, table).result()
    return ending.known(compared(settings, table, parts, fresh))


def compared(settings: Profile, table: Path, parts: Path, fresh: bool = False) -> Comparison:
    """Search, tell the verdict, record and conclude on a packed table and its split, within the flow that calls.

    What was told before, while MLflow or Prefect was away, is recorded first.
    """
    with comparison_run(settings, table, parts, fresh) as run:
        search = plan_search.submit(run).result()
        with trials_kept(search, run):
            for part in search.parts():
                work.submit(part, search).result()
        told = tell.submit(search, run).result()
        deliver()
        recording = plan_recording.submit(search, told).result()
        results = {label: record.submit(label, recording).result() for label in best_first(search.findings)}
        progress.finished()
        return conclude.submit(recording, [results[label] for label in search.findings.labels]).result()
