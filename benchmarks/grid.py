"""The grid: model × batch × replicas, the engine against everybody who can do that work; and the notebook's own problem."""

from collections.abc import Callable
from typing import Any

from batchlab.models.mlp import Mlp
from benchmarks.machine import matrix_gflops
from benchmarks.measuring import as_tree, ratios, side_by_side
from benchmarks.peers import batchlab, contenders, jax, notebook_loader, notebook_slices
from benchmarks.problems import MODELS, Work, lesson

FULL = 20_000
Tell = Callable[[str], None]


def cells(quick: bool) -> list[Work]:
    """Return the works of the grid, the cheap ones first; a stochastic one for SGDRegressor at the end."""
    works = []
    for replicas in (1, 8) if quick else (1, 8, 64):
        for model in MODELS:
            for batch in (32, 2048) if quick else (32, 256, 2048, FULL):
                epochs = (5 if batch == FULL else 4 if replicas == 1 else 2) if isinstance(model, Mlp) else (20 if replicas == 1 else 5)
                works.append(Work(model, batch, replicas, 2 if quick and replicas == 1 else epochs))
    return [*works, Work(MODELS[0], 1, epochs=2)]


def measured(quick: bool, repeats: int, tell: Tell) -> list[dict[str, Any]]:
    """Measure every cell; the machine's peak is measured beside each, because neighbours come and go."""
    results = []
    for work in cells(quick):
        tell(work.name)
        found = side_by_side(work, contenders(work), repeats)
        rows_per_second = work.rows_trained / found["batchlab"].seconds
        peak = matrix_gflops()
        results.append(
            {
                "model": work.model.kind,
                "batch_rows": "full" if work.batch_rows == FULL else work.batch_rows,
                "replicas": work.replicas,
                "epochs": work.epochs,
                "rows_per_second": rows_per_second,
                "gflops": rows_per_second * work.flops_per_row() / 1e9,
                "peak_gflops": peak,
                "gigabytes_per_second": rows_per_second * 4 * (work.features + 1) / 1e9,
                "ratios": ratios(found),
                "measured": as_tree(found),
            }
        )
    return results


def notebook(repeats: int, tell: Tell) -> dict[str, Any]:
    """The notebook's own problem: a line through 100 prices in 1,000 epochs of batches of 10."""
    tell("the notebook's problem")
    found = side_by_side(
        lesson(), {"batchlab": batchlab, "jax": jax, "notebook, slices": notebook_slices, "notebook, DataLoader": notebook_loader}, repeats
    )
    return {"ratios": ratios(found), "measured": as_tree(found)}
