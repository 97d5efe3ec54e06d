"""The page of `make verdicts`, from what was measured."""

import math
from collections.abc import Mapping
from typing import Any

from batchlab.snippets.quantities import seconds

Records = Mapping[str, Mapping[str, Any]]
MARGIN, ROUNDED = 0.01, 5e-4
"""What a verdict gives away for a cheaper setting; and what is written as +0.0%."""
YARDSTICKS = {"constant": "mean or shares", "linear": "linear", "last_known": "last known value", "boosting": "boosting"}


def page(measured: Mapping[str, Any]) -> str:
    """Return docs/verdicts.md."""
    machine = measured["machine"]
    parts = [
        "# Verdicts, and whether they hold",
        f"`make verdicts`, last run on {measured['date']}: {machine['processor']}, {machine['cores']} cores. Losses are mean squared "
        "errors in the target's unit squared, or cross-entropies. Stages can be run alone: `python -m benchmarks.verdicts FOLDER "
        f"--stages limits --sets sines --minutes 1`. {measured.get('remark', '')}".rstrip(),
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
        "recommended one. All searches had one core."
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
    words = (
        "Optuna (TPE, median pruner) over batch size, optimizer and rate, on a plain PyTorch loop (rows shuffled once an epoch and sliced, "
        "fused optimizer), the same rows, budget and wall time, after ours on the same core. Ours: the mean test loss of the recommended "
        "setting's fresh trainings; its: that of its best training. A test loss of some hundred rows is luck, so a minute is measured "
        "three times, each with rows, split and search of another seed; the mean of their ratios is geometric. The minutes of lesson, "
        "diabetes, breast_cancer, digits, prices and wide, and the first of each other set but rare, ran while others worked on both cores."
    )
    minutes, longer = _by_set(records, short=True), _by_set(records, short=False)
    ratios = {name: [item["own"]["test_loss"] / item["test_loss"] for item in items] for name, items in minutes.items()}
    means = {name: math.exp(sum(map(math.log, of_set)) / len(of_set)) for name, of_set in ratios.items()}
    rows = [
        [
            name,
            *(" · ".join(_loss(loss) for loss in losses) for losses in _losses(minutes[name])),
            " · ".join(f"{ratio - 1:+.1%}" for ratio in ratios[name]),
            f"{means[name] - 1:+.1%}",
            " · ".join(f"{item['trials']}" for item in minutes[name]),
        ]
        for name in minutes
    ]
    headings = ["data", "Batchlab's test losses", "Optuna's", "ours over its", "mean", "its trials"]
    lower, within = (sum(mean < most for mean in means.values()) for most in (1 + ROUNDED, 1 + MARGIN))
    counted = (
        f"A minute each: on average over the seeds at least as good on {lower} of {len(means)}; no more than the verdict's margin of "
        f"{MARGIN:.0%} behind, which it gives away for a cheaper setting, on {within}."
    )
    return f"{words}\n\n{_table(headings, rows)}\n\n{counted}\n\n{_longer(longer, measured.get('limits', {}))}"


def _longer(longer: Mapping[str, Any], limits: Mapping[str, Any]) -> str:
    """Return what ten minutes come to, and our one minute beside its ten."""
    rows, good = [], 0
    for name, (item, *_) in longer.items():
        its, own, early = item["test_loss"], item["own"]["test_loss"], limits[f"{name} 1"]["test_loss"]
        good += early < its * (1 + ROUNDED)
        cells = [_loss(own), _loss(its), f"{own / its - 1:+.1%}", f"{early / its - 1:+.1%}"]
        rows.append([name, *cells, item["setting"], f"{item['trials']}", seconds(item["seconds"])])
    headings = [
        "data",
        "Batchlab's test loss",
        "Optuna's",
        "ours over its",
        "our minute's over its",
        "its setting",
        "its trials",
        "seconds",
    ]
    said = f"Ten minutes each, one seed, a core each, side by side; our minute (above) is as good as its ten on {good} of {len(rows)}."
    return f"{said}\n\n{_table(headings, rows)}"


def _by_set(records: Records, short: bool) -> dict[str, list[Mapping[str, Any]]]:
    """Return the records of a minute, or of longer searches, by their data set."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for key, item in records.items():
        name, limit, *_ = key.split()
        if (float(limit) <= 1) == short:
            found.setdefault(name, []).append(item)
    return found


def _losses(items: list[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    return [item["own"]["test_loss"] for item in items], [item["test_loss"] for item in items]


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
