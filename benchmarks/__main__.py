"""`make bench`: measure, print, and write benchmarks/results.json, docs/benchmarks.md and docs/benchmarks.png."""

import argparse
import datetime
import time
import warnings
from collections.abc import Callable
from typing import Any

from rich.console import Console

from benchmarks import grid, growth, machine, own_modules, report, sweep, windows


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a part of the grid with two repeats, within 3 minutes; writes nothing")
    quick = parser.parse_args().quick
    warnings.filterwarnings("ignore", module="jax")
    repeats, console, started = 2 if quick else 5, Console(), time.perf_counter()
    with console.status("measuring the machine") as status:

        def tell(what: str) -> None:
            status.update(f"{time.perf_counter() - started:.0f} s · {what}")

        results = measured(quick, repeats, tell)
    results["seconds"] = time.perf_counter() - started
    for line in report.page(results):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if not quick:
        report.write(results)
        console.print(f"Written: {report.DATA}, {report.PAGE}, {report.FIGURE}", soft_wrap=True)


def measured(quick: bool, repeats: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Return everything measured."""
    return {
        "date": datetime.date.today().isoformat(),
        "repeats": repeats,
        "machine": machine.described(),
        "grid": grid.measured(quick, repeats, tell),
        "notebook": grid.notebook(repeats, tell),
        "own_modules": own_modules.found(quick, repeats, tell),
        "windows": windows.found(quick, repeats, tell),
        "sweep": sweep.measured(quick, repeats, tell),
        "growth": growth.measured(quick, tell),
    }


if __name__ == "__main__":
    main()
