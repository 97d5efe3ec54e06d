"""The report of a verdict, built from a real search and from what a search may come to."""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from typing import Literal

import numpy as np
import pytest

from batchlab.analysis.estimates import Estimate
from batchlab.report import captions, cost_pictures, critical_pictures, curve_pictures, pictures, race_pictures
from batchlab.report.claims import claims, noise_share
from batchlab.report.ink import lines
from batchlab.report.page import disagreements, page, plates
from batchlab.report.page_tables import settings_table, typed_table
from batchlab.report.ranking import ranked
from batchlab.report.wording import beside
from batchlab.search.evidence import on_fresh_draws
from batchlab.search.findings import Finding, Findings
from batchlab.search.search import Search
from tests.verdicts import again, changed, cheap, dear, departed, diverged, losing, missed, ruined, unbegun, unconfirmed, without

VOID = {"meta", "br", "hr", "img", "input", "link"}
LEFT: tuple[Literal["behind", "time"], ...] = ("behind", "time")


@pytest.fixture(scope="module")
def written(found: Findings) -> str:
    return _page(found)


class Reader(HTMLParser):
    """Reads a document as a browser does, and holds that every element is closed where it should be."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.identifiers: list[str] = []
        self.rows: list[tuple[str, list[str]]] = []
        self.fetched: list[str] = []
        self.pointed: list[str] = []
        self.labels: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = {name: value or "" for name, value in attrs}
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append((facts.get("class", ""), []))
        self._note(tag, facts)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, {name: value or "" for name, value in attrs})

    def _note(self, tag: str, facts: Mapping[str, str]) -> None:
        self.identifiers += [facts["id"]] if "id" in facts else []
        self.labels += [facts.get("aria-label", "")] if tag == "svg" else []
        address = facts.get("href", facts.get("src", facts.get("xlink:href", "")))
        if address.startswith("#"):
            self.pointed.append(address[1:])
        elif address and tag != "a":
            self.fetched.append(address)
        self.fetched += [tag] if tag in ("script", "link", "iframe", "img") else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self.rows and "tr" in self.open and "tbody" in self.open:
            self.rows[-1][1].append(data)


def _read(document: str) -> Reader:
    reader = Reader()
    reader.feed(document)
    reader.close()
    assert reader.open == []
    return reader


def _page(found: Findings, **choices: object) -> str:
    facts = {"title": "a title", "unit": "target²", "facts": {"device": "cpu"}, "tracking_seconds": {}, "links": {}}
    return page(found, **{**facts, **choices})  # type: ignore[arg-type]


def _row(reader: Reader, label: str) -> tuple[str, str]:
    """Return the class and text of the settings table's row."""
    return next((kind, " ".join(cells)) for kind, cells in reader.rows if cells and cells[0].strip() == label)


def test_the_document_is_well_formed_and_every_identifier_is_its_own(written: str) -> None:
    reader = _read(written)
    assert written.startswith("<!doctype html>")
    assert len(set(reader.identifiers)) == len(reader.identifiers)
    assert set(reader.pointed) <= set(reader.identifiers)
    assert set(re.findall(r"url\(#([^)]+)\)", written)) <= set(reader.identifiers)


def test_the_document_fetches_nothing_and_runs_nothing(written: str) -> None:
    assert _read(written).fetched == []
    assert not re.search(r"@import|url\(\s*['\"]?https?:|\son\w+=", written)
    assert len(written) < 1_500_000


def test_both_colour_schemes_give_every_colour_that_the_pictures_use(written: str) -> None:
    style = written[written.index("<style>") : written.index("</style>")]
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    used = set(re.findall(r"var\((--[\w-]+)\)", written))
    assert {"--paper", "--ramp-0", "--accent"} <= used
    for name in used:
        assert f"{name}:" in light
        assert f"{name}:" in dark.split("}")[0]


def test_no_picture_keeps_a_colour_that_one_scheme_would_hide(written: str) -> None:
    assert set(re.findall(r"(?:fill|stroke): (#\w+)", written)) == set()
    assert "currentColor" in written


def test_every_setting_and_default_is_in_the_table_and_the_winner_is_marked(found: Findings, written: str) -> None:
    reader = _read(written)
    assert found.best is not None
    for item in (*found.settings, *found.typed):
        kind, text = _row(reader, item.candidate.label)
        assert (kind == "winner") == (item is found.best)
        assert ("recommended" in text) == (item is found.best)
        assert ("typed by default" in text) == item.candidate.typed
    winners = [kind for kind, _ in reader.rows if kind == "winner"]
    assert len(winners) == 1


def test_where_cost_matters_what_is_as_good_as_the_best_comes_by_seconds_and_then_the_others_by_loss(found: Findings) -> None:
    worse = {"mini_batch 8": 1.5, "full_batch": 2.0}
    spread_out = dear(changed(found, lambda item: losing(item, worse.get(item.candidate.label, 1.0))))
    assert spread_out.choice is not None
    good = {spread_out.choice.label, *spread_out.choice.as_good}
    assert len(good) > 1
    assert not good & set(worse)
    first, *others = ranked(spread_out)
    assert first is spread_out.best
    assert [item.candidate.label in good for item in others] == sorted((item.candidate.label in good for item in others), reverse=True)
    times = [item.seconds.value for item in others if item.candidate.label in good]
    losses = [item.outcome.loss for item in others if item.candidate.label not in good]
    assert (times, losses) == (sorted(times), sorted(losses))


def test_where_cost_does_not_matter_all_settings_come_by_loss(found: Findings) -> None:
    losses = [item.outcome.loss for item in ranked(cheap(found))]
    assert losses == sorted(losses)


def test_what_cannot_be_told_from_the_recommendation_and_what_is_as_good_are_marked(found: Findings) -> None:
    assert found.choice is not None
    tie, good, other = [item.candidate.label for item in found.settings if item is not found.best][:3]
    marked = replace(found, choice=found.choice.model_copy(update={"ties": (tie,), "as_good": (tie, good)}))
    reader = _read(settings_table(marked, "target²"))
    assert "tie" in _row(reader, tie)[1].split()
    assert "as good" in _row(reader, good)[1]
    assert not {"tie", "good"} & set(_row(reader, other)[1].split())


def test_a_setting_that_missed_the_target_is_shown_with_what_it_spent_as_a_bound(found: Findings) -> None:
    last = missed(found.settings[-1])
    short = replace(found, settings=[*found.settings[:-1], last])
    _, text = _row(_read(settings_table(short, "target²")), last.candidate.label)
    assert "not reached" in text
    assert "> " in text
    (panel,) = pictures.time_to_target(short, "target²").axes
    assert any(words.get_text().startswith("> ") for words in panel.texts)


def test_a_diverged_setting_is_shown_last_with_the_reason(found: Findings) -> None:
    first = next(item for item in found.settings if item is not found.best)
    lost = diverged(first)
    mixed = replace(found, settings=[lost if item is first else item for item in found.settings])
    reader = _read(settings_table(mixed, "target²"))
    assert ranked(mixed)[-1] is lost
    assert "diverged" in _row(reader, lost.candidate.label)[1]
    assert "the loss left all bounds" in reader.text


def test_a_setting_that_left_the_race_is_shown_behind_with_when_and_both_losses(searched: Search, found: Findings) -> None:
    typed = found.typed[0].candidate
    behind = departed(searched, typed.setting).findings
    entry, leader = behind.race.entries[typed.setting], behind.race.leader
    assert leader is not None
    unit = found.loss_unit * on_fresh_draws(searched.known)
    said = f"behind after {entry.rows:,} rows: loss {entry.loss * unit:.4g} against the leader's {leader.loss * unit:.4g}"
    reader = _read(_page(behind))
    text = " ".join(reader.text)
    assert ranked(behind)[-1].candidate == typed
    assert "behind" in _row(reader, typed.label)[1].split()
    assert "> " not in _row(reader, typed.label)[1]
    assert said in reader.text
    assert f"It was {said}." in text
    (panel,) = pictures.time_to_target(behind, "target²").axes
    assert "× behind" in [words.get_text() for words in panel.texts]


def test_a_setting_that_time_cut_off_or_left_unconfirmed_says_that_it_was_time(searched: Search, found: Findings) -> None:
    typed = found.typed[0].candidate
    cut = departed(searched, typed.setting, "time").findings
    assert "left for lack of time after " in " ".join(_read(settings_table(cut, "target²")).text)
    assert found.best is not None
    chosen = found.best.candidate.setting
    others = [item.candidate.setting for item in (*found.settings, *found.typed) if item.candidate.setting != chosen]
    alone = again(searched, without(searched.known, *others)).findings
    alone = replace(alone, settings=[replace(item, left=None) for item in alone.settings])
    reader = _read(_page(alone))
    waiting = [item for item in alone.settings if item.outcome.behind]
    assert waiting
    for item in waiting:
        words = f"not confirmed for lack of time: loss {item.outcome.loss:.4g} after {item.outcome.budget_rows:,.0f} rows of the race"
        assert words in reader.text


def test_a_search_that_was_ended_in_its_race_or_before_has_a_page(searched: Search) -> None:
    early = unconfirmed(searched).findings
    assert early.best is not None
    text = " ".join(_read(_page(early)).text)
    assert f"Train with {early.best.candidate.name}" in text
    assert "before anything was confirmed with fresh draws: this is the race's leader so far" in text
    nothing = " ".join(_read(_page(unbegun(searched).findings)).text)
    assert "The time was too short to train anything: nothing is recommended. Give the search more." in nothing
    assert "nothing has raced" in nothing
    for said in (text, nothing):
        assert "nan" not in re.findall(r"\w+", said)


def test_the_page_of_a_search_in_which_everything_diverged_says_so(found: Findings) -> None:
    reader = _read(_page(ruined(found)))
    text = " ".join(reader.text)
    assert "Every setting that was searched diverged" in text
    assert "nan" not in re.findall(r"\w+", text)
    assert all(_row(reader, item.candidate.label) for item in found.settings)
    assert "Loaders were not measured" in text


def test_without_a_target_the_page_has_no_times_and_says_why(found: Findings) -> None:
    aimless = replace(changed(found, missed), target_loss=None, frontier=None, sorted_order=None)
    text = " ".join(_read(_page(aimless)).text)
    assert "There is no target" in text
    assert "no setting has a time to the target" in text
    assert "Cannot be said" in text


def test_without_a_frontier_or_with_a_poor_one_no_critical_batch_size_is_claimed(found: Findings) -> None:
    names = {plate.name: plate.draw for plate in plates(replace(found, frontier=None), {})}
    assert names["frontier"] is None
    assert found.frontier is not None
    poor = replace(found, frontier=found.frontier.model_copy(update={"misfit": 1.0}))
    text = " ".join(_read(_page(poor)).text)
    assert "Poor fit" in text
    assert "poor fit: the points do not follow a frontier" in text
    assert disagreements(poor) == []


@pytest.mark.parametrize(("size", "where"), [(1e7, "above"), (0.1, "below")])
def test_a_critical_batch_size_beyond_the_sizes_tried_is_drawn_nowhere(size: float, where: str, found: Findings) -> None:
    fit = found.frontier
    assert fit is not None
    ends = {"above": f"{max(fit.batch_rows):g}", "below": f"{min(fit.batch_rows):g}"}
    far = fit.model_copy(update={"critical_batch": Estimate(value=size, low=size / 2, high=2 * size), "misfit": 0.0})
    beyond = replace(found, frontier=far)
    text = " ".join(_read(_page(beyond)).text)
    assert f"critical batch {where} {ends[where]} rows, beyond the sizes tried" in text
    assert "critical batch size 10" not in text
    assert disagreements(beyond) == []
    (panel,) = critical_pictures.steps_against_rows(beyond, "y²").axes
    assert panel.get_xlim()[0] > 0.01 * min(fit.steps)


def test_users_words_are_text_and_neither_markup_nor_mathematics(found: Findings) -> None:
    label = '<script>alert(1)</script> $x^2$ & "co"'
    first = replace(found.settings[0], candidate=replace(found.settings[0].candidate, label=label), reason=label)
    odd = replace(found, settings=[first, *found.settings[1:]], notes=[label])
    choices = {"title": label, "facts": {label: label}, "links": {label: 'x" onclick="y'}, "unit": "<b>$"}
    reader = _read(_page(odd, **choices))
    assert reader.fetched == []
    assert reader.text.count(label) >= 5


def test_every_picture_draws_and_is_described_for_who_cannot_see_it(found: Findings, written: str) -> None:
    labels = _read(written).labels
    drawn = [plate for plate in plates(found, {}) if plate.draw is not None]
    assert len(drawn) == 12
    assert labels == [f"{plate.heading}. {plate.caption}" for plate in drawn]
    assert all(re.search(r"\d", plate.caption) for plate in drawn)


def test_settings_that_train_alike_share_a_curve(found: Findings) -> None:
    groups = [[item.candidate.label for item in line.members] for line in lines(found)]
    assert ["full_batch", "accumulated"] in groups
    assert ["mini_batch 8", "data_loader 8"] in groups
    assert sum(map(len, groups)) == len(found.settings) + len(found.typed)
    (panel,) = curve_pictures.loss_against_steps(found, "target²").axes
    assert len(panel.get_legend_handles_labels()[1]) == len(groups)


def test_seconds_along_a_curve_are_steps_times_the_calibrated_seconds(found: Findings) -> None:
    (panel,) = curve_pictures.loss_against_seconds(found, "target²").axes
    item = next(item for item in found.settings if item.candidate.label == "mini_batch 8")
    (line,) = (line for line in panel.get_lines() if line.get_label() == "mini_batch 8 · data_loader 8")
    assert np.asarray(line.get_xdata())[-1] == pytest.approx(item.shown.curve.step[-1] * item.timings.step().value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("first", [1.0, 0.0, math.inf, math.nan])
def test_pictures_of_losses_draw_where_training_does_harm_or_the_first_loss_is_unknown(first: float, found: Findings) -> None:
    harmed = replace(found, first_loss=first)
    for draw in (race_pictures.race, pictures.rate_sensitivity, curve_pictures.loss_against_rows, pictures.overview):
        draw(harmed, "target²").canvas.draw()


def test_draws_that_were_looked_at_after_other_rows_are_drawn_where_they_were(found: Findings) -> None:
    item = next(item for item in found.settings if item.candidate.label == "mini_batch 8")
    dense, *others = item.results
    few = [0, len(dense.curve.step) // 2, len(dense.curve.step) - 1]
    thin = replace(dense, curve=replace(dense.curve, **{name: [values[at] for at in few] for name, values in vars(dense.curve).items()}))
    rows, middle, _, _ = curve_pictures.spread(replace(item, results=[thin, *others]), found.loss_unit)
    losses = [np.array(result.curve.validation_loss) * found.loss_unit for result in item.results]
    assert rows.tolist() == [dense.curve.rows_seen[at] for at in few]
    np.testing.assert_allclose(middle, np.exp(np.mean([np.log(values[few]) for values in losses], axis=0)))


def test_time_is_split_into_parts_that_add_up(found: Findings) -> None:
    item = next(item for item in found.settings if item.outcome.status == "reached")
    assert found.choice is not None
    found = replace(found, choice=found.choice.model_copy(update={"label": item.candidate.label}))
    delivery, compute, evaluation, recording = cost_pictures.split_seconds(item, 2.0)
    assert delivery + compute == pytest.approx(item.seconds.value)
    assert evaluation > 0
    assert recording == 2.0
    assert "Recording was not timed" in captions.of_split(found, {})
    assert "recording" in captions.of_split(found, {item.candidate.label: 2.0})


def test_what_people_type_is_compared_in_loss_and_where_cost_matters_in_seconds(found: Findings) -> None:
    item, costly = found.typed[0], dear(found)
    pair = costly.against_typed[0].model_copy(update={"at_least": False, "ratio": 4.0, "ratio_ci": (3.0, 5.0)})

    def said(among: Findings, **changes: object) -> str:
        return beside(replace(among, against_typed=[pair.model_copy(update=changes)]), item)

    worse = {"loss_ratio": 1.25, "loss_ratio_ci": (1.1, 1.4)}
    assert said(costly, **worse) == "has a loss 25.0% higher and takes 4× as long to the target"
    assert said(cheap(found), **worse) == "has a loss 25.0% higher"
    assert said(costly, **worse, at_least=True) == "has a loss 25.0% higher and takes at least 4× as long to the target"
    unsure = {"loss_ratio": 1.02, "loss_ratio_ci": (0.9, 1.2)}
    same_time = {"ratio": 1.1, "ratio_ci": (0.9, 1.3)}
    assert costly.choice is not None
    alike, apart = (replace(costly, choice=costly.choice.model_copy(update={"as_good": good})) for good in ((pair.label,), ()))
    assert said(alike, **unsure, **same_time) == "has a loss that cannot be told from it (+2.0%) and takes as long to the target"
    assert said(alike, **unsure, **same_time, at_least=True) == "has a loss that cannot be told from it (+2.0%)"
    assert said(apart, **unsure, at_least=False) == "has a loss 2.0% higher and takes 4× as long to the target"
    assert said(apart, loss_ratio=1.2, loss_ratio_ci=(0.9, 1.5)).startswith("has a loss that cannot be told from it (+20.0%)")
    better = {"loss_ratio": 0.9, "loss_ratio_ci": (0.85, 0.95)}
    assert said(cheap(found), **better) == "has a loss 10.0% lower"
    assert said(cheap(found), loss_ratio=1.0001, loss_ratio_ci=(0.9, 1.1)) == "has the same loss"


def test_what_people_type_may_have_won_diverged_or_left_and_then_that_is_said(searched: Search, found: Findings) -> None:
    item = found.typed[0]
    assert found.choice is not None
    won = replace(found, choice=found.choice.model_copy(update={"label": item.candidate.label}))
    assert beside(won, item) == "is the recommended setting"
    assert "It is the recommended setting." in " ".join(_read(typed_table(won)).text)
    behind, cut = (departed(searched, item.candidate.setting, why).findings for why in LEFT)
    left = behind.of(item.candidate.label).left
    assert left is not None
    assert beside(behind, behind.of(item.candidate.label)).startswith(f"was behind after {left.rows:,} rows: loss ")
    assert beside(cut, cut.of(item.candidate.label)).startswith(f"was left for lack of time after {left.rows:,} rows: loss ")
    assert beside(found, replace(diverged(item), left=replace(left, why="diverged"))) == f"diverged within {left.rows:,} rows"
    assert beside(found, diverged(item)) == "diverged"


def test_the_share_of_noise_in_a_gradient_follows_from_drawing_without_replacement() -> None:
    assert noise_share(100.0, 25, 10**9) == pytest.approx(2.0)
    assert noise_share(100.0, 50, 99) == pytest.approx((100 / 50 * 49 / 98) ** 0.5)
    assert noise_share(100.0, 99, 99) == 0.0


def test_every_claim_of_the_lesson_has_an_answer_with_or_without_measurements(found: Findings) -> None:
    assert len(claims(found)) == 8
    measured = [item.answer for item in claims(found)]
    assert all(re.search(r"\d", answer) for answer in measured[:-1])
    assert measured[-1] == "Not measured: this search ran on a CPU."
    assert "cuda:0" in claims(found, "cuda:0")[-1].answer
    bare = [item.answer for item in claims(replace(ruined(found), settings=[]))]
    assert all(answer.startswith("Not measured") for answer in bare)


@pytest.mark.parametrize(
    ("whole", "part", "answer"),
    [
        (12_000.0, 8_000.0, "Not to be told here: the difference is a few of the operating system's pages"),
        (8_000.0, 12_000.0, "Not to be told here: "),
        (8e6, 2e6, "Yes. Peak with the rows held in memory: full batch 7.63 MiB, mini_batch "),
        (2e6, 8e6, "No. "),
    ],
)
def test_a_few_pages_of_memory_answer_no_claim(whole: float, part: float, answer: str, found: Findings) -> None:
    def peaking(item: Finding) -> Finding:
        peak = whole if item.candidate.name == "full_batch" else part
        return replace(item, outcome=replace(item.outcome, peak_bytes=np.array([peak])))

    (said,) = [item.answer for item in claims(changed(found, peaking)) if item.claim.startswith("Batch learning needs all data in memory")]
    assert said.startswith(answer)


def test_frontier_and_noise_scale_disagree_only_when_far_apart_and_sure(found: Findings) -> None:
    assert found.frontier is not None
    among = found.frontier.batch_rows[0]
    size = found.frontier.critical_batch.model_copy(update={"value": among, "low": among / 2, "high": among * 2})
    good = found.frontier.model_copy(update={"misfit": 0.0, "critical_batch": size})

    def with_scale(low: float, value: float, high: float) -> list[str]:
        scale = size.model_copy(update={"low": low * size.value, "value": value * size.value, "high": high * size.value})
        return disagreements(replace(found, frontier=good, choice=None, settings=[replace(found.settings[0], noise_scale=scale)]))

    assert with_scale(0.5, 10, 20) == []
    assert with_scale(1.5, 2, 3) == []
    assert len(with_scale(4, 10, np.inf)) == 1
    assert len(with_scale(4, np.inf, np.inf)) == 1


def test_the_overview_shows_four_panels_whatever_was_found(found: Findings) -> None:
    for case in (found, ruined(found), replace(found, frontier=None)):
        assert len(pictures.overview(case, "target²").axes) == 4


@pytest.mark.filterwarnings("error")
def test_a_search_of_one_setting_or_none_has_a_page(found: Findings) -> None:
    bare = replace(ruined(found), typed=[])
    alone = replace(bare, settings=found.settings[:1], target_loss=found.target_loss)
    assert "full_batch" in " ".join(_read(_page(alone)).text)
    assert "no constant batch size was timed" in " ".join(_read(_page(replace(bare, settings=[]))).text)


def test_where_nothing_reached_the_target_every_time_is_a_bound(found: Findings) -> None:
    short = replace(changed(found, missed), frontier=None)
    assert captions.of_times(short) == "No setting reached the target, so all times are lower bounds."
    reader = _read(settings_table(short, "target²"))
    assert all("> " in _row(reader, item.candidate.label)[1] for item in found.settings)
