"""Tasks before a retraining trains: what the champion is, whether there are new rows, what they are like, and what is to be done."""

from pathlib import Path

from prefect import task

from batchlab.config import Profile
from batchlab.errors import BadInput
from batchlab.experiment import Experiment
from batchlab.records import Record
from batchlab.retraining.drift import Drift, drift
from batchlab.retraining.fresh import Mark, fresh_count, mark_of, reference_rows, retraining_split, rows_after, update_split
from batchlab.retraining.outcome import Mode
from batchlab.retraining.recipe import asked_of, followed
from batchlab.retraining.saved import Lineage
from batchlab.retraining.staleness import stale_reasons
from batchlab.table import PackedTable
from tasks import registry, store
from tasks.abandoned import end_abandoned_runs
from tasks.provenance import hardware
from tasks.retrying import RETRIES

NO_CHAMPION = "there is no champion yet, so a comparison finds what to train with"


class Standing(Record):
    """Where a registered model stands: its champion's version and lineage, and how far the data went at the last decision. `quiet` says
    why there is nothing to do, where that is known before the rows are read."""

    name: str
    champion: int | None = None
    lineage: Lineage | None = None
    mark: Mark | None = None
    quiet: str | None = None


class Study(Record):
    """What a retraining is to do: train on `split` of `table` as `profile` says; a new comparison first where `stale` says why. `quiet`
    says why nothing is done instead."""

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
def look(profile: Profile, name: str, mode: Mode) -> Standing:
    """Return where the model stands; runs that a killed process left RUNNING are ended first."""
    store.client()
    end_abandoned_runs()
    champion = registry.champion_of(name)
    if champion is None:
        if mode == "update":
            raise BadInput(f"model '{name}' has no champion to update; run mode 'retrain' first, which makes one.")
        return Standing(name=name)
    lineage, mark = registry.lineage_of(champion), registry.mark_of(name)
    mark = mark or lineage.mark
    newest = profile.source.newest(profile.columns.time) if profile.columns.time else None
    quiet = (
        f"nothing new: {profile.source.name} holds no row after {mark.last:,.0f}" if newest is not None and newest <= mark.last else None
    )
    return Standing(name=name, champion=champion.number, lineage=lineage, mark=mark, quiet=quiet)


@task(**RETRIES)
def study(profile: Profile, standing: Standing, table: Path, mode: Mode, seed: int) -> Study:
    """Return what is to be done with the packed table: how many rows are fresh, whether they drifted, how they are split."""
    packed = PackedTable.open(table)
    mark, fresh = mark_of(packed), fresh_count(packed, standing.mark)
    found = Study(profile=profile, mode=mode, standing=standing, table=table, mark=mark, fresh_rows=fresh)
    if (quiet := _quiet(packed, profile, standing, fresh)) is not None:
        return found.model_copy(update={"quiet": quiet})
    if standing.mark is None or standing.lineage is None:
        parts = retraining_split(packed, profile, None)
        Experiment(profile, packed, parts).check()
        return found.model_copy(update={"split": parts.save(packed), "stale": (NO_CHAMPION,)})
    parts = update_split(packed, profile, standing.mark, seed) if mode == "update" else retraining_split(packed, profile, standing.mark)
    drifted = _drift(packed, profile, standing, standing.mark)
    rows, rule = parts.sizes()["train"], profile.retraining.stale
    stale = stale_reasons(standing.lineage, rule, rows, drifted, hardware(), asked_of(profile))
    found = found.model_copy(update={"split": parts.save(packed), "drift": drifted})
    if mode == "update":  # an update goes on with what there is, and says that a comparison is due
        return found.model_copy(
            update={
                "profile": followed(profile, standing.lineage.recipe),
                "remarks": tuple(f"a comparison is due: {reason}" for reason in stale),
            }
        )
    return found.model_copy(update={"stale": stale, "profile": profile if stale else followed(profile, standing.lineage.recipe)})


def _quiet(table: PackedTable, profile: Profile, standing: Standing, fresh: int) -> str | None:
    """Say why there is nothing to train; None where there is."""
    if standing.mark is None:
        return None
    if table.schema.digest == standing.mark.digest:
        return f"nothing new: {table.schema.source} is what it was at the last decision, {table.schema.rows:,} rows"
    if fresh == 0:
        by = f"'{profile.columns.time}' is not after that of the last decision" if profile.columns.time else "there are not more than then"
        return f"nothing new: {table.schema.source} has changed, but none of its {table.schema.rows:,} rows is newer ({by})"
    fewest = profile.retraining.fewest_fresh
    return f"waiting for more: {fresh:,} rows are new, and it takes {fewest:,} (retraining.fewest_fresh)" if fresh < fewest else None


def _drift(table: PackedTable, profile: Profile, standing: Standing, mark: Mark) -> Drift:
    """Return how the fresh rows differ from the latest before them, in their columns and in what the champion predicts for them."""
    champion = registry.opened(registry.version_of(standing.name, str(standing.champion)))
    fresh = rows_after(table, mark)
    before, most = reference_rows(table, mark, 10 * len(fresh)), profile.retraining.drift.most_rows
    looked = tuple(rows[:: -(-len(rows) // most)] for rows in (before, fresh))
    predictions = tuple(champion.predicted(table, rows) for rows in looked)
    return drift(table, before, fresh, profile.retraining.drift, (predictions[0], predictions[1]), profile.columns.time)
