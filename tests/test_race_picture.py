"""The picture of the race: a curve for every setting that raced, a lane for every branch, and what is drawn when nothing got anywhere."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes

from batchlab.report.captions import of_race
from batchlab.report.ink import WARNING
from batchlab.report.race_pictures import race
from batchlab.report.wording import in_short, lane
from batchlab.search.findings import Findings
from batchlab.search.search import Search
from batchlab.search.space import Setting
from batchlab.search.standings import Entry, Standings
from tests.verdicts import departed, unbegun


def raced(found: Findings) -> list[Entry]:
    return [entry for entry in found.race.entries.values() if entry.trials]


def with_race(found: Findings, entries: list[Entry]) -> Findings:
    return replace(found, race=replace(found.race, entries={entry.setting: entry for entry in entries}))


def exploded(entry: Entry) -> Entry:
    """Return the entry as if all its trials had diverged at once."""
    return replace(entry, trials=tuple(replace(trial, diverged_at=1, rows_seen=entry.rows // 2) for trial in entry.trials))


def curves(panel: Axes) -> list[object]:
    """Return the lines of a panel that have more than a point."""
    return [line for line in panel.get_lines() if len(np.asarray(line.get_xdata())) > 1]


@pytest.mark.filterwarnings("error")
def test_every_setting_that_raced_has_a_curve_and_an_end_in_the_lane_of_its_branch(found: Findings) -> None:
    figure = race(found, "target²")
    figure.canvas.draw()
    upper, lower = figure.axes
    entries, branches = raced(found), dict.fromkeys(entry.setting.branch for entry in raced(found))
    drawn = [entry for entry in entries if entry.measured is not None]
    assert len(curves(upper)) == len(drawn)
    assert sorted(label.get_text() for label in lower.get_yticklabels()) == sorted(lane(branch) for branch in branches)
    ends = [line for line in lower.get_lines() if len(np.asarray(line.get_xdata())) == 1]
    assert len(ends) == len(entries) + 1  # the leader's is ringed
    assert (upper.get_ylabel(), lower.get_xlabel()) == ("validation loss (target²)", "rows seen")


def test_the_leaders_curve_is_the_thick_one_and_ends_at_its_loss(found: Findings) -> None:
    leader = found.race.leader
    assert leader is not None
    assert leader.measured is not None
    upper, _ = race(found, "target²").axes
    (thick,) = (line for line in upper.get_lines() if line.get_linewidth() > 2 and len(np.asarray(line.get_xdata())) > 1)
    assert np.asarray(thick.get_ydata())[-1] == pytest.approx(leader.measured.mean[-1] * found.loss_unit)
    assert np.asarray(thick.get_xdata())[-1] == leader.measured.rows[-1]


def test_who_left_is_marked_by_why(searched: Search, found: Findings) -> None:
    setting = found.typed[0].candidate.setting
    assert _marks(departed(searched, setting, "behind").findings, setting) == ("o", "o")
    assert _marks(departed(searched, setting, "time").findings, setting) == ("_", "_")
    gone = departed(searched, setting).findings.race.entries[setting]
    assert gone.left is not None
    lost = exploded(replace(gone, left=replace(gone.left, why="diverged")))
    others = [lost if entry.setting == setting else entry for entry in raced(found)]
    _, lower = race(with_race(found, others), "target²").axes
    crosses = [line for line in lower.get_lines() if line.get_marker() == "x" and list(np.asarray(line.get_xdata())) == [lost.rows]]
    assert [line.get_color() for line in crosses] == [WARNING]


def _marks(found: Findings, setting: Setting) -> tuple[object, object]:
    """Return the marks at the end of the setting's curve and in its lane, which is its own."""
    entry = found.race.entries[setting]
    assert entry.measured is not None
    upper, lower = race(found, "target²").axes
    at = (entry.measured.rows[-1], entry.measured.mean[-1] * found.loss_unit)
    ends = [line for line in upper.get_lines() if (np.asarray(line.get_xdata())[-1], np.asarray(line.get_ydata())[-1]) == at]
    place = [label.get_text() for label in lower.get_yticklabels()].index(lane(setting.branch))
    lanes = [line for line in lower.get_lines() if list(np.asarray(line.get_ydata())) == [place]]
    return ends[-1].get_marker(), lanes[0].get_marker()


@pytest.mark.filterwarnings("error")
def test_a_race_in_which_all_diverged_or_nobody_began_is_drawn_and_told(searched: Search, found: Findings) -> None:
    ruined = with_race(found, [exploded(entry) for entry in found.race.entries.values()])
    figure = race(ruined, "target²")
    figure.canvas.draw()
    upper, lower = figure.axes
    assert [text.get_text() for text in upper.texts] == ["every setting diverged"]
    assert len(lower.get_yticklabels()) == len({entry.setting.branch for entry in raced(found)})
    assert of_race(ruined) == f"{len(raced(found))} settings raced, and all of them diverged."
    nothing = unbegun(searched).findings
    figure = race(nothing, "target²")
    figure.canvas.draw()
    (panel,) = figure.axes
    assert [text.get_text() for text in panel.texts] == ["nothing has raced"]
    assert of_race(nothing) == "Nothing has raced."


def test_the_caption_says_how_many_raced_who_led_and_how_many_left_why(searched: Search, found: Findings) -> None:
    leader = found.race.leader
    assert leader is not None
    waiting = Standings().joined_by([replace(leader.setting, learning_rate=7.0)])
    more = replace(found, race=replace(found.race, entries={**found.race.entries, **waiting.entries}))
    assert "; 1 never began" in of_race(more)
    assert f"{len(raced(found))} settings raced" in of_race(found)
    assert f"At the end {in_short(leader.setting)} led with validation loss " in of_race(found)
    cut = departed(searched, found.typed[0].candidate.setting, "time").findings
    why = [entry.left.why for entry in cut.race.entries.values() if entry.left is not None]
    assert f"{why.count('time')} left for lack of time" in of_race(cut)
