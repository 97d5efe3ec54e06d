"""The page and the picture of the simulated year."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from batchlab.report.markdown import markdown_table
from batchlab.report.retraining_pictures import Span, history
from benchmarks.year_data import AFTER, BEFORE, DRIFT, EVENTS, MIXED, NOISE, NOISY, ROWS, SCHEMA, TRUE_ROWS, WEEKS, monday

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE, FIGURE = DOCS / "retraining_year.md", DOCS / "retraining_year.png"
MINIMUM, NEAR = 0.01, 1.05
"""The gate's minimum effect; a challenger that is truly better by less need not be promoted."""
SPANS = [
    Span(monday(SCHEMA + 1), monday(SCHEMA + 1), "column missing"),
    Span(monday(NOISY + 1), monday(NOISY + 1), "noisy target"),
    Span(monday(MIXED + 1), monday(MIXED + 1), "targets mixed up"),
    Span(monday(DRIFT + 1), monday(WEEKS + 2), f"from week {DRIFT} on the data are others"),
]


@dataclass(frozen=True)
class Decision:
    """A decision of the year as the picture takes it."""

    when: datetime
    decision: str
    version: int | None
    champion_loss: float | None
    challenger_loss: float | None
    reason: str


def write(results: Mapping[str, Any]) -> None:
    """Write the page and its picture."""
    entries = results["entries"]
    told = [Decision(datetime.fromisoformat(item["when"]), *(item[key] for key in list(Decision.__annotations__)[1:])) for item in entries]
    figure = history(told, "demand²", SPANS, [item["lowest_loss"] for item in entries])
    figure.savefig(FIGURE, dpi=130, facecolor="white")
    PAGE.write_text("\n".join(lines(results)) + "\n")


def lines(results: Mapping[str, Any]) -> list[str]:
    """Return the page."""
    entries, described = results["entries"], results["machine"]
    return [
        "# A simulated year of weekly retrains",
        "",
        f"`python -m benchmarks.year` on {results['date']}: {results['seconds'] / 60:.1f} minutes on {described['processor']}, "
        f"{described['cores']} cores. Every week a Parquet file arrives and the real flow runs on the folder; only the data and the ",
        "calendar are made up. Because they are, every decision can be held against the truth.",
        "",
        "![Champion's and challenger's loss at every decision](retraining_year.png)",
        "",
        *_data(),
        "",
        *_summary(entries),
        "",
        *_lessons(entries),
        "",
        "## Every decision",
        "",
        "Losses are mean squared errors on that decision's holdout, half of the fresh rows; *lowest* is what the true function scores",
        f"there. *In truth*: by how much the challenger's expected loss is below the champion's, on {TRUE_ROWS:,} other rows of the same",
        f"week. *Missed*: kept although the challenger is truly better by {MINIMUM:.0%}, the minimum effect, or more. The numbers are",
        "those of the picture.",
        "",
        _table(entries),
        "",
        f"Settings: [year.toml](../benchmarks/year.toml){''.join(f', `{text}`' for text in results['settings'])}.",
    ]


def _data() -> list[str]:
    events = [f"- week {week}: {what}" for week, what in EVENTS.items()]
    before, after = BEFORE, AFTER
    return [
        "## What happens",
        "",
        f"{ROWS} rows a week of a shop's `demand`, linear in `visitors`, `price`, `rain` and `region`, plus noise with standard deviation",
        f"{NOISE:g}: no model's expected loss is below {NOISE**2:g}. The model is the default linear one.",
        "",
        *events,
        "",
        f"In week {DRIFT} the mean of `visitors` moves from {before.visitors:g} to {after.visitors:g}, that of `price` from",
        f"{before.price:g} to {after.price:g}, and `east` becomes twice as frequent; a visitor is worth {after.of_visitors:g} instead of",
        f"{before.of_visitors:g}, a unit of price {after.of_price:g} instead of {before.of_price:g}, and the regions change too.",
    ]


def _summary(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what came of the year, counted."""
    counts = Counter(item["decision"] for item in entries)
    judged = [verdict(item) for item in entries]
    right, missed, wrong = (sum(text.startswith(word) for text in judged) for word in ("right", "missed", "wrong"))
    compared = [item["week"] for item in entries if item["compared"]]
    said = ", ".join(f"{kind.replace('_', ' ')} {count}" for kind, count in counts.most_common())
    return [
        "## What came of it",
        "",
        f"- Decisions: {said}.",
        f"- Of {right + missed + wrong} decisions of the gate {right} are right, {missed} kept the champion though the challenger was",
        f"  truly better by {MINIMUM:.0%} or more, and {wrong} promoted a model that is truly worse.",
        f"- {len(compared)} comparisons were made, in weeks {', '.join(map(str, compared))}.",
        f"- After the change in week {DRIFT} it takes {recovery(entries)} until the model in use is within {NEAR - 1:.0%} of the lowest",
        "  loss possible.",
    ]


def _lessons(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what can be learnt from the year, with its numbers."""
    quiet = [item for item in entries if 1 < item["week"] < DRIFT and item["true_champion_loss"] is not None]
    changed = sum(item["decision"] == "promoted" for item in quiet)
    above = max(item["true_champion_loss"] for item in quiet) / NOISE**2 - 1
    noisy, mixed = (next(item for item in entries if item["week"] == week) for week in (NOISY, MIXED))
    lessons = [
        f"**While nothing changes, little is replaced**: {changed} of {len(quiet)} challengers in the weeks up to {DRIFT - 1}. There was "
        f"little to win: the champion's expected loss is at most {above:.1%} above the lowest possible.",
        f"**Worse rows alone do no harm**: in week {NOISY} the holdout is as noisy as what trains; the challenger is {_came_to(noisy)}.",
        f"**A broken schema stops the run before anything is trained**: in week {SCHEMA} the fresh rows lack a column, which the contract "
        "forbids. The champion stays, and the repaired file counts as new a week later.",
        f"**The gate cannot see an error that the holdout shares**: in week {MIXED} the targets are mixed up in what trains and in what "
        f"judges. The challenger is {_came_to(mixed)}, with a loss {mixed['improvement']:.0%} lower there, and in truth "
        f"{-(true_improvement(mixed) or 0.0):.0%} higher. {_told(mixed)}That takes a person, a repaired file, and a rollback.",
        f"**After a change it takes {recovery(entries)}** until the model in use is within {NEAR - 1:.0%} of the lowest loss possible. "
        f"{_latest(entries)}{_missed(entries)}",
    ]
    return ["## What can be learnt", "", *(f"- {lesson}" for lesson in lessons)]


def _told(item: Mapping[str, Any]) -> str:
    """Say whether drift was told in that week."""
    if not item["drifted"]:
        return ""
    return (
        "It is told as drift, since the champion's losses moved; `retraining.gate.on_drift=keep` would have kept the champion that week, "
        f"for somebody to look, and so in week {DRIFT}. "
    )


def _latest(entries: Sequence[Mapping[str, Any]]) -> str:
    """Say on how many rows the challengers were trained that were promoted after the change."""
    late = [item for item in entries if DRIFT <= item["week"] < MIXED and item["decision"] == "promoted"]
    rows = ", ".join(f"{item['train_rows']:,} in week {item['week']}" for item in late)
    return f"Old rows do not hold it back: promoted challengers trained on the latest rows alone where that was surely better ({rows})."


def _missed(entries: Sequence[Mapping[str, Any]]) -> str:
    """Say how often after the change a truly better challenger was refused, and why."""
    late = [item for item in entries if item["week"] >= DRIFT and verdict(item).startswith("missed")]
    if not late:
        return ""
    gains = [true_improvement(item) or 0.0 for item in late]
    wide = sum((item["interval"][0] or 0.0) <= 0 for item in late)
    return (
        f" {len(late)} challengers were refused although they were truly better, by up to {max(gains):.1%}, "
        f"{'all' if wide == len(late) else wide} because the interval of the improvement reached 0."
    )


def _came_to(item: Mapping[str, Any]) -> str:
    return "refused" if item["decision"] == "kept" else "promoted"


def recovery(entries: Sequence[Mapping[str, Any]]) -> str:
    """Say after how many weeks the model that is in use after the decision is near the lowest expected loss again."""
    for item in entries:
        known = item["true_challenger_loss"] if item["decision"] == "promoted" else item["true_champion_loss"]
        if item["week"] >= DRIFT and known is not None and known <= NEAR * NOISE**2:
            weeks = item["week"] - DRIFT
            return f"{weeks} week{'' if weeks == 1 else 's'}" if weeks else "no longer than that week's retrain"
    return "longer than the year"


def true_improvement(item: Mapping[str, Any]) -> float | None:
    """Return by which share of the champion's expected loss the challenger's is lower."""
    before, after = item["true_champion_loss"], item["true_challenger_loss"]
    return None if before is None or after is None else 1 - after / before


def verdict(item: Mapping[str, Any]) -> str:
    """Say whether a decision of the gate was right, given what is known of the data."""
    gain = true_improvement(item)
    if gain is None or item["decision"] not in ("promoted", "kept"):
        return ""
    if item["decision"] == "promoted":
        return "right" if gain > 0 else f"wrong, {-gain:.1%} worse"
    return "right" if gain < MINIMUM else f"missed {gain:.1%}"


def _table(entries: Sequence[Mapping[str, Any]]) -> str:
    headings = ["no.", "week", "what happened", "decision", "champion", "challenger", "lowest", "in truth", "right?", "why"]
    rows = []
    for number, item in enumerate(entries, 1):
        gain = true_improvement(item)
        event = "" if item["decision"] == "rollback" else EVENTS.get(item["week"], "")
        event += f"{'; ' if event else ''}compared" if item["compared"] else ""
        version = f" v{item['version']}" if item["decision"] in ("first", "promoted", "rollback") else ""
        losses = ["–" if item[key] is None else f"{item[key]:.2f}" for key in ("champion_loss", "challenger_loss", "lowest_loss")]
        truth = "–" if gain is None else f"{gain:+.1%}"
        rows.append(
            [
                str(number),
                str(item["week"]),
                event,
                f"{item['decision'].replace('_', ' ')}{version}",
                *losses,
                truth,
                verdict(item),
                _why(item),
            ]
        )
    return markdown_table(headings, rows)


def _why(item: Mapping[str, Any]) -> str:
    """Return the reason without the decision's own words, which stand beside it."""
    text = str(item["reason"])
    for head in ("The champion is kept. ", "The challenger is promoted. ", "The first champion. "):
        text = text.removeprefix(head)
    return text
