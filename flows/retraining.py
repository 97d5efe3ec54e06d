"""Keep a model retrained: train on new data with the recommended setting, and replace the champion only by a better one."""

from pathlib import Path
from typing import Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from batchlab.config import load_profile
from batchlab.retraining.outcome import Retraining
from flows import ending
from tasks.abandoned import claim
from tasks.data import ingest
from tasks.watching import Study, look, rest, study


@flow(name="retraining", task_runner=ThreadPoolTaskRunner(max_workers=1), on_running=[claim], log_prints=False)
def retraining(
    name: str | None = None,
    data: str | None = None,
    target: str | None = None,
    profile: str = "nightly",
    task: str | None = None,
    mode: Literal["retrain", "update"] = "retrain",
    overrides: list[str] | None = None,
    seed: int | None = None,
) -> "State[Retraining]":
    """Train a challenger on new data and promote it if it is better on the newest rows.

    Args:
        name: The registered model; by default <source>-<target>, after the data.
        data: A folder that grows, a file, a glob, a URL, a bundled data set or `synthetic`; the profile's source when left out.
        target: The column to predict.
        profile: A shipped profile (nightly, quick, full) or the path of a TOML file.
        task: regression, binary or multiclass; inferred from the target when left out.
        mode: retrain trains on all rows; update continues the champion on the new rows, with some old ones among them.
        overrides: Settings on top of the profile, as key=value, for example retraining.gate.minimum_effect=0.02.
        seed: Seed of the trainings; the profile's when left out.
    """
    settings = load_profile(profile, data=data, target=target, task=task, overrides=overrides or [], seed=seed)
    standing = look.submit(settings, name, mode).result()
    if standing.quiet:
        return _completed(rest.submit(standing, mode).result())
    table = ingest.submit(settings).result()
    found = study.submit(settings, standing, table, mode, settings.seed).result()
    if found.quiet:
        return _completed(rest.submit(found, mode).result())
    return _completed(ending.known(_retrained(found, table, settings.seed)))


def _retrained(found: Study, table: Path, seed: int) -> Retraining:
    """Train, judge and record a challenger. Torch comes in only here: most nights find nothing new."""
    from flows.comparison import compared
    from tasks.concluding import conclude
    from tasks.promotion import decide
    from tasks.retraining import compared_before, keep_comparison, register, retraining_run, train

    assert found.split is not None
    with retraining_run(found) as run:
        comparison = compared_before(run, seed) if found.stale else None
        if found.stale and comparison is None:
            comparison = compared(found.profile, table, found.split)
            keep_comparison(run, seed, comparison)
        challenger = train.submit(run, comparison, seed).result()
        registered = register.submit(run, challenger, comparison, seed).result()
        promotion = decide.submit(run, challenger, registered).result()
        return conclude.submit(run, registered, promotion, comparison, challenger.train_rows).result()


def _completed(result: Retraining) -> "State[Retraining]":
    """Return the state that says in Prefect's list of runs what came of it."""
    return Completed(message=result.text, data=result)
