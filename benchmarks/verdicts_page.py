"""The page of `make verdicts`, from what was measured."""

import math
from collections.abc import Mapping
from typing import Any

from batchlab.report.quantities import seconds

Records = Mapping[str, Mapping[str, Any]]
YARDSTICKS = {"constant": "mean or shares", "linear": "linear", "last_known": "last known value", "boosting": "boosting"}


def page(measured: Mapping[str, Any]) -> str:
    """Return docs/verdicts.md."""
    machine = measured["machine"]
    parts = [
        "# Verdicts, and whether they hold",
        f"`make verdicts`, last run on {measured['date']}: {machine['processor']}, {machine['cores']} cores. Losses are mean squared "
        "errors in the target's unit squared, or cross-entropies. Stages can be run alone: `python -m benchmarks.verdicts FOLDER "
        "--stages limits --sets sines --minutes 1`.",
        *_section(measured, "seeds", "## The 200,000 rows, made anew", _seeds),
        *_section(measured, "limits", "## Twelve data sets within limits, their tables trained afresh", _limits),
        *_section(measured, "limits", "## Yardsticks beside the minute's verdict", _yardsticks),
        *_section(measured, "peer", "## Beside Optuna", _peer),
        *_section(measured, "truth", "## Intervals and differences", _truth),
        *_section(measured, "new_rows", "## Small tables against rows that nobody has seen", _new_rows),
        *_section(measured, "short", "## Limits kept", _short),
    ]
    return "\n\n".join(parts)


def _section(measured: Mapping[str, Any], key: str, heading: str, told: Any) -> list[str]:
    return [heading, told(measured[key], measured)] if measured.get(key) else []


def _table(headings: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (headings, ["---"] * len(headings), *rows)]
    return "\n".join(lines)


def _loss(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.4g}"


def _setting(item: Mapping[str, Any]) -> str:
    return f"{item['strategy']} {item['batch_rows']}, {item['optimizer']} {item['learning_rate']:g}, {item['rows']:,} rows"


def _seeds(records: Records, measured: Mapping[str, Any]) -> str:
    rows = [
        [key, seconds(item["search_seconds"]), _setting(item), _loss(item["test_loss"]), f"{item['loss'] / _lowest(item) - 1:+.1%}"]
        for key, item in records.items()
    ]
    return "y = x0 − x1/2 + sin(2·x2) + 0.3·noise, mlp 64-64; the noise alone costs 0.09. Each search had one core.\n\n" + _table(
        ["data, minutes", "search took", "recommended", "test loss", "loss over the lowest in the table"], rows
    )


def _lowest(item: Mapping[str, Any]) -> float:
    losses = [row["loss"] for row in item["rows_of_table"] if row["loss"] is not None and math.isfinite(row["loss"])]
    return min([*losses, item["loss"]])


def _limits(records: Records, measured: Mapping[str, Any]) -> str:
    rows = []
    for key, item in records.items():
        fresh = item.get("held")
        if fresh is None:
            known = ["–", "–"] if item["loss"] is None else [_setting(item), _loss(item["loss"])]
            rows.append([key, seconds(item["search_seconds"]), *known, "–", "–", "–"])
            continue
        others = fresh["others"]
        worse = [other for other in others if other["detectably_worse"]]
        said = ", ".join(f"{other['label']} ({other['worse_by']:+.1%})" for other in worse) or "none"
        longest = records.get(f"{key.split()[0]} 10")
        against = "–" if longest is None or longest["loss"] is None else f"{item['loss'] / longest['loss'] - 1:+.1%}"
        cells = [key, seconds(item["search_seconds"]), _setting(item), _loss(item["loss"]), _loss(fresh["fresh_loss"])]
        rows.append([*cells, f"{len(others)}: {said}", against])
    headings = [
        "data, minutes",
        "search took",
        "recommended",
        "loss",
        "afresh",
        "others trained afresh: detectably better ones",
        "over 10 minutes'",
    ]
    words = (
        "Every setting of a table (and what people type) was trained afresh with new seeds and, on small tables, new divisions: is the "
        "recommended one detectably worse than any (95% over all of a table)? Settings that left the race were given as many rows as the "
        "recommended one. All searches had one core, but the 3 minutes of prices and those of 10 minutes that ended sooner, which had two."
    )
    return f"{words}\n\n{_table(headings, rows)}"


def _yardsticks(records: Records, measured: Mapping[str, Any]) -> str:
    beside = {key: item for key, item in records.items() if key.endswith(" 1") and item.get("yardsticks")}
    rows = [[key.split()[0], _loss(item["test_loss"]), *(_yardstick(item, kind) for kind in YARDSTICKS)] for key, item in beside.items()]
    words = (
        "Test losses of what always predicting the mean or the class shares, a linear model (least squares, logistic regression), the last "
        "known value and scikit-learn's gradient boosting with defaults come to. **Bold** where one is better, "
        "detectably and by more than the margin: then the verdict's second line says so."
    )
    return f"{words}\n\n{_table(['data', 'recommended', *YARDSTICKS.values()], rows)}"


def _yardstick(item: Mapping[str, Any], kind: str) -> str:
    found = next((yardstick for yardstick in item["yardsticks"] if yardstick["key"] == kind), None)
    if found is None:
        return "–"
    said = f"{_loss(found['test_loss'])} in {seconds(found['seconds'])}"
    return f"**{said}**" if found["beats"] else said


def _peer(records: Records, measured: Mapping[str, Any]) -> str:
    rows, ours = [], measured.get("limits", {})
    for key, item in records.items():
        its = item["test_loss"]
        mine, early = (ours.get(name, {}).get("test_loss") for name in (key, f"{key.split()[0]} 1"))
        ratios = ["–" if own is None else f"{own / its - 1:+.1%}" for own in (mine, early)]
        rows.append([key, _loss(mine), _loss(its), *ratios, item["setting"], f"{item['trials']}", seconds(item["seconds"])])
    headings = ["data, minutes", "Batchlab's test loss", "Optuna's", "ours over its", "our minute's over its", "its setting", "its trials"]
    headings.append("its seconds")
    words = (
        "Optuna (TPE, median pruner) over batch size, optimizer and rate, on a plain PyTorch loop (rows shuffled once an epoch and sliced, "
        "fused optimizer), the same rows, budget and wall time. Ours: the mean test loss of the recommended setting's fresh trainings; "
        "its: that of its best training. For 10 minutes each had a core of its own, beside the other."
    )
    return f"{words}\n\n{_table(headings, rows)}"


def _truth(records: Records, measured: Mapping[str, Any]) -> str:
    rows = [[key, ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in item.items())] for key, item in records.items()]
    return _table(["what", "came to"], rows)


def _new_rows(records: Records, measured: Mapping[str, Any]) -> str:
    words = (
        "Tables of 500 rows of one law (eight features, heavy noise), searched for 0.12 minutes for the lowest loss; 20,000 more rows "
        "tell the truth. Intervals are 95% of a loss, 97.5% of a ratio. Ratios speak of new rows, and so does a loss's interval where a "
        "split in time shares rows among its windows; at random it speaks of the table's own rows (docs/verdict.md)."
    )
    rows = [
        [
            key,
            f"{item['loss_covered']} of {item['tables']}",
            f"{item['ratio_covered']} of {item['pairs']}",
            f"{item['called_worse']}",
            f"{item['better_in_truth']}",
            f"{item['mean_regret']:.1%}, at most {item['most_regret']:.1%}",
        ]
        for key, item in records.items()
    ]
    headings = [
        "",
        "interval of the loss holds",
        "interval of a ratio holds",
        "called worse",
        "better in truth",
        "loss over the best one's",
    ]
    return f"{words}\n\n{_table(headings, rows)}"


def _short(records: Records, measured: Mapping[str, Any]) -> str:
    words = (
        "Each search had one core. Rows are dear in `dear` (15,000 rows of 30 features, mlp 64-64; always the mean has about 1,600) and "
        "`dearer` (mlp 512-512)."
    )
    rows = [
        [
            key,
            seconds(item["limit_seconds"]),
            seconds(item["took_seconds"]),
            "yes" if item["kept"] else "no",
            _setting(item),
            _loss(item["test_loss"]),
        ]
        for key, item in records.items()
        if item["strategy"] is not None
    ]
    return f"{words}\n\n{_table(['data, minutes', 'limit', 'took', 'within 10% + 2 s', 'recommended', 'test loss'], rows)}"
