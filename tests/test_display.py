"""What a comparison shows in a terminal: narrow, short, the verdict last; and all of it with --wide."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from batchlab.report.brief import MOST_LINES, brief
from batchlab.report.ranking import ranked
from batchlab.report.wording import verdict_text
from batchlab.search.search import Search
from flows.display import NOTE_LINES, show_verdict
from tests.verdicts import departed, noted, slow, unconfirmed

WIDTH, MOST, IN_SIGHT = 80, 45, 15
SCORES = {"rmse": 53.123456, "r2": None}
VARIANTS = {
    "as it is": lambda search: search,
    "where cost matters": slow,
    "one that left": lambda search: departed(search, search.findings.typed[0].candidate.setting),
    "ended in the race": unconfirmed,
    "with many notes": lambda search: noted(search, [f"note {number}: " + "words that go on " * 12 for number in range(9)]),
}


def shown(search: Search, width: int = WIDTH, wide: bool = False, **options: object) -> str:
    """What is printed, without the two lines that follow the records."""
    console = Console(width=width, file=io.StringIO(), highlight=False, **options)  # type: ignore[arg-type]
    show_verdict(console, search, SCORES, wide)
    written = console.file
    assert isinstance(written, io.StringIO)
    return written.getvalue()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_verdict_fits_a_terminal_of_eighty_columns_with_the_recommendation_in_sight(searched: Search, variant: str) -> None:
    search = VARIANTS[variant](searched)
    lines = shown(search).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert len(lines) <= MOST - 4
    assert any(line.startswith("Train with") for line in lines[-IN_SIGHT + 4 :])


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_of_the_verdict_is_cut(searched: Search, variant: str) -> None:
    search = VARIANTS[variant](searched)
    words = " ".join(shown(search).split())
    assert "…" not in words
    assert all(" ".join(line.split()) in words for line in verdict_text(search.findings).splitlines())
    assert "rmse 53.12." in words


def test_the_narrow_table_has_the_recommended_setting_first_every_strategys_best_and_what_people_type(searched: Search) -> None:
    found = replace(searched.findings, yardsticks=[])
    lines = brief(found)
    labels = [line.item.candidate.label for line in lines]
    assert len(labels) <= MOST_LINES
    assert labels[0] == found.best.candidate.label if found.best is not None else False
    assert {line.item.candidate.name for line in lines} == {item.candidate.name for item in (*found.settings, *found.typed)}
    assert {item.candidate.label for item in found.typed} <= set(labels)
    assert labels == [item.candidate.label for item in ranked(found) if item.candidate.label in labels]
    assert [line.cells[-1] for line in lines].count("recommended") == 1


def test_what_a_yardstick_beats_is_the_best_of_these_and_not_recommended(searched: Search) -> None:
    found = searched.findings
    beaten = replace(found, yardsticks=[item.model_copy(update={"beats": True, "difference": -0.5}) for item in found.yardsticks])
    notes = [line.cells[-1] for line in brief(beaten)]
    assert found.yardsticks
    assert notes[0] == "best of these"
    assert "recommended" not in notes


def test_where_there_is_no_room_the_strategies_that_come_last_are_left_out(searched: Search) -> None:
    found = searched.findings
    labels = [line.item.candidate.label for line in brief(found, 4)]
    assert len(labels) == 4
    assert {item.candidate.label for item in found.typed} <= set(labels)
    assert found.best is not None
    assert labels[0] == found.best.candidate.label


def test_notes_that_do_not_fit_are_counted_and_wide_shows_them_all(searched: Search) -> None:
    search = VARIANTS["with many notes"](searched)
    narrow, wide = shown(search), shown(search, 200, wide=True)
    printed = [number for number in range(9) if f"note {number}:" in narrow]
    assert printed == list(range(len(printed)))
    assert 0 < len(printed) <= NOTE_LINES
    assert f"{9 - len(printed)} more on the page, or with --wide" in narrow.replace("\n", " ")
    assert all(f"note {number}:" in wide for number in range(9))


def test_wide_shows_every_setting_with_every_column(searched: Search) -> None:
    text = shown(searched, 200, wide=True)
    assert all(item.candidate.label in text for item in (*searched.findings.settings, *searched.findings.typed))
    assert all(heading in text for heading in ("95%", "peak", "noise"))


def test_a_pipe_and_a_terminal_without_colour_get_no_colours(searched: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in shown(searched)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in shown(searched, force_terminal=True)
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "32m" in shown(searched, force_terminal=True)
