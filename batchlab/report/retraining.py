"""The report of a retraining as Markdown: what was decided, why, and on which evidence."""

from collections.abc import Mapping
from typing import Any

from batchlab.report.markdown import markdown_table
from batchlab.report.wording import number
from batchlab.retraining.drift import Drift
from batchlab.retraining.outcome import Retraining
from batchlab.retraining.promotion import Promotion

MOST_DRIFTED = 10


def report(result: Retraining, links: Mapping[str, str], stale_rule: str) -> str:
    """Return the report: the decision, its reasons, the gate's conditions, drift, why a comparison was made, remarks, and links."""
    promotion = result.promotion
    parts = [
        f"# {result.name}: {result.outcome.replace('_', ' ')}",
        f"> {result.text}",
        _facts(result),
        *(() if promotion is None else _decision(promotion)),
        *(() if result.drift is None else (f"## Drift\n\n{result.drift.text}", _drifted(result.drift))),
        f"## Comparison\n\n{_staleness(result)} {stale_rule}" if stale_rule else "",
        "\n".join(f"- {remark}" for remark in result.remarks),
        " · ".join(f"[{text}]({address})" for text, address in links.items()),
    ]
    return "\n\n".join(part for part in parts if part)


def decision_table(promotion: Promotion) -> list[dict[str, Any]]:
    """Return the gate's conditions, a row each."""
    return [
        {"condition": guard.name, "met": "yes" if guard.passed else "no", "measured": _said(guard.value), "limit": _said(guard.limit)}
        | {"in words": guard.said}
        for guard in promotion.guards
    ]


def _facts(result: Retraining) -> str:
    champion = "none yet" if result.champion is None else f"version {result.champion}"
    facts = f"Mode **{result.mode}**; champion: **{champion}**; {result.fresh_rows:,} fresh rows"
    promotion = result.promotion
    if promotion is None:
        return f"{facts}."
    start = {"warm": "the champion's weights", "scratch": "scratch"}.get(result.start or "", "")
    return f"{facts}, {promotion.holdout_rows:,} of them held out; {result.train_rows:,} rows trained from {start}."


def _decision(promotion: Promotion) -> tuple[str, ...]:
    rows = [[str(value) for value in row.values()] for row in decision_table(promotion)]
    slices = [
        [item.name, f"{item.rows:,}", _said(item.champion_loss), _said(item.challenger_loss), f"{item.p_value:.3g}"]
        for item in promotion.slices
    ]
    return (
        "\n".join(f"- {reason}" for reason in promotion.reasons),
        "## Conditions\n\n" + markdown_table(["condition", "met", "measured", "limit", "in words"], rows) if rows else "",
        "## Slices of the holdout\n\n" + markdown_table(["slice", "rows", "champion's loss", "challenger's loss", "p"], slices)
        if slices
        else "",
    )


def _drifted(drift: Drift) -> str:
    worst = drift.worst[:MOST_DRIFTED]
    if not worst:
        return ""
    rows = [[item.name, f"{item.psi:.3g}", f"{item.p_value:.2g}", item.change] for item in worst]
    return markdown_table(["column", "PSI", "p, corrected", "what changed"], rows)


def _staleness(result: Retraining) -> str:
    if not result.stale:
        return "The recommended setting still holds."
    if result.comparison_run_id is None:
        return f"A comparison is due: {'; '.join(result.stale)}."
    return f"A new comparison was made: {'; '.join(result.stale)}."


def _said(value: float | None) -> str:
    return "–" if value is None else number(value)
