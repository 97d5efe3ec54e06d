"""Where a registered model stands before anything is read or trained. It needs neither Prefect nor torch: where nothing is new, that is
all that a command looks at."""

import math
from datetime import UTC, datetime

from batchlab.config import Profile
from batchlab.errors import BadInput
from batchlab.records import Record
from batchlab.retraining.fresh import Mark, check_not_ahead, fresh_count
from batchlab.retraining.outcome import Mode, Retraining
from batchlab.retraining.recipe import ASKED, asked_of, differing
from batchlab.retraining.saved import Lineage
from batchlab.retraining.staleness import check_same
from batchlab.sources.files import FileSource
from batchlab.table import PackedTable
from batchlab.table.packing import packed_before
from tasks import history, registry, store
from tasks.model_names import check_name, model_name


class Standing(Record):
    """Where a registered model stands: its champion's version and lineage, the lineage of the last comparison's challenger (`recommended`),
    how far the data went at the last decision, and in `quiet` why there is nothing to do, where that is known before the rows are read."""

    name: str
    champion: int | None = None
    lineage: Lineage | None = None
    recommended: Lineage | None = None
    mark: Mark | None = None
    quiet: str | None = None

    @property
    def followed(self) -> Lineage | None:
        """The lineage whose setting to train with: the champion's, since that of a refused challenger has not proved itself; the last
        comparison's where the champion was asked for something else or is from other hardware."""
        champion, latest = self.lineage, self.recommended
        if champion is None or latest is None:
            return latest
        return champion if (champion.asked, champion.hardware) == (latest.asked, latest.hardware) else latest


def standing_of(profile: Profile, name: str | None, mode: Mode) -> Standing:
    """Return where a model stands, without a name the one of source and target; raises BadInput where it is another one than the profile
    describes, and for an update of none."""
    chosen = name or model_name(profile)
    check_name(chosen)
    champion, recommended = registry.champion_of(chosen), registry.recommended(chosen)
    if champion is None and mode == "update":
        raise BadInput(f"model '{chosen}' has no champion to update; run mode 'retrain' first, which makes one.")
    lineage = None if champion is None else registry.lineage_of(champion)
    if lineage is not None:
        check_same(chosen, lineage, profile, any_source=name is not None)
    if champion is None or lineage is None:
        registry.check_own(chosen)
        mark = registry.mark_of(chosen) if recommended is not None and _refused_last(chosen) else None
        return Standing(name=chosen, recommended=recommended, mark=mark)
    mark = _later(registry.mark_of(chosen), lineage.mark)
    newest = profile.source.newest(profile.columns.time) if profile.columns.time else None
    quiet = f"nothing new: {profile.source.name} holds no row after {mark.text}" if newest is not None and newest <= mark.last else None
    return Standing(name=chosen, champion=champion.number, lineage=lineage, recommended=recommended or lineage, mark=mark, quiet=quiet)


def _later(decided: Mark | None, trained: Mark) -> Mark:
    """Return the later mark: a kill after a promotion leaves that of the decision behind, a rollback that of the champion."""
    return trained if decided is None or decided.last < trained.last else decided


def _refused_last(name: str) -> bool:
    """Whether the last decision left the model without a champion, since its challenger was refused."""
    latest = history.decisions(name, 1)
    return bool(latest) and latest[0].decision == "kept" and latest[0].champion is None


def rested_at_once(profile: Profile, standing: Standing, mode: Mode) -> Retraining | None:
    """Return what a retraining comes to that trains nothing, where that is known without reading rows: the source knows what is newest, or
    its files, as they are now, are packed already. None where rows have to be read, or there is something to train."""
    if standing.quiet:
        return rested(standing, standing.quiet, mode)
    if standing.mark is None or not isinstance(profile.source, FileSource):
        return None
    table = packed_before(profile.source, profile.named_columns(), store.tables(), profile.seed)
    if table is None:
        return None
    check_not_ahead(table, profile.retraining.days_ahead, datetime.now(UTC))
    fresh = fresh_count(table, None if standing.champion is None else standing.mark)
    reason = reason_to_rest(table, profile, standing, fresh)
    return None if reason is None else rested(standing, reason, mode, fresh)


def reason_to_rest(table: PackedTable, profile: Profile, standing: Standing, fresh: int) -> str | None:
    """Say why there is nothing to train, with so many `fresh` rows; None where there is."""
    source, rows = table.schema.source, table.schema.rows
    if standing.mark is not None and table.schema.digest == standing.mark.digest and (quiet := _no_change(table, standing, profile)):
        return quiet
    if standing.champion is None:
        return None
    if fresh == 0 and standing.mark is not None:
        newer = (
            f"newer than those of the last decision ({standing.mark.text})"
            if profile.columns.time
            else "added to those of the last decision"
        )
        more = rows - standing.mark.rows
        late = f"; {more:,} more than then are late or repeated" if more > 0 else ""
        return f"nothing new: {source} has changed, but none of its {rows:,} rows is {newer}{late}"
    rule = profile.retraining
    judged = math.ceil(rule.gate.fewest_rows / rule.holdout)
    fewest = max(rule.fewest_fresh, judged)
    why = (
        "retraining.fewest_fresh"
        if rule.fewest_fresh >= judged
        else f"retraining.gate.fewest_rows over retraining.holdout {rule.holdout:g}"
    )
    return f"waiting for more: {fresh:,} rows are new, and it takes {fewest:,} ({why})" if fresh < fewest else None


def _no_change(table: PackedTable, standing: Standing, profile: Profile) -> str | None:
    """Say why a table that the last decision was made on is not trained on again; None where no decision left a champion and something
    else is asked for now."""
    source, rows = table.schema.source, table.schema.rows
    if standing.champion is not None:
        other = [] if standing.lineage is None else differing(standing.lineage.asked, asked_of(profile), ASKED)
        then = f"; what is asked for is another ({', '.join(other)}): it is compared when there are new rows to judge by" if other else ""
        return f"nothing new: {source} is what it was at the last decision, {rows:,} rows{then}"
    asked = None if standing.recommended is None else standing.recommended.asked
    refused = f"nothing new: {source} is what it was when the last challenger was refused, {rows:,} rows"
    return refused if asked == asked_of(profile) else None


def rested(standing: Standing, quiet: str, mode: Mode, fresh_rows: int = 0) -> Retraining:
    """Return what a retraining comes to that trains nothing, for the reason `quiet`."""
    return Retraining(
        outcome="waiting" if quiet.startswith("waiting") else "nothing_new",
        text=f"{quiet[0].upper()}{quiet[1:]}.",
        name=standing.name,
        mode=mode,
        champion=standing.champion,
        fresh_rows=fresh_rows,
    )
