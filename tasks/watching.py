"""Tasks before a retraining trains: what the champion is, whether there are new rows, what they are like, and what is to be done."""

from datetime import UTC, datetime
from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from batchlab.config import Profile
from batchlab.experiment import Experiment
from batchlab.records import Record
from batchlab.report.retraining import report
from batchlab.retraining.dividing import NotYet, retraining_split, trainable_rows, update_split
from batchlab.retraining.drift import Drift
from batchlab.retraining.fresh import Mark, check_not_ahead, fresh_count, mark_of, reference_rows, rows_after
from batchlab.retraining.outcome import Mode, Retraining
from batchlab.retraining.recipe import asked_of, followed
from batchlab.retraining.staleness import stale_reasons
from batchlab.rows.split import Split
from batchlab.table import PackedTable
from batchlab.table import contract as contracts
from tasks import progress, registry, store
from tasks.abandoned import end_abandoned_runs
from tasks.provenance import hardware
from tasks.retrying import RETRIES
from tasks.standing import Standing, reason_to_rest, rested, standing_of

NO_CHAMPION = "there is no champion yet, so a comparison finds what to train with"
NO_OLD_ROWS = "drift was not looked for: no row of the table is from before the last decision"


class Study(Record):
    """What a retraining is to do: train on `split` of `table` as `profile` says; a new comparison first where `stale` says why. `mark` is
    what its decision leaves. `quiet` says why nothing is done instead."""

    profile: Profile
    mode: Mode
    standing: Standing
    table: Path
    mark: Mark
    fresh_rows: int
    split: Path | None = None
    drift: Drift | None = None
    stale: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    quiet: str | None = None


@task(**RETRIES)
def look(profile: Profile, name: str | None, mode: Mode) -> Standing:
    """Return where the model stands; runs that a killed process left RUNNING are ended first."""
    progress.stopping.clear()  # of a run before this one in the same process
    store.client()
    end_abandoned_runs()
    return standing_of(profile, name, mode)


@task(**RETRIES)
def study(profile: Profile, standing: Standing, table: Path, mode: Mode, seed: int) -> Study:
    """Return what is to be done with the packed table: how many rows are fresh, whether they drifted, how they are split."""
    packed, before = PackedTable.open(table), None if standing.champion is None else standing.mark
    check_not_ahead(packed, profile.retraining.days_ahead, datetime.now(UTC))
    fresh = fresh_count(packed, before)
    found = Study(profile=profile, mode=mode, standing=standing, table=table, mark=mark_of(packed), fresh_rows=fresh)
    if (quiet := reason_to_rest(packed, profile, standing, fresh)) is not None:
        return found.model_copy(update={"quiet": quiet})
    try:
        parts = _divided(packed, profile, standing, mode, seed)
    except NotYet as error:
        if before is None:
            raise
        return found.model_copy(update={"quiet": f"waiting for more: {str(error).removesuffix('.')}"})
    if before is None:
        Experiment(profile, packed, parts).check()
    found = found.model_copy(update={"split": parts.save(packed)})
    return _settled(_looked_for_drift(found, packed, before), packed, parts)


def _divided(table: PackedTable, profile: Profile, standing: Standing, mode: Mode, seed: int) -> Split:
    """Return the split; raises NotYet where the rows cannot be divided yet."""
    if standing.champion is None or standing.mark is None or standing.lineage is None:
        return retraining_split(table, profile, None)
    if mode == "update":
        return update_split(table, profile, standing.mark, seed, standing.lineage.held_out)
    return retraining_split(table, profile, standing.mark)


def _looked_for_drift(found: Study, table: PackedTable, mark: Mark | None) -> Study:
    """Return the study with how the fresh rows differ from the latest before them, in their columns and in what the champion makes of them.

    Drift is told once: from then on rows are compared with those after it. An update, which makes no comparison, tells it again.
    """
    if mark is None:
        return found
    from batchlab.retraining.decay import champion_drift  # with torch, which a look that finds nothing new does without

    champion = registry.opened(registry.version_of(found.standing.name, str(found.standing.champion)))
    fresh = rows_after(table, mark)
    before = reference_rows(table, mark, 10 * len(fresh))
    if not len(before):
        return found.model_copy(update={"remarks": (NO_OLD_ROWS,)})
    drifted = champion_drift(champion, table, (before, fresh), found.profile)
    missing = {column.name: column.missing_now for column in drifted.columns}
    kept = (
        contracts.path_of(found.profile.source, table.schema.target.name, store.tables(), found.profile.columns.missing)
        or table.path / "contract.json"
    )
    if (contract := contracts.opened(kept)) is not None:
        contracts.check_fresh(contract, missing, drifted.fresh_rows, kept)
    since = mark.last if drifted.drifted and found.mode == "retrain" else mark.since
    return found.model_copy(update={"drift": drifted, "mark": found.mark.model_copy(update={"since": since})})


def _settled(found: Study, table: PackedTable, parts: Split) -> Study:
    """Return the study with the setting to train with; where what was recommended last is stale, with the reasons."""
    profile, standing = found.profile, found.standing
    if standing.recommended is None or standing.followed is None:
        return found.model_copy(update={"stale": (NO_CHAMPION,)})
    updating = found.mode == "update"  # which trains on a few rows; whether they have grown is asked of all
    rows = trainable_rows(table, profile, standing.mark) if updating else parts.sizes()["train"]
    stale = stale_reasons(standing.recommended, profile.retraining.stale, rows, found.drift, hardware(), asked_of(profile))
    follows = followed(profile, standing.followed.recipe)
    if updating:  # it goes on with what there is, and says that a comparison is due
        due = tuple(f"a comparison is due: {reason}" for reason in stale)
        return found.model_copy(update={"profile": follows, "remarks": (*found.remarks, *due)})
    return found.model_copy(update={"stale": stale, "profile": profile if stale else follows})


@task(cache_policy=NO_CACHE)
def rest(found: Standing | Study, mode: Mode) -> Retraining:
    """Say why nothing was trained."""
    standing, fresh = (found.standing, found.fresh_rows) if isinstance(found, Study) else (found, 0)
    result = rested(standing, found.quiet or "", mode, fresh)
    create_markdown_artifact(report(result, {}, ""), key="retraining-report", description="What was done, and why")
    return result
