"""The page of a retraining: what was decided and on which evidence, where both models come from, and every decision before."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from batchlab.report.data_table import cut, when
from batchlab.report.document import footer, framed, listing, opening, section, table
from batchlab.report.drift_table import Shapes, drift_table
from batchlab.report.gate_pictures import evidence, most_harmed, slices_picture
from batchlab.report.retraining import FORGETTING, REMEMBERED, decided, facts_of, said_number, seeds_text, staleness
from batchlab.report.retraining_pictures import CHANGES, Decided, history
from batchlab.retraining.outcome import Retraining
from batchlab.retraining.promotion import Guard, Promotion
from batchlab.retraining.saved import Lineage

LONGEST = 300
EVIDENCE_READING = (
    "Dots: the mean loss of the models as they are served; strokes: of every seed's training. Line below: the interval of the improvement, "
    "over holdout rows and seeds. To be promoted it has to lie right of 0, and its dot right of the dashed line."
)
SLICES_READING = (
    "From 0 to the dot: the change of the slice's mean loss. Left is better. A slice right of the dashed line, and surely worse after "
    "correction for the number of slices, keeps the champion."
)
HISTORY_READING = (
    "Every pair of losses is on the holdout rows of that decision, so both move with how hard those rows are. Upright lines: the champion "
    "changed. The numbers are those of the table below."
)
DRIFT_READING = (
    "PSI: how far the distribution moved (0.1 little, 0.25 much), less what chance adds. Drifted: that much, and significant after "
    "correction for the number of columns."
)


@dataclass(frozen=True)
class Background:
    """What a page says beside the decision: both models' `lineages` by what they are called, all `decisions` so far (oldest first, this
    one last), `shapes` of what drifted, the rule for comparisons, the loss's `unit`, and whether the time column holds dates."""

    unit: str
    stale_rule: str
    lineages: Mapping[str, Lineage] = field(default_factory=dict)
    decisions: Sequence[Decided] = ()
    shapes: Mapping[str, Shapes] = field(default_factory=dict)
    dated: bool = False


def retraining_page(result: Retraining, background: Background, links: Mapping[str, str]) -> str:
    """Return the whole document of a retraining that decided something; one that trained nothing has no page."""
    promotion = result.promotion
    if promotion is None:
        raise ValueError(f"'{result.outcome}' decided nothing, so there is no evidence to show")
    remarks = section("Remarks", listing(result.remarks)) if result.remarks else ""
    parts = [
        opening(f"{result.name}: {decided(result)}", _verdict(promotion), facts_of(result)),
        "<main>",
        section("What decided", _evidence(promotion, background.unit)),
        section("The gate's conditions", _conditions(promotion.guards)),
        _slices(promotion),
        _forgetting(result),
        _drift(result, background.shapes),
        section("A new comparison, or not", f"<p>{html.escape(staleness(result))} {html.escape(background.stale_rule)}</p>"),
        section("Where the models come from", _lineages(background)),
        _history(background),
        remarks,
        footer(links),
        "</main></body></html>",
    ]
    return "\n".join(part for part in parts if part)


def _verdict(promotion: Promotion) -> str:
    """Return the decision in large letters, with its first reason; on a refusal what else stood against it."""
    first = promotion.text.partition(". ")[0]
    against = [guard.said for guard in promotion.failed if guard.said != promotion.reasons[0]]
    warned = f'<div class="alert"><b>Also against it</b>{listing(against, "plain")}</div>' if against else ""
    return f'<p class="verdict"><b>{html.escape(first)}.</b> {html.escape(promotion.reasons[0])}</p>{warned}'


def _evidence(promotion: Promotion, unit: str) -> str:
    others = [reason for reason in promotion.reasons[1:] if reason not in {guard.said for guard in promotion.guards}]
    constant = promotion.constant_loss
    mean = "" if constant is None else f"Always predicting the training rows' mean costs {constant:.5g}."
    caption = " ".join(filter(None, (*others, seeds_text(promotion), mean)))
    return framed("evidence", "Champion and challenger on the same rows", caption, EVIDENCE_READING, evidence(promotion, unit))


def _conditions(guards: Sequence[Guard]) -> str:
    """Return the gate's guards as a table, those that failed first."""
    headings = ("condition", "", "measured", "limit", "in words")
    return table(headings, "".join(map(_condition, sorted(guards, key=lambda guard: guard.passed))), "words dense")


def _condition(guard: Guard) -> str:
    mark = '<span class="mark tie">met</span>' if guard.passed else '<span class="mark bad">not met</span>'
    cells = {"measured": said_number(guard.value), "limit": said_number(guard.limit), "in words": cut(guard.said, LONGEST)}
    return f'<tr><td class="name">{html.escape(guard.name)}</td><td>{mark}</td>{_labelled(cells)}</tr>'


def _slices(promotion: Promotion) -> str:
    if not promotion.slices:
        return ""
    guard = next((guard for guard in promotion.guards if guard.name == "slices"), None)
    shown, count = len(most_harmed(promotion)), len(promotion.slices)
    more = f" {shown} of {count} are drawn: stretches of time, then the values that changed worst." if shown < count else ""
    caption = f"{'' if guard is None else guard.said}{more}"
    return section("Slices of the holdout", framed("slices", "Change by slice", caption, SLICES_READING, slices_picture(promotion)))


def _forgetting(result: Retraining) -> str:
    """Say what an update cost on the old holdout."""
    if result.mode != "update" or result.promotion is None:
        return ""
    guard = next((guard for guard in result.promotion.guards if guard.name == "forgetting"), None)
    if guard is None:
        return section("Forgetting", f"<p>{REMEMBERED}</p>")
    rise = "" if guard.value is None else f'<p class="verdict"><b>{guard.value:+.1%} on the old holdout</b></p>'
    return section("Forgetting", f"{rise}<p>{html.escape(guard.said)} {FORGETTING}</p>")


def _drift(result: Retraining, shapes: Mapping[str, Shapes]) -> str:
    if result.drift is None:
        return section("Drift", "<p>Nobody looked: there was no champion whose rows the fresh ones could differ from.</p>")
    said = f"<p>{html.escape(result.drift.text)}</p>"
    return section("Drift", f'{said}{drift_table(result.drift, shapes)}<p class="reading">{html.escape(DRIFT_READING)}</p>')


def _lineages(background: Background) -> str:
    """Return where both models come from, side by side."""
    columns = {name: _origin(lineage, background.dated) for name, lineage in background.lineages.items()}
    if not columns:
        return "<p>Nothing is known of where they come from.</p>"
    body = ""
    for fact in next(iter(columns.values())):
        cells = {name: facts[fact] for name, facts in columns.items()}
        body += f'<tr><td class="name">{html.escape(fact)}</td>{_labelled(cells)}</tr>'
    return table(("", *columns), body, "words dense")


def _origin(lineage: Lineage, dated: bool) -> dict[str, str]:
    mark, held = lineage.mark, lineage.held_out
    strategy, train = next(iter(lineage.recipe["strategies"].items())), lineage.recipe["train"]
    rows = f" {strategy[1]['batch_rows']}" if strategy[1].get("batch_rows") else ""

    def moment(value: float) -> str:
        if mark.newest is None:
            return f"row {value + 1:,.0f}"
        return when(value) if dated else f"{value:.10g}"

    return {
        "table": f"{mark.digest}, {mark.rows:,} rows, up to {moment(mark.last)}",
        "judged by": f"rows after {moment(held.after)} up to {moment(held.last)}",
        "started from": {"warm": "the weights of the champion then"}.get(lineage.start, lineage.start),
        "trained with": f"{strategy[0]}{rows}, learning rate {train['learning_rate'][0]:.4g}, {train['optimizer']['kind']}",
        "recommended by": f"comparison {lineage.comparison_run_id} on {lineage.compared_rows:,} training rows",
    }


def _history(background: Background) -> str:
    """Return every decision so far: the picture, and below it the table, the latest first."""
    decisions = background.decisions
    if not decisions:
        return ""
    changed = sum(item.decision in CHANGES for item in decisions)
    known = f"{len(decisions)} decision{'' if len(decisions) == 1 else 's'} so far"
    caption = f"{known}; the champion changed {changed} time{'' if changed == 1 else 's'}."
    picture = framed("history", "Holdout loss at every decision", caption, HISTORY_READING, history(decisions, background.unit))
    rows = "".join(_decision(number, item) for number, item in reversed([*enumerate(decisions, 1)]))
    headings = ("no.", "when (UTC)", "decision", "version", "champion's loss", "challenger's loss", "why")
    return section("Every decision so far", picture + table(headings, rows, "words dense"))


def _decision(number: int, item: Decided) -> str:
    cells = {
        "when": f"{item.when:%Y-%m-%d %H:%M}",
        "decision": item.decision.replace("_", " "),
        "version": "–" if item.version is None else str(item.version),
        "champion's loss": said_number(item.champion_loss),
        "challenger's loss": said_number(item.challenger_loss),
        "why": cut(item.reason, LONGEST),
    }
    return f'<tr><td class="name">{number}</td>{_labelled(cells, "when")}</tr>'


def _labelled(cells: Mapping[str, str], whole: str = "") -> str:
    """Return cells that say on a narrow screen, where a table has no head, what they are; the last holds words, `whole` is not broken."""
    last = [*cells][-1]
    kinds = {whole: " class=whole", last: " class=long"}
    return "".join(
        f'<td data-label="{html.escape(label, quote=True)}"{kinds.get(label, "")}>{html.escape(text)}</td>' for label, text in cells.items()
    )
