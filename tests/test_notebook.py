"""The comparison from a notebook or a script: a frame in, the verdict out, without Prefect or MLflow."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from sklearn.datasets import load_wine

import batchlab
from batchlab.errors import BadInput
from tests.conftest import SMALL


@pytest.fixture(scope="module")
def found() -> batchlab.Comparison:
    return batchlab.compare(load_wine(as_frame=True).frame, target="target", overrides=[*SMALL, "train.epochs=20"])


def test_the_frames_verdict_names_one_of_its_settings_and_shows_itself(found: batchlab.Comparison) -> None:
    verdict, frame = found.verdict, found.to_frame()
    best = frame[(frame.strategy == verdict.strategy) & (frame.batch_rows == verdict.batch_rows)]
    assert len(best) == 1
    assert best.seconds_to_target.iloc[0] == pytest.approx(verdict.value)
    assert repr(found) == verdict.text
    shown = found._repr_html_()
    assert verdict.text.splitlines()[0] in shown
    assert all(label in shown for label in frame.setting)


def test_its_trials_plot_and_page_are_there_without_the_folder_that_was_packed_into(found: batchlab.Comparison, tmp_path: Path) -> None:
    assert len(found.trials()) >= 3 * len(set(found.trials().settings))
    found.plot().savefig(tmp_path / "verdict.png")
    assert found.save(tmp_path / "verdict.html").read_text() == found.page()
    assert found.verdict.text.splitlines()[0] in found.page()


def test_a_script_without_a_guard_imports_neither_prefect_nor_mlflow(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import sys, pandas as pd, numpy as np, batchlab\n"
        "rng = np.random.default_rng(0)\n"
        "frame = pd.DataFrame(rng.normal(size=(60, 2)), columns=['a', 'b']).assign(y=lambda rows: rows.a * 3 + rows.b)\n"
        f"found = batchlab.compare(frame, target='y', strategies=['full_batch', 'mini_batch'], overrides={[*SMALL, 'train.epochs=20']!r})\n"
        "print(found.verdict.text)\n"
        "print(sorted({'prefect', 'mlflow'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.count("Train with") == 1
    assert done.stdout.rstrip().endswith("[]")


def test_what_is_no_frame_or_has_no_such_column_is_refused() -> None:
    with pytest.raises(BadInput, match="takes a pandas DataFrame, not int"):
        batchlab.compare(3, target="y")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="target column 'z' does not exist"):
        batchlab.compare(pd.DataFrame({"x": [1.0, 2.0], "y": [1.0, 2.0]}), target="z")


def test_a_name_that_the_package_has_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'compair'"):
        batchlab.compair  # noqa: B018
