"""The results as a table for the docs, a figure, and JSON; and what is printed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batchlab.models.mlp import Mlp
from benchmarks.measuring import LOOSE_TOLERANCE, LOSS_TOLERANCE
from benchmarks.problems import Work

HERE = Path(__file__).parent
PAGE, FIGURE, DATA = HERE.parent / "docs" / "benchmarks.md", HERE.parent / "docs" / "benchmarks.png", HERE / "results.json"
Results = dict[str, Any]


def write(results: Results) -> None:
    """Write results.json, and from it the page and the figure in docs/."""
    DATA.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text("\n".join(page(results)) + "\n")
    figure(results).savefig(FIGURE, dpi=110)


def page(results: Results) -> Iterator[str]:
    """Yield the lines of the Markdown page."""
    machine = results["machine"]
    yield "# Benchmarks"
    yield ""
    yield f"Written by `make bench` on {results['date']} ({results['seconds'] / 60:.0f} minutes): {machine['processor']},"
    yield f"{machine['cores']} cores; torch's 2048³ product on all cores {machine['gflops']:.0f} GFLOP/s, copying"
    yield f"{machine['gigabytes_per_second']:.1f} GB/s. {results['repeats']} repeats, everybody in turn in one process, warm-ups apart;"
    yield "medians, as how many times longer a peer takes than this engine (above 1: the engine is faster). Whoever starts from the same"
    yield "weights and sees the same order of rows ends with the same"
    yield f"loss to {LOSS_TOLERANCE:g}, or is marked ≠; those with weights and order of their own (scikit-learn) to {LOOSE_TOLERANCE:.0%}."
    yield "Evaluation is outside everybody's clock; drawing the order of rows is inside."
    yield ""
    yield "![growth](benchmarks.png)"
    yield ""
    yield "## Side by side"
    yield ""
    names = list(dict.fromkeys(name for cell in results["grid"] for name in cell["ratios"]))
    yield "| model | batch | replicas | rows/s | of the peak | " + " | ".join(names) + " |"
    yield "|---|---|---|---|---|" + "---|" * len(names)
    for cell in results["grid"]:
        share = f"{cell['gflops'] / cell['peak_gflops']:.0%}" if cell["model"] == "mlp" else f"{cell['gigabytes_per_second']:.1f} GB/s"
        shown = " | ".join(_ratio(cell, name) for name in names)
        yield f"| {cell['model']} | {cell['batch_rows']} | {cell['replicas']} | {_millions(cell)} | {share} | {shown} |"
    yield ""
    yield "The share is of torch's product measured beside the cell; for linear models it is what they read, most of it from the caches."
    yield "scikit-learn, Lightning, skorch and the notebook train replicas one after another: their time is a multiple of one replica's."
    yield ""
    lesson = results["notebook"]
    ratios = ", ".join(f"{name} {_times(ratio)}" for name, ratio in lesson["ratios"].items())
    engine = lesson["measured"]["batchlab"]["seconds"]
    yield f"The notebook's own problem (a line, 100 rows, batches of 10, 1,000 epochs), {engine * 1e3:.0f} ms here: {ratios}."
    yield ""
    yield from _own_modules(results["own_modules"])
    yield from _windows(results["windows"])
    yield from _sweep(results["sweep"])
    yield from _growth(results["growth"], machine["gflops"])


def _own_modules(found: Results) -> Iterator[str]:
    yield "## Modules of one's own beside their owner's loop"
    yield ""
    yield f"Measured on {found['date']}: {found['machine']['processor']}, {found['machine']['cores']} cores. How many times longer a plain"
    yield "loop (index, forward, backward, step) takes for as many replicas, one after the other."
    yield ""
    cells = found["cells"]
    columns = list(dict.fromkeys((cell["replicas"], cell["batch_rows"]) for cell in cells))
    yield "| module | " + " | ".join(f"{replicas} at batch {batch}" for replicas, batch in columns) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    for name in dict.fromkeys(cell["module"] for cell in cells):
        by_column = {(cell["replicas"], cell["batch_rows"]): cell for cell in cells if cell["module"] == name}
        shown = (_times(by_column[column]["ratio"]) for column in columns)
        yield f"| {name} | " + " | ".join(shown) + " |"
    yield ""


def _windows(found: Results) -> Iterator[str]:
    yield "## Windows beside a flat table"
    yield ""
    yield f"Measured on {found['date']}: {found['machine']['processor']}, {found['machine']['cores']} cores. How many times as many"
    yield "rows a second train in windows of 50 rows × 20 columns, a view, as in a flat table of 200,000 rows × 1,000 columns (800 MB):"
    yield "windows of 10,000,000 rows (800 MB; flat they would take 40 GB), and of 200,000 (16 MB)."
    yield ""
    yield "| model | batch | replicas | 10,000,000 rows | 200,000 rows |"
    yield "|---|---|---|---|---|"
    for cell in found["cells"]:
        seconds = cell["seconds"]
        ratios = " | ".join(_times(seconds["flat"] / seconds[name]) for name in ("many", "few"))
        yield f"| {cell['model']} | {cell['batch_rows']} | {cell['replicas']} | {ratios} |"
    yield ""


def _sweep(sweep: Results) -> Iterator[str]:
    seeds = sweep["trainings"] // 8
    yield f"## {sweep['trainings']} trainings: 8 learning rates × {seeds} seeds, mlp 20-64-64-1, batch 256, 20,000 rows, 2 epochs"
    yield ""
    yield "| | seconds (fastest – slowest) | × the engine's |"
    yield "|---|---|---|"
    for name, (fastest, median, slowest) in sweep["seconds"].items():
        yield f"| {name} | {median:.2f} ({fastest:.2f} – {slowest:.2f}) | {_times(sweep['ratios'].get(name, 1.0))} |"
    fresh = sweep["fresh_process_seconds"]
    yield ""
    yield f"In a fresh process: {fresh['cached']:.1f} s with kernels on disk, {fresh['cold']:.1f} s where it compiles them."
    yield ""


def _growth(growth: Results, peak: float) -> Iterator[str]:
    yield "## Widths: share of the matrix peak, 8 replicas, batch 256"
    yield ""
    yield "| width of both hidden layers | kernels | torch |"
    yield "|---|---|---|"
    for (width, kernels), (_, torch) in zip(*growth["widths"].values(), strict=True):
        flops = Work(Mlp(widths=(width, width)), 256).flops_per_row() * 1e6
        yield f"| {width} | {flops / kernels / 1e9 / peak:.0%} | {flops / torch / 1e9 / peak:.0%} |"
    yield ""
    yield "## Cores"
    yield ""
    yield "| work | speed-up on all cores | share of linear |"
    yield "|---|---|---|"
    for item in growth["cores"]:
        yield f"| {item['work']} | {item['speed_up']:.2f} of {item['cores']} | {item['share_of_linear']:.0%} |"
    yield ""
    yield "## Memory, mlp 20-256-256-1"
    yield ""
    yield "| backend | replicas | batch | predicted MiB | measured MiB |"
    yield "|---|---|---|---|---|"
    for item in growth["memory"]:
        sizes = f"{item['predicted'] / 2**20:.0f} | {item['measured'] / 2**20:.0f}"
        yield f"| {item['backend']} | {item['replicas']} | {item['batch_rows']} | {sizes} |"


def _ratio(cell: Results, name: str) -> str:
    if name not in cell["ratios"]:
        return ""
    return _times(cell["ratios"][name]) + ("" if cell["measured"][name]["same_work"] else " ≠")


def _times(ratio: float) -> str:
    return f"{ratio:.0f}×" if ratio >= 20 else f"{ratio:.2g}×" if ratio >= 10 else f"{ratio:.2f}×"


def _millions(cell: Results) -> str:
    return f"{cell['rows_per_second'] / 1e6:.1f} M"


def figure(results: Results) -> Any:
    """Draw how the cost of a million replica-rows grows along every axis."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    drawn = Figure(figsize=(14, 3.6), layout="constrained")
    panels = drawn.subplots(1, 4)
    growth = results["growth"]
    labels = ("rows", "replicas", "features (8 replicas)", "width of both hidden layers (8 replicas)")
    axes = list(zip(("rows", "replicas", "features", "widths"), labels, strict=True))
    for panel, (axis, label) in zip(panels, axes, strict=True):
        for name, points in growth[axis].items():
            panel.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name)
        panel.set(xscale="log", yscale="log", xlabel=label)
        panel.grid(alpha=0.3)
        panel.legend(frameon=False)
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_minor_locator(NullLocator())
    panels[0].set_ylabel("seconds a million rows and replicas")
    drawn.suptitle("How the cost grows: mlp 64-64 and linear, batch 256", fontsize=11)
    return drawn
