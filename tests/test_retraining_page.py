"""The page of a retraining, built from decisions of the real gate, and the picture of every decision so far."""

import html
import math
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from batchlab.config import load_profile
from batchlab.report.drift_table import shapes, shown_drift
from batchlab.report.gate_pictures import evidence, slices_picture
from batchlab.report.retraining import report
from batchlab.report.retraining_page import Background, retraining_page
from batchlab.report.retraining_pictures import KINDS, Span, history
from batchlab.report.svg import inline
from batchlab.retraining.drift import Drift, drift
from batchlab.retraining.fresh import Mark, Stretch
from batchlab.retraining.gate import Contestant, Holdout, decide
from batchlab.retraining.outcome import Retraining
from batchlab.retraining.promotion import Promotion
from batchlab.retraining.saved import Lineage
from batchlab.rules.retraining import DriftRule, GateRule
from batchlab.table import PackedTable, pack
from tests.test_page import _read

ROWS = 400
ODD = '<script>alert(1)</script> $x^2$ & "co"'


@dataclass(frozen=True)
class Told:
    """A decision as plain data."""

    when: datetime
    decision: str
    version: int | None = None
    champion_loss: float | None = None
    challenger_loss: float | None = None
    reason: str = "it was so"


def _decided(gain: float = 0.2, classes: int = 0, old: bool = False, label: str = "north", **rule: object) -> Promotion:
    """Return what the gate says of a challenger whose losses are lower by that share, on every row."""
    rng = np.random.default_rng(0)
    before = rng.gamma(2.0, 1.0, ROWS)
    after = before * (1 - gain)
    truth = rng.integers(0, 2, ROWS) if classes else rng.normal(size=ROWS)
    guessed = np.tile([0.5, 0.5], (ROWS, 1)) if classes else np.zeros((ROWS, 1))
    old_losses = (before[:100], before[:100] * 1.4) if old else (None, None)
    holdout = Holdout(truth, classes, {ODD: [label if row % 2 else "south" for row in range(ROWS)]}, before * 2)
    champion = Contestant(before, guessed, 3, 1e-6, 1000, old_losses[0])
    challenger = Contestant(after, guessed, 4, 1e-6, 1000, old_losses[1])
    seeds = [after.mean() * factor for factor in (1.0, 1.001, 0.999)]
    return decide(champion, challenger, seeds, holdout, GateRule(**{"by": ODD, **rule}))  # type: ignore[arg-type]


def _came_to(promotion: Promotion, **facts: object) -> Retraining:
    known = {"outcome": promotion.decision, "text": promotion.text, "name": "shop-demand", "mode": "retrain", "champion": 3}
    known |= {"fresh_rows": 800, "train_rows": 4000, "start": "warm", "promotion": promotion}
    return Retraining(**{**known, **facts})  # type: ignore[arg-type]


def _lineage(**facts: object) -> Lineage:
    recipe = {
        "strategies": {"mini_batch": {"kind": "mini_batch", "batch_rows": 32}},
        "train": {"learning_rate": [0.1], "optimizer": {"kind": "sgd"}},
    }
    known = {"recipe": recipe, "asked": {}, "compared_rows": 434, "comparison_run_id": "c0ffee", "hardware": {}}
    known |= {"mark": Mark(digest="abc123", rows=4800, newest=1.7e15), "held_out": Stretch(after=1.6e15, last=1.7e15), "start": "warm"}
    return Lineage(**{**known, **facts})  # type: ignore[arg-type]


def _page(result: Retraining, **background: object) -> str:
    known = {"unit": "demand²", "stale_rule": "A new comparison is made when it is stale."}
    return retraining_page(result, Background(**{**known, **background}), {"MLflow run": 'http://x/#/"y'})  # type: ignore[arg-type]


def _text(document: str) -> str:
    return re.sub(r"\s+", " ", " ".join(_read(document).text))


def _days(*kinds: str) -> list[Told]:
    begun = datetime(2026, 1, 5, tzinfo=UTC)
    return [Told(begun + timedelta(weeks=place), kind, place + 1, 10.0 - place % 3, 9.5) for place, kind in enumerate(kinds)]


@pytest.fixture(scope="module")
def drifted(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[PackedTable, Drift]:
    """A table whose second half came from elsewhere, and what drift says of it."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("drift") / "rows.parquet"
    later = np.repeat([0, 1], 500)
    columns = {"visitors": rng.normal(size=1000) + 2 * later, ODD: np.where(later, "new", rng.choice(["a", "b"], 1000))}
    columns |= {"steady": rng.normal(size=1000), "day": pd.date_range("2026-01-01", periods=1000, freq="h")}
    pd.DataFrame(columns).assign(demand=rng.normal(size=1000)).to_parquet(path)
    profile = load_profile("quick", data=str(path), target="demand")
    table = pack(profile.source, profile.named_columns(), tables, 0)
    return table, drift(table, np.arange(500), np.arange(500, 1000), DriftRule(), (np.zeros(500), np.ones(500)))


@pytest.mark.parametrize("gain", [0.2, 0.0, -0.2])
def test_the_page_says_the_decision_with_its_reasons_and_every_guard(gain: float) -> None:
    promotion = _decided(gain)
    written = _page(_came_to(promotion))
    text = _text(written)
    assert promotion.decision == ("promoted" if gain > 0 else "kept")
    assert promotion.reasons[0] in text
    for guard in promotion.guards:
        assert guard.said in text
        (row,) = [cells for _, cells in _read(written).rows if cells[:1] == [guard.name]]
        assert ("met" if guard.passed else "not met") == row[1]


def test_what_failed_stands_first_among_the_conditions_and_beside_the_verdict() -> None:
    promotion = _decided(0.2, old=True)
    written = _page(_came_to(promotion, mode="update"))
    (failed,) = promotion.failed
    rows = [cells[0] for _, cells in _read(written).rows if len(cells) > 1 and cells[1] in ("met", "not met")]
    assert failed.name == rows[0] == "forgetting"
    assert promotion.decision == "kept"
    assert failed.said in promotion.text
    worse = _decided(-0.3)
    assert [guard.name for guard in worse.failed] == ["slices"]
    text = _text(_page(_came_to(worse)))
    assert "Also against it" in text
    assert "Not met either" not in text.split("Every decision so far")[0]  # the page lists what the sentence only names


def test_an_update_shows_what_it_forgot_and_a_retraining_does_not() -> None:
    promotion = _decided(0.2, old=True, largest_forgetting=1.0)
    assert "+40.0%" in _text(_page(_came_to(promotion, mode="update")))
    assert "Forgetting" not in _text(_page(_came_to(promotion)))
    assert "It was not measured" in _text(_page(_came_to(_decided(), mode="update")))


def test_a_challenger_that_diverged_a_first_champion_and_a_broken_one_have_pages() -> None:
    losses, guessed = np.full(ROWS, math.nan), np.zeros((ROWS, 1))
    holdout = Holdout(np.zeros(ROWS), 0, {}, np.full(ROWS, 5.0))
    good, broken = Contestant(np.ones(ROWS), guessed, 1), Contestant(losses, guessed, 2)
    diverged = decide(good, broken, [math.inf, math.nan], holdout, GateRule())
    first = decide(None, good, [1.0, 1.1], holdout, GateRule())
    rescued = decide(broken, good, [1.0, 1.1], holdout, GateRule())
    assert [item.decision for item in (diverged, first, rescued)] == ["kept", "first", "promoted"]
    for promotion in (diverged, first, rescued):
        words = re.findall(r"\w+", _text(_page(_came_to(promotion))))
        assert not {"nan", "inf", "None"} & {*words}


def test_users_words_are_text_and_neither_markup_nor_mathematics(drifted: tuple[PackedTable, Drift]) -> None:
    table, found = drifted
    told = replace(_days("kept")[0], reason=ODD)
    result = _came_to(_decided(label=ODD), name=ODD, drift=found, remarks=(ODD,), stale=(ODD,), comparison_run_id="c")
    named = [item.name for item in shown_drift(found)]
    shown = shapes(table, np.arange(500), np.arange(500, 1000), named)
    written = _page(result, unit=ODD, stale_rule=ODD, lineages={ODD: _lineage()}, decisions=[told], shapes=shown)
    reader = _read(written)
    assert reader.fetched == []
    assert "<script" not in written
    assert written.count(html.escape(ODD)) >= 8
    assert len(set(reader.identifiers)) == len(reader.identifiers)


def test_drift_is_shown_worst_first_with_both_distributions(drifted: tuple[PackedTable, Drift]) -> None:
    table, found = drifted
    shown = shown_drift(found)
    assert found.drifted
    assert [item.drifted for item in shown] == sorted((item.drifted for item in shown), reverse=True)
    assert "day" not in [item.name for item in shown]
    made = shapes(table, np.arange(500), np.arange(500, 1000), [item.name for item in shown])
    for sides in made.values():
        assert sides.before.sum() == pytest.approx(1)
        assert sides.now.sum() == pytest.approx(1)
        assert len(sides.before) == len(sides.now)
    moved = made["visitors"]
    bars = np.arange(len(moved.now))
    assert (moved.now * bars).sum() > (moved.before * bars).sum() + 3
    assert made[ODD].now.tolist() == pytest.approx([0, 0, 1])
    text = _text(_page(_came_to(_decided(), drift=found), shapes=made))
    assert found.text in text
    assert "the predictions" in text
    assert "Nobody looked" in _text(_page(_came_to(_decided())))


def test_the_page_says_where_both_models_come_from_and_why_a_comparison_was_made() -> None:
    result = _came_to(_decided(), stale=("twice as many rows train now",), comparison_run_id="c0ffee")
    text = _text(
        _page(result, lineages={"champion, version 3": _lineage(start="scratch"), "challenger, version 4": _lineage()}, dated=True)
    )
    for said in ("A new comparison was made: twice as many rows train now.", "A new comparison is made when it is stale."):
        assert said in text
    for said in ("abc123, 4,800 rows", "2023-11-14", "mini_batch 32, learning rate 0.1, sgd", "comparison c0ffee on 434", "version 4"):
        assert said in text


def test_every_decision_so_far_is_on_the_page_with_its_reason_the_latest_first() -> None:
    told = [replace(item, reason=f"because of {place}") for place, item in enumerate(_days(*KINDS))]
    reader = _read(_page(_came_to(_decided()), decisions=told))
    rows = [cells for _, cells in reader.rows if cells and cells[-1].startswith("because of")]
    assert [row[-1] for row in rows] == [item.reason for item in reversed(told)]
    assert [row[0] for row in rows] == [str(number) for number in range(len(told), 0, -1)]


def test_both_colour_schemes_give_every_colour_that_the_page_uses(drifted: tuple[PackedTable, Drift]) -> None:
    written = _page(_came_to(_decided(), drift=drifted[1]), decisions=_days(*KINDS))
    style = written[written.index("<style>") : written.index("</style>")]
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    for name in set(re.findall(r"var\((--[\w-]+)\)", written)):
        assert f"{name}:" in light
        assert f"{name}:" in dark.split("}")[0]
    assert set(re.findall(r"(?:fill|stroke): (#\w+)", written)) == set()
    assert len(written) < 1_000_000


def test_the_markdown_report_names_every_condition_and_slice() -> None:
    promotion = _decided(label="a | b")
    text = report(_came_to(promotion), {"page": "http://x"}, "The rule.")
    for guard in promotion.guards:
        assert f"| {guard.name} | yes |" in text
    assert "a \\| b" in text
    assert "version 4" in text
    assert "3 seeds came to" in text
    assert "No new comparison was made" in text


def _drawn(figure: Figure) -> str:
    return inline(figure, "history", "every decision")


def _marks(figure: Figure) -> int:
    """Return how many decisions the lower panel marks."""
    lower = figure.axes[1]
    return sum(line.get_marker() not in ("None", "") for line in lower.lines)


def test_a_history_without_decisions_says_so() -> None:
    assert "nothing has been decided yet" in _drawn(history([], "demand²"))


@pytest.mark.parametrize("count", [1, 2, 60, 200])
def test_a_history_marks_every_decision(count: int) -> None:
    kinds = [[*KINDS][place % len(KINDS)] for place in range(count)]
    figure = history(_days(*kinds), "demand²")
    _drawn(figure)
    assert _marks(figure) == count
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == [KINDS[kind][0] for kind in [*KINDS][:count]]


def test_a_history_takes_losses_that_are_missing_or_not_finite() -> None:
    begun = datetime(2026, 1, 5, tzinfo=UTC)
    losses = [(None, 9.0), (9.0, math.nan), (9.0, None), (math.inf, 8.0), (8.0, 1e30), (0.0, 0.0)]
    told = [Told(begun, "kept", 1, before, after) for before, after in losses]
    figure = history(told, "demand²")
    assert "not finite" in _drawn(figure)
    lost = next(line for line in figure.axes[0].lines if line.get_marker() == "x")
    assert list(lost.get_xdata()) == [1, 2]
    assert "no holdout loss is known" in _drawn(history([Told(begun, "rollback", 1)], "demand²"))


def test_a_history_shades_spans_and_draws_the_lowest_loss_possible() -> None:
    told = _days(*["kept"] * 10)
    figure = history(told, "demand²", [Span(told[4].when, told[6].when, "drift $")], [9.0] * 10)
    text = _drawn(figure)
    assert "drift $" in text
    assert "lowest loss possible" in text
    corners = figure.axes[0].patches[0].get_extents().transformed(figure.axes[0].transData.inverted())
    assert (round(corners.x0, 6), round(corners.x1, 6)) == (3.5, 6.5)


def test_evidence_and_slices_are_drawn_whatever_is_known() -> None:
    for promotion in (_decided(0.2), _decided(-0.2), _decided(0.2, classes=2), _decided(0.2, by=None)):
        assert f"{promotion.challenger_loss:.5g}" in _drawn(evidence(promotion, ODD))
        words = _drawn(slices_picture(promotion))
        values = [item.name.rpartition(" = ")[2] for item in promotion.slices]
        assert all(html.escape(value, quote=False) in words for value in values)
    bare = _decided().model_copy(update={"interval": (None, None), "slices": ()})
    assert "how sure is not known" in _drawn(evidence(bare, "demand²"))
    assert "no slice" in _drawn(slices_picture(bare))
