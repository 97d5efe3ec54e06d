"""The report of a verdict, built from a real search and from what a search may come to."""

import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from batchlab.config import load_profile
from batchlab.experiment import Experiment
from batchlab.report import captions, cost_pictures, curve_pictures, pictures
from batchlab.report.claims import claims, noise_share
from batchlab.report.ink import lines
from batchlab.report.page import disagreements, page, plates
from batchlab.report.page_tables import beaten, settings_table
from batchlab.report.ranking import ranked
from batchlab.search.concluding import concluded
from batchlab.search.findings import Finding, Findings
from batchlab.search.search import Search
from batchlab.split import split
from batchlab.table import pack

VOID = {"meta", "br", "hr", "img", "input", "link"}
SMALLER = ["train.epochs=30", "search.rates=3", "search.finer_rates=2", "search.rounds=1", "search.tuning_seeds=2", "search.seeds=3"]
SMALLER += ["search.timings=4", "search.batch_rows=[8,32]"]
FEWER = ["full_batch", "accumulated", "mini_batch", "data_loader"]


@pytest.fixture(scope="module")
def found(tables: Path) -> Findings:
    settings = load_profile("quick", data="diabetes", strategies=FEWER, overrides=SMALLER)
    table = pack(settings.source, settings.named_columns(), tables, settings.seed)
    search = Search(Experiment(settings, table, split(table, settings.split, settings.seed)))
    for part in search.parts():
        part.run()
    return concluded(search)


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


def _missed(item: Finding, seeds: int) -> Finding:
    """Return the setting as if so many seeds had missed the target."""
    steps, rows = item.outcome.steps.copy(), item.outcome.rows.copy()
    steps[:seeds] = rows[:seeds] = np.nan
    return replace(item, outcome=replace(item.outcome, steps=steps, rows=rows), reason=f"{seeds} seeds did not get there")


def _diverged(item: Finding) -> Finding:
    nothing = np.full(len(item.outcome.steps), np.nan)
    losses = np.full(len(item.outcome.steps), np.inf)
    outcome = replace(item.outcome, diverged=True, steps=nothing, rows=nothing, validation_loss=losses, test_loss=nothing)
    curve = item.shown.curve
    short = replace(curve, **{name: values[:1] for name, values in vars(curve).items()})
    results = [replace(result, diverged_at=3, curve=short) for result in item.results]
    return replace(item, outcome=outcome, results=results, shown=results[0], noise=[], noise_scale=None, reason="the loss left all bounds")


def _ruined(found: Findings) -> Findings:
    """Return what a search comes to when everything diverges."""
    settings, typed = [_diverged(item) for item in found.settings], [_diverged(item) for item in found.typed]
    kept = replace(found, settings=settings, typed=typed, choice=None, against_typed=[], frontier=None, throughput_knee=None)
    return replace(kept, sorted_order=None, target_loss=None, deliveries=[])


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


def test_settings_are_best_first_and_ties_are_named(found: Findings) -> None:
    assert found.choice is not None
    tie = next(item.candidate.label for item in found.settings if item is not found.best)
    tied = replace(found, choice=found.choice.model_copy(update={"ties": (tie,)}))
    assert ranked(tied)[0].candidate.label == found.choice.label
    times = [item.seconds.value for item in ranked(tied)[1:] if item.outcome.status == "reached"]
    assert times == sorted(times)
    assert "tie" in _row(_read(settings_table(tied, "target²")), tie)[1].split()


def test_a_setting_that_missed_the_target_is_shown_as_a_bound_with_the_reason(found: Findings) -> None:
    last = _missed(found.settings[-1], 2)
    missed = replace(found, settings=[*found.settings[:-1], last])
    reader = _read(settings_table(missed, "target²"))
    _, text = _row(reader, last.candidate.label)
    assert "> " in text
    assert f"reached by {len(last.outcome.steps) - 2} of {len(last.outcome.steps)}" in text
    assert "2 seeds did not get there" in reader.text
    (panel,) = pictures.time_to_target(missed, "target²").axes
    assert any(words.get_text().startswith("> ") and "(1 of 3 seeds)" in words.get_text() for words in panel.texts)


def test_a_diverged_setting_is_shown_last_with_the_reason(found: Findings) -> None:
    first = next(item for item in found.settings if item is not found.best)
    ruined = _diverged(first)
    mixed = replace(found, settings=[ruined if item is first else item for item in found.settings])
    reader = _read(settings_table(mixed, "target²"))
    assert ranked(mixed)[-1] is ruined
    assert "diverged" in _row(reader, ruined.candidate.label)[1]
    assert "the loss left all bounds" in reader.text


def test_the_page_of_a_search_in_which_everything_diverged_says_so(found: Findings) -> None:
    reader = _read(_page(_ruined(found)))
    text = " ".join(reader.text)
    assert "Every setting that was searched diverged" in text
    assert "nan" not in re.findall(r"\w+", text)
    assert all(_row(reader, item.candidate.label) for item in found.settings)
    assert "Loaders were not measured" in text


def test_without_a_target_the_page_has_no_times_and_says_why(found: Findings) -> None:
    aimless = replace(found, target_loss=None, frontier=None, against_typed=[], sorted_order=None)
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
    assert len(drawn) == 11
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


def test_time_is_split_into_parts_that_add_up(found: Findings) -> None:
    item = found.best
    assert item is not None
    delivery, compute, evaluation, recording = cost_pictures.split_seconds(item, 2.0)
    assert delivery + compute == pytest.approx(item.seconds.value)
    assert evaluation > 0
    assert recording == 2.0
    assert "Recording was not timed" in captions.of_split(found, {})
    assert "recording" in captions.of_split(found, {item.candidate.label: 2.0})


def test_a_default_that_is_faster_is_said_to_be_faster(found: Findings) -> None:
    item, pair = found.typed[0], found.against_typed[0]
    slower = pair.model_copy(update={"ratio": 4.0, "ratio_ci": (3.0, 5.0), "at_least": False})
    faster = pair.model_copy(update={"ratio": 0.5, "ratio_ci": (0.4, 0.8), "at_least": False})
    same = pair.model_copy(update={"ratio": 1.1, "ratio_ci": (0.9, 1.3), "at_least": False})
    assert beaten(found, item, slower) == "Yes: 4× faster (3–5)."
    assert beaten(found, item, faster) == "No: the default is 2× faster (1.25–2.5)."
    assert beaten(found, item, same).startswith("No: no difference detectable")
    assert found.best is not None
    lost = replace(found, settings=[_missed(one, 1) if one is found.best else one for one in found.settings])
    assert beaten(lost, replace(item, outcome=found.best.outcome), faster).startswith("No: the default reaches the target")


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
    bare = [item.answer for item in claims(replace(_ruined(found), settings=[]))]
    assert all(answer.startswith("Not measured") for answer in bare)


def test_frontier_and_noise_scale_disagree_only_when_far_apart_and_sure(found: Findings) -> None:
    assert found.frontier is not None
    size = found.frontier.critical_batch
    good = found.frontier.model_copy(update={"misfit": 0.0})

    def with_scale(low: float, value: float, high: float) -> list[str]:
        scale = size.model_copy(update={"low": low * size.value, "value": value * size.value, "high": high * size.value})
        return disagreements(replace(found, frontier=good, choice=None, settings=[replace(found.settings[0], noise_scale=scale)]))

    assert with_scale(0.5, 10, 20) == []
    assert with_scale(1.5, 2, 3) == []
    assert len(with_scale(4, 10, np.inf)) == 1
    assert len(with_scale(4, np.inf, np.inf)) == 1


def test_the_overview_shows_four_panels_whatever_was_found(found: Findings) -> None:
    for case in (found, _ruined(found), replace(found, frontier=None)):
        assert len(pictures.overview(case, "target²").axes) == 4


@pytest.mark.filterwarnings("error")
def test_a_search_of_one_setting_or_none_has_a_page(found: Findings) -> None:
    bare = replace(_ruined(found), typed=[])
    alone = replace(bare, settings=found.settings[:1], target_loss=found.target_loss)
    assert "full_batch" in " ".join(_read(_page(alone)).text)
    assert "no constant batch size was timed" in " ".join(_read(_page(replace(bare, settings=[]))).text)


def test_where_nothing_reached_the_target_every_time_is_a_bound(found: Findings) -> None:
    missed = replace(found, settings=[_missed(item, 3) for item in found.settings], frontier=None)
    assert captions.of_times(replace(missed, typed=[])) == "No setting reached the target with every seed, so all times are lower bounds."
    reader = _read(settings_table(missed, "target²"))
    assert all("> " in _row(reader, item.candidate.label)[1] for item in found.settings)
