"""The report of a retraining as Markdown: what was decided, why, and on which evidence."""

from collections.abc import Mapping
from typing import Any

from batchlab.report.markdown import markdown_table
from batchlab.retraining.drift import MADE_BY_CHAMPION, Drift
from batchlab.retraining.outcome import Retraining
from batchlab.retraining.promotion import Promotion

MOST_DRIFTED = 10
OUTCOMES = {
    "first": "the first champion",
    "promoted": "the challenger is promoted",
    "kept": "the champion is kept",
    "nothing_new": "nothing new",
    "waiting": "waiting for more rows",
}
FORGETTING = "The old holdout are the rows that the champion was judged by when it was made."
REMEMBERED = "It was not measured: there are no rows of an old holdout in the table."


def report(result: Retraining, links: Mapping[str, str], stale_rule: str) -> str:
    """Return the report: the decision, its reasons, the gate's conditions, drift, why a comparison was made, remarks, and links."""
    promotion = result.promotion
    parts = [
        f"# {result.name}: {decided(result)}",
        f"> {result.text}",
        *(() if promotion is None else (_listed(facts_of(result)), *_decision(promotion))),
        *(() if result.drift is None else (f"## Drift\n\n{result.drift.text}", _drifted(result.drift))),
        f"## Comparison\n\n{staleness(result)} {stale_rule}" if stale_rule else "",
        "## Remarks\n\n" + "\n".join(f"- {remark}" for remark in result.remarks) if result.remarks else "",
        " · ".join(f"[{text}]({address})" for text, address in links.items()),
    ]
    return "\n\n".join(part for part in parts if part)


def decided(result: Retraining) -> str:
    """Return what came of it, in a few words."""
    promotion = result.promotion
    if result.outcome == "kept" and promotion is not None and promotion.champion is None:
        return "still no champion"
    return OUTCOMES[result.outcome]


def facts_of(result: Retraining) -> dict[str, str]:
    """Return what a reader has to know of a retraining beside its decision, by what it is called."""
    promotion = result.promotion
    now = {"champion now": "none yet" if result.champion is None else f"version {result.champion}"}
    looked = {"mode": result.mode, "fresh rows": f"{result.fresh_rows:,}"}
    if promotion is None:
        return now | looked
    start = {"warm": "the champion's weights", "scratch": "scratch"}.get(result.start or "", result.start or "–")
    before = "none" if promotion.champion is None else f"version {promotion.champion}"
    challenger = "–" if promotion.challenger is None else f"version {promotion.challenger}"
    return (
        {"champion before": before, "challenger": challenger}
        | now
        | looked
        | {
            "holdout": f"{promotion.holdout_rows:,} rows",
            "trained": f"{result.train_rows:,} rows, from {start}",
            "comparison": "none in an update" if result.mode == "update" else "a new one" if result.comparison_run_id else "not needed",
        }
    )


def seeds_text(promotion: Promotion) -> str:
    """Say in a sentence how the trainings with other seeds came out."""
    losses = [loss for loss in promotion.seed_losses if loss is not None]
    if not promotion.seed_losses:
        return ""
    if not losses:
        return f"All {len(promotion.seed_losses)} trainings diverged."
    lost = len(promotion.seed_losses) - len(losses)
    diverged = f", {lost} diverged" if lost else ""
    share = promotion.seed_scatter
    scatter = "" if share is None else f"; with other seeds the shipped one scatters by {share:.2%} of the champion's"
    return f"{len(promotion.seed_losses)} seeds came to {min(losses):.5g} to {max(losses):.5g}{diverged}{scatter}."


def decision_table(promotion: Promotion) -> list[dict[str, Any]]:
    """Return the gate's conditions, a row each, those that failed first."""
    return [
        {"condition": guard.name, "met": "yes" if guard.passed else "no", "measured": said_number(guard.value)}
        | {"limit": said_number(guard.limit), "in words": guard.said}
        for guard in sorted(promotion.guards, key=lambda guard: guard.passed)
    ]


def said_number(value: float | None) -> str:
    """Return a measured number with four digits; a dash where there is none."""
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 1e4 and value == round(value) else f"{value:.4g}"


def staleness(result: Retraining) -> str:
    """Say whether a comparison was made, and why."""
    if result.mode == "update":
        due = [remark for remark in result.remarks if remark.startswith("a comparison is due")]
        return f"An update makes no comparison{', though ' + '; '.join(due).removesuffix('.') if due else ''}."
    if not result.stale:
        return "No new comparison was made: the recommended setting still holds."
    why = "; ".join(reason.removesuffix(".") for reason in result.stale)
    if result.comparison_run_id is None:
        return f"A comparison is due: {why}."
    return f"A new comparison was made: {why}."


def _listed(facts: Mapping[str, str]) -> str:
    return " · ".join(f"{name} **{value}**" for name, value in facts.items())


def _decision(promotion: Promotion) -> tuple[str, ...]:
    rows = [[str(value) for value in row.values()] for row in decision_table(promotion)]
    guards = {guard.said for guard in promotion.guards}
    told = [reason for reason in promotion.reasons[1:] if promotion.decision == "kept" or reason not in guards]
    slices = [
        [item.name, f"{item.rows:,}", said_number(item.champion_loss), said_number(item.challenger_loss), f"{item.p_value:.3g}"]
        for item in promotion.slices
    ]
    return (
        "\n".join(f"- {reason}" for reason in (*told, seeds_text(promotion)) if reason),
        "## Conditions\n\n" + markdown_table(["condition", "met", "measured", "limit", "in words"], rows) if rows else "",
        "## Slices of the holdout\n\n" + markdown_table(["slice", "rows", "champion's loss", "challenger's loss", "p"], slices)
        if slices
        else "",
    )


def _drifted(drift: Drift) -> str:
    worst = drift.worst[:MOST_DRIFTED]
    if not worst:
        return ""
    rows = [[MADE_BY_CHAMPION.get(item.kind, item.name), f"{item.psi:.3g}", f"{item.p_value:.2g}", item.change] for item in worst]
    return markdown_table(["column", "PSI", "p, corrected", "what changed"], rows)
