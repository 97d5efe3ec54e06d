"""The data as a page shows it: warnings, what could not be used, the split, the target along time, and every column."""

import html
from collections.abc import Mapping, Sequence

from batchlab.experiment import Experiment
from batchlab.report.data_figures import split_figure, target_figure
from batchlab.report.data_table import columns_table, cut, percent
from batchlab.report.document import footer, listing, opening, section, table
from batchlab.rows.leakage import Leak

ANCHOR = "data"
MOST_REASONS, MOST_NOTES, FIRST_WARNINGS, LONGEST_REASON = 30, 30, 3, 300


def data_page(experiment: Experiment, *, title: str, links: Mapping[str, str]) -> str:
    """Return the profile of the data as a document of its own."""
    schema, sizes = experiment.table.schema, experiment.split.sizes()
    facts = {
        "source": schema.source,
        "task": schema.target.task,
        "rows": f"{schema.rows:,}",
        "features": f"{len(schema.features):,}",
        **{part: f"{rows:,} rows" for part, rows in sizes.items()},
    }
    parts = [opening(title, "", facts), "<main>", data_section(experiment), footer(links), "</main></body></html>"]
    return "\n".join(parts)


def alert(experiment: Experiment) -> str:
    """Return what a reader must know of the data before the verdict: the first warnings, and rows that could not be used; or nothing."""
    schema, leaks = experiment.table.schema, experiment.leaks
    texts = _sentences(leaks[:FIRST_WARNINGS])
    if len(leaks) > FIRST_WARNINGS:
        texts.append(f"{len(leaks) - FIRST_WARNINGS} more warnings stand below.")
    if schema.quarantined:
        bad = sum(schema.quarantined.values())
        texts.append(f"{bad:,} of {schema.source_rows:,} rows ({percent(bad / schema.source_rows)}) could not be used.")
    if not texts:
        return ""
    return f'<div class="alert"><b>Before you trust it: <a href="#{ANCHOR}">the data</a></b>{listing(texts, "plain")}</div>'


def data_section(experiment: Experiment) -> str:
    """Return the section on the data."""
    schema, portrait = experiment.table.schema, experiment.portrait
    kept = {category.name: category.kept for category in experiment.preparation.categories}
    parts = [
        f"<p>{html.escape(_summary(experiment))}</p>",
        listing(_sentences(experiment.leaks), "warnings"),
        listing([cut(note, LONGEST_REASON) for note in schema.notes[:MOST_NOTES]]),
        _quarantine(experiment),
        split_figure(experiment),
        target_figure(experiment),
        "<h3>Columns</h3>",
        columns_table(portrait.target, portrait.features, kept),
    ]
    if portrait.unshown:
        parts.append(
            f"<p>{portrait.unshown:,} more features are not shown: these {len(portrait.features)} tell most of the target, each alone.</p>"
        )
    return section("The data", "".join(parts), ANCHOR)


def _sentences(leaks: Sequence[Leak]) -> list[str]:
    return [f"{leak.text[0].upper()}{leak.text[1:]}." for leak in leaks]


def _summary(experiment: Experiment) -> str:
    schema, portrait, columns = experiment.table.schema, experiment.portrait, experiment.profile.columns
    features = f"{len(schema.features):,} feature{'' if len(schema.features) == 1 else 's'}"
    sampled = f"distributions and frequent values of {portrait.sampled_rows:,} rows spread evenly over the table"
    said = f"{schema.rows:,} rows with {features}. Ranges and gaps are those of all rows"
    said += "." if portrait.sampled_rows == schema.rows else f", {sampled}."
    roles = {"ordered by": columns.time, "grouped by": columns.group, "keyed by": columns.key}
    named = ", ".join(f"{words} '{cut(name, 80)}'" for words, name in roles.items() if name)
    return f"{said} Rows are {named}." if named else said


def _quarantine(experiment: Experiment) -> str:
    """Return how many rows could not be used, by reason, and where they are."""
    schema, place = experiment.table.schema, experiment.table.quarantine
    if not schema.quarantined:
        return ""
    reasons = sorted(schema.quarantined.items(), key=lambda item: -item[1])
    shown, rest = reasons[:MOST_REASONS], reasons[MOST_REASONS:]
    shown += [(f"{len(rest):,} other reasons", sum(count for _, count in rest))] if rest else []
    bad = sum(schema.quarantined.values())
    shown += [("all together", bad)] if len(reasons) > 1 else []
    rows = "".join(_reason(reason, count, schema.source_rows) for reason, count in shown)
    where = f" They are kept, each with its reason, in <code>{html.escape(str(place))}</code>." if place is not None else ""
    share = html.escape(percent(bad / schema.source_rows))
    said = f"<p>{bad:,} of the source's {schema.source_rows:,} rows ({share}) are left out.{where}</p>"
    return f"<h3>Rows that could not be used</h3>{said}{table(('reason', 'rows', 'share'), rows)}"


def _reason(reason: str, count: int, rows: int) -> str:
    words = html.escape(cut(reason, LONGEST_REASON))
    return f'<tr><td class="name">{words}</td><td>{count:,}</td><td>{html.escape(percent(count / max(rows, 1)))}</td></tr>'
