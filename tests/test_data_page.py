"""What the page says of the data: warnings of leakage where there is one and nowhere else, every column, the quarantine, the split."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from batchlab.config import load_profile
from batchlab.experiment import Experiment
from batchlab.notebook import compare
from batchlab.report.data_section import alert, data_page
from batchlab.report.data_table import percent, when
from batchlab.rows.leakage import Leak
from batchlab.rows.repeats import hashes
from batchlab.rows.split import split
from batchlab.table import pack
from tests.test_own_modules import LITTLE
from tests.test_page import Reader, _read

Make = Callable[..., Experiment]
ROWS = 2000


@pytest.fixture
def of(tmp_path: Path) -> Make:
    """Make an experiment from columns, through a Parquet file."""

    def made(columns: "dict[str, object] | pd.DataFrame", *overrides: str, target: str = "y") -> Experiment:
        path = tmp_path / f"{len(list(tmp_path.glob('*.parquet')))}.parquet"  # one file has one contract
        pd.DataFrame(columns).to_parquet(path, index=False)
        return _experiment(data=str(path), target=target, overrides=overrides, tables=tmp_path / "tables")

    return made


def _experiment(profile: str = "quick", *, tables: Path, **choices: object) -> Experiment:
    settings = load_profile(profile, **choices)  # type: ignore[arg-type]
    table = pack(settings.source, settings.named_columns(), tables, settings.seed, settings.checks)
    return Experiment(settings, table, split(table, settings.split, settings.seed))


def _drawn(rows: int = ROWS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a heavy-tailed target and a feature that goes with it honestly (R² 0.97)."""
    rng = np.random.default_rng(seed)
    target = rng.lognormal(size=rows)
    return target, target + 0.17 * target.std() * rng.normal(size=rows)


def _kinds(leaks: tuple[Leak, ...]) -> list[tuple[str, tuple[str, ...]]]:
    return [(leak.kind, leak.columns) for leak in leaks]


@pytest.mark.parametrize("name", ["diabetes", "breast_cancer", "digits", "wine"])
def test_bundled_data_give_no_warning(name: str, tables: Path) -> None:
    made = _experiment(data=name, tables=tables)
    assert made.leaks == ()
    assert alert(made) == ""


@pytest.mark.parametrize("overrides", [(), ("split.kind=random",)])
def test_the_lessons_prices_give_no_warning(overrides: tuple[str, ...], tables: Path) -> None:
    assert _experiment("lesson", overrides=overrides, tables=tables).leaks == ()


def test_an_honest_strong_feature_is_not_accused(of: Make) -> None:
    target, honest = _drawn()
    assert of({"honest": honest, "y": target}).leaks == ()


def test_a_copy_of_the_target_is_found_with_or_without_a_factor(of: Make) -> None:
    target, honest = _drawn()
    made = of({"honest": honest, "copy": target, "cents": 100 * target + 7, "less": -target, "log": np.log(target), "y": target})
    found = {leak.columns[0]: leak.text for leak in made.leaks}
    assert set(found) == {"copy", "cents", "less", "log"}
    assert found["copy"].startswith("'copy' equals the target 'y'")
    assert "constant factor and offset" in found["cents"]
    assert "constant factor and offset" in found["less"]
    assert "order of the target" in found["log"]
    assert all("--drop" in text for text in found.values())


def test_a_copy_is_found_in_a_small_table_and_beside_a_far_value(of: Make) -> None:
    target, honest = _drawn(40)
    far = np.random.default_rng(1).normal(size=40)
    target[0] = far[0] = 1e9  # one value makes the correlation 1
    made = of({"copy": 3 * target, "far": far, "honest": honest, "y": target})
    assert _kinds(made.leaks) == [("target", ("copy",))]


def test_a_feature_that_determines_the_target_without_being_like_it_is_found(of: Make) -> None:
    rng = np.random.default_rng(0)
    angle, house = rng.uniform(0, 6, ROWS), rng.integers(0, 300, ROWS)
    made = of({"angle": angle, "other": rng.normal(size=ROWS), "y": np.sin(angle)})
    assert _kinds(made.leaks) == [("target", ("angle",))]
    assert re.search(r"explains 99\.9\d% of the variance", made.leaks[0].text)
    price = rng.normal(size=300)[house]
    assert _kinds(of({"house": [f"h{number}" for number in house], "o": angle, "y": price}).leaks) == [("target", ("house",))]
    paid = np.where(rng.uniform(size=ROWS) < 0.9, 0.0, rng.normal(size=ROWS))
    assert of({"claimed": paid + rng.normal(size=ROWS) * (paid != 0), "o": angle, "y": paid}).leaks == ()


def test_a_feature_that_tells_the_class_is_found_and_a_rare_class_is_no_leak(of: Make) -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, ROWS)
    made = of(
        {"code": [f"c{2 - value}" for value in label], "score": label + rng.uniform(0, 0.5, ROWS), "x": rng.normal(size=ROWS), "y": label}
    )
    assert {leak.columns for leak in made.leaks} == {("code",), ("score",)}
    rare = (rng.uniform(size=ROWS * 10) < 0.002).astype(int)
    honest = of({"x": rng.normal(size=len(rare)), "z": rare + rng.normal(size=len(rare)), "y": rare}, "split.kind=stratified")
    assert honest.leaks == ()


def test_gaps_that_tell_the_target_are_found_and_gaps_by_chance_are_not(of: Make) -> None:
    rng = np.random.default_rng(0)
    label, x = rng.integers(0, 2, ROWS), rng.normal(size=ROWS)
    made = of({"by_class": np.where(label == 1, np.nan, x), "by_chance": np.where(rng.uniform(size=ROWS) < 0.5, np.nan, x), "y": label})
    assert _kinds(made.leaks) == [("missing", ("by_class",))]
    assert "missing in 100% of rows whose target is '1' and in 0% of the others" in made.leaks[0].text
    none = np.where(rng.uniform(size=ROWS) < 0.3, 0.0, rng.normal(size=ROWS))
    assert _kinds(of({"reason": np.where(none == 0, np.nan, x), "y": none}).leaks) == [("missing", ("reason",))]


def test_rows_that_stand_in_two_parts_are_counted(of: Make) -> None:
    target, honest = _drawn()
    twice = {"x": np.concatenate([honest, honest[:300]]), "y": np.concatenate([target, target[:300]])}
    made = of(twice)
    (leak,) = made.leaks
    rows = np.stack([made.table.features[:, 0], made.table.target], axis=1)
    known = {row.tobytes() for row in rows[made.split.train]}
    for part, numbers in (("validation", made.split.validation), ("test", made.split.test)):
        count = sum(row.tobytes() in known for row in rows[numbers])
        assert f"{count:,} of {len(numbers):,} {part} rows" in leak.text


def test_rows_of_few_values_repeat_by_chance_and_that_is_no_warning(of: Make) -> None:
    rng = np.random.default_rng(0)
    assert of({"a": rng.integers(0, 5, ROWS), "b": rng.integers(0, 4, ROWS), "y": rng.integers(0, 2, ROWS)}).leaks == ()


def test_a_hash_is_that_of_equal_rows_only() -> None:
    rows = np.random.default_rng(0).integers(0, 2, (20_000, 24)).astype(np.float32)
    rows[0], rows[1], rows[2:4] = 0.0, -0.0, np.nan
    found = hashes(rows, np.zeros(len(rows)))
    assert found[0] == found[1]
    assert found[2] == found[3]
    different = len(np.unique(np.nan_to_num(rows, nan=7.0) + 0.0, axis=0))
    assert len(np.unique(found)) == different


def test_dates_that_are_split_at_random_are_warned_of_and_a_chronological_split_is_not(of: Make) -> None:
    target, honest = _drawn()
    columns = {"day": pd.date_range("2020-01-01", periods=ROWS), "x": honest, "y": target}
    assert _kinds(of(columns).leaks) == [("time", ("day",))]
    assert "--time-column 'day'" in of(columns).leaks[0].text
    assert _kinds(of(columns, "columns.time=day").leaks) == [("time", ("day",))]
    assert of(columns, "columns.time=day", "split.kind=chronological").leaks == ()
    assert of({**columns, "day": [pd.Timestamp("2020-01-01")] * ROWS}).leaks == ()


ODD = '<script>alert("x")</script> $a$ & ünï\u202e'


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """A table with all kinds of columns, gaps, infinities, rows that cannot be used, and names that a page must not trust."""
    folder, rng = tmp_path_factory.mktemp("mixed"), np.random.default_rng(0)
    start = datetime(2021, 3, 1)
    frame = pd.DataFrame(
        {
            "number": np.where(rng.uniform(size=ROWS) < 0.1, np.nan, rng.normal(size=ROWS)),
            "tail": np.where(rng.uniform(size=ROWS) < 0.01, np.inf, rng.lognormal(0, 3, ROWS)),
            "whole": rng.integers(0, 7, ROWS),
            "flag": rng.uniform(size=ROWS) < 0.25,
            "when": [start + timedelta(hours=int(hour)) for hour in rng.integers(0, 8760, ROWS)],
            "comma": [f"{value:.2f}".replace(".", ",") for value in rng.normal(size=ROWS)],
            "city": rng.choice([ODD, "Rome", "x" * 500], ROWS, p=[0.5, 0.3, 0.2]),
            "many": [None if place % 11 == 0 else f"c{place % 300}" for place in range(ROWS)],
            ODD: rng.normal(size=ROWS),
            "long" * 200: rng.normal(size=ROWS),
            "always": np.ones(ROWS),
            "empty": [None] * ROWS,
            "cost $": np.where(np.arange(ROWS) < 30, np.nan, rng.normal(size=ROWS)),
        }
    )
    frame.loc[30:36, "cost $"] = np.inf
    path = folder / "mixed.parquet"
    frame.to_parquet(path, index=False)
    return _experiment(data=str(path), target="cost $", tables=folder / "tables")


@pytest.fixture(scope="module")
def shown(mixed: Experiment) -> str:
    return data_page(mixed, title=ODD, links={"home": 'x" onclick="y'})


def _rows(document: str) -> dict[str, str]:
    """Return the text of every table row by the text of its first cell."""
    return {cells[0].strip(): " ".join(cells) for _, cells in _read(document).rows if cells}


def test_the_page_is_well_formed_fetches_nothing_and_runs_nothing(shown: str) -> None:
    reader = _read(shown)
    assert shown.startswith("<!doctype html>")
    assert len(set(reader.identifiers)) == len(reader.identifiers)
    assert set(reader.pointed) <= set(reader.identifiers)
    assert reader.fetched == []
    assert "<script" not in shown
    assert len(shown) < 400_000


def test_names_and_values_of_users_are_text(mixed: Experiment, shown: str) -> None:
    rows = _rows(shown)
    assert ODD in rows
    assert ODD[:23] + "…" in rows["city"]
    assert f"{'long' * 19}lon…" in rows
    assert "x" * 30 not in rows["city"]
    assert any(ODD in label for label in _read(shown).labels)


def test_every_column_has_its_kind_range_gaps_and_distribution(mixed: Experiment, shown: str) -> None:
    rows, facts = _rows(shown), {item.name: item for item in mixed.table.facts}
    assert "target" in rows["cost $"]
    assert percent(facts["number"].missing_share) in rows["number"]
    assert f"{facts['tail'].infinite:,} rows infinite" in rows["tail"]
    assert "ends hold the rest" in rows["tail"]
    assert "whole numbers" in rows["whole"]
    assert "0 – 6" in rows["whole"]
    assert "true or false" in rows["flag"]
    assert re.search(r"false 7\d\.\d%, true 2\d\.\d%", rows["flag"])
    assert "dates" in rows["when"]
    assert "2021-03-01" in rows["when"]
    assert "2022-0" in rows["when"]
    assert "decimal comma" in rows["comma"]
    assert "3 categories" in rows["city"]
    assert "300 categories" in rows["many"]
    assert "64 kept" in rows["many"]
    assert "always 1" in rows["always"]
    assert sum(label.startswith("distribution of") for label in _read(shown).labels) == 1 + len(mixed.table.schema.columns)


def test_quarantined_rows_are_counted_by_reason_and_add_up(mixed: Experiment, shown: str) -> None:
    rows, text = _rows(shown), " ".join(_read(shown).text)
    assert "target 'cost $' is missing in 30 of 2,000 rows (1.5%), which are left out" in text
    assert " 7 " in rows["target 'cost $' is infinite"]
    assert f"7 of the source's {ROWS:,} rows" in text
    assert mixed.table.schema.rows + 30 + 7 == ROWS
    assert str(mixed.table.quarantine) in text
    assert "7 of 2,000 rows (0.4%) could not be used" in alert(mixed)


def test_both_colour_schemes_know_every_colour_of_the_page(shown: str) -> None:
    light, dark = shown[shown.index("<style>") : shown.index("</style>")].split("@media (prefers-color-scheme: dark)")
    for name in set(re.findall(r"var\((--[\w-]+)\)", shown)):
        assert f"{name}:" in light
        assert f"{name}:" in dark.split("}")[0]
    assert set(re.findall(r"(?:fill|stroke): (#\w+)", shown)) == set()


def test_a_thousand_columns_make_a_small_page_that_shows_those_that_matter(of: Make) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, 1000))
    frame = pd.DataFrame(x, columns=[f"f{number}" for number in range(1000)]).assign(y=x[:, 700] ** 2 + 0.3 * x[:, 3])
    made = of(frame)
    document = data_page(made, title="wide", links={})
    rows = _rows(document)
    assert len(document) < 250_000
    assert "f700" in rows
    assert len([name for name in rows if re.fullmatch(r"f\d+", name)]) == 60
    assert "940 more features are not shown" in document


def test_the_picture_of_a_chronological_split_says_when_each_part_begins_and_ends(of: Make) -> None:
    target, honest = _drawn()
    columns = {"day": pd.date_range("2020-01-01", periods=ROWS), "x": honest, "y": target}
    made = of(columns, "columns.time=day", "split.kind=chronological", "split.embargo=30 days")
    text = " ".join(_read(data_page(made, title="t", links={})).text)
    days = columns["day"][made.split.train]
    assert f"from 2020-01-01 to {days.max():%Y-%m-%d}" in text
    assert "unused, 60 rows" in text
    assert "An embargo of 30 days before each cut" in text
    assert made.portrait.timeline.split.sum() == ROWS


@pytest.mark.parametrize("profile", ["lesson", "quick"])
def test_the_smallest_tables_have_a_page(profile: str, of: Make, tables: Path) -> None:
    made = _experiment("lesson", tables=tables) if profile == "lesson" else of({"x": range(12), "y": [0.5, 1.5, 2.0] * 4})
    text = " ".join(_read(data_page(made, title="t", links={})).text)
    assert "nan" not in re.findall(r"\w+", text)
    assert ("in every part" in text) == (profile == "lesson")


def test_a_date_that_stands_for_none_does_not_stretch_time(of: Make) -> None:
    target, honest = _drawn()
    days = pd.date_range("2020-01-01", periods=ROWS).to_series().mask(np.arange(ROWS) == 7, pd.Timestamp("2261-12-31"))
    edges = of({"day": days.to_numpy(), "x": honest, "y": target}).portrait.timeline.split_edges
    assert when(edges[-1]) < "2026"


def test_warnings_reach_the_verdict_and_its_page_and_a_notebooks_page_after_its_folder_is_gone() -> None:
    target, honest = _drawn(300)
    frame = pd.DataFrame({"honest": honest, "copy": 2 * target, "y": target})
    found = compare(frame, "y", strategies=["full_batch"], **LITTLE)
    assert any(note.startswith("'copy' is the target") for note in found.verdict.notes)
    document = found.page()
    reader: Reader = _read(document)
    assert "data" in reader.pointed
    assert {"data", "data-split", "data-target"} <= set(reader.identifiers)
    assert document.index('class="alert"') < document.index("<main>") < document.index('id="data"')


def test_a_feature_that_numbers_the_rows_is_named_and_one_that_only_rises_is_not(of: Make) -> None:
    target, honest = _drawn()
    rising = np.cumsum(np.random.default_rng(2).integers(0, 2, ROWS))
    made = of({"id": np.arange(5, ROWS + 5), "rising": rising, "honest": honest, "y": target})
    assert _kinds(made.leaks) == [("numbers", ("id",))]
    assert made.leaks[0].text.endswith("leave it out unless it means something (--drop 'id')")
    assert of({"id": np.arange(ROWS), "y": target}).leaks == ()  # there is nothing else to go by
