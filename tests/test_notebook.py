"""The comparison from a notebook or a script: a frame in, the verdict out, without Prefect or MLflow."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from sklearn.datasets import load_wine

import batchlab
from batchlab.errors import BadInput
from batchlab.search.search import Search
from tests.conftest import SMALL
from tests.verdicts import departed

FEW = {"strategies": ["full_batch", "mini_batch"], "overrides": [*SMALL, "train.epochs=20", "search.batch_rows=[8,32]"]}


@pytest.fixture(scope="module")
def compared() -> batchlab.Comparison:
    return batchlab.compare(load_wine(as_frame=True).frame, target="target", **FEW)  # type: ignore[arg-type]


def test_the_frames_verdict_names_one_of_its_settings_and_shows_itself(compared: batchlab.Comparison) -> None:
    verdict, frame = compared.verdict, compared.to_frame()
    assert frame.recommended.dtype == bool
    (best,) = frame[frame.recommended].to_dict("records")
    assert [best[key] for key in ("strategy", "batch_rows", "optimizer", "learning_rate")] == [
        verdict.strategy,
        verdict.batch_rows,
        verdict.optimizer,
        verdict.learning_rate,
    ]
    assert best["mean_validation_loss"] == pytest.approx(verdict.loss) == pytest.approx(verdict.value)
    assert best["mean_test_loss"] == pytest.approx(verdict.test_loss)
    assert verdict.loss_ci is not None
    assert verdict.loss is not None
    assert verdict.loss_ci[0] <= verdict.loss <= (verdict.loss_ci[1] or verdict.loss)
    assert repr(compared).splitlines() == [*verdict.text.splitlines(), *(f"• {note}" for note in verdict.notes)]
    shown = compared._repr_html_()
    assert verdict.text.splitlines()[0] in shown
    assert all(label in shown for label in frame.setting)


def test_its_trials_plot_and_page_are_there_without_the_folder_that_was_packed_into(compared: batchlab.Comparison, tmp_path: Path) -> None:
    trials = compared.trials()
    assert set(trials.phase) == {"race", "confirming"}
    setting = ["strategy", "batch_rows", "optimizer", "learning_rate", "typed"]
    assert (trials.groupby([*setting, "phase"], dropna=False).size() >= 2).all()
    assert (trials.curve_validation_loss.map(len) == trials.curve_rows_seen.map(len)).all()
    assert len(trials) <= compared.verdict.trainings
    compared.plot().savefig(tmp_path / "verdict.png")
    page = compared.page()
    assert compared.save(tmp_path / "verdict.html").read_text() == page
    assert compared.verdict.text.splitlines()[0] in page


def test_the_verdicts_json_says_best_loss_margin_optimizer_trainings_and_what_was_left_out(compared: batchlab.Comparison) -> None:
    written = json.loads(compared.verdict.model_dump_json())
    assert (written["objective"], written["margin"], written["optimizer"]) == ("best", 0.01, "sgd")
    assert 0 < written["best_loss"] <= written["loss"]
    assert written["trainings"] > 0
    assert written["left_out"] == []
    assert written["settings"]["train"]["optimizer"]["kind"] == "sgd"
    assert written["settings"]["train"]["max_rows"] == written["rows"]


def test_what_was_left_behind_is_behind_in_the_frame_and_when_it_is_shown(searched: Search) -> None:
    typed = searched.findings.typed[0].candidate
    frame = batchlab.Comparison(departed(searched, typed.setting)).to_frame().set_index("setting")
    assert frame.status[typed.label] == "behind"
    assert not frame.recommended[typed.label]
    assert pd.isna(frame.seconds_to_target[typed.label])
    assert frame.mean_validation_loss[typed.label] > 0
    shown = batchlab.Comparison(departed(searched, typed.setting))._repr_html_()
    assert f"{typed.label.removeprefix('typed ')} was behind after " in shown


def test_a_short_limit_names_what_it_left_out_and_recommends_all_the_same() -> None:
    overrides = [*SMALL, "search.batch_rows=[8,32]"]
    wine, strategies = load_wine(as_frame=True).frame, ["full_batch", "mini_batch"]
    short = batchlab.compare(wine, target="target", strategies=strategies, overrides=overrides, max_minutes=0.1)
    left_out = dict(text.split(": ", 1) for text in short.verdict.left_out)
    assert left_out.keys() >= {"peak memory", "loaders"}
    assert left_out["peak memory"] == left_out["loaders"] == "a limit of 0.1 min leaves no time"
    told = r"of the 0.1 min that it was given\..* Left out: peak memory and loaders \(a limit of 0.1 min leaves no time\)"
    assert re.search(told, repr(short))
    assert repr(short).startswith("Train with ")
    assert short.to_frame().recommended.sum() == 1


SCRIPT = """
import sys, time, batchlab, torch
from sklearn.datasets import load_diabetes

class Slow(torch.nn.Linear):
    def forward(self, rows):
        time.sleep(0.03)
        return super().forward(rows)

if __name__ == "__main__":
    overrides = ["search.optimizers=sgd", "search.max_minutes=30", "train.epochs=1000000", *sys.argv[1:]]
    frame = load_diabetes(as_frame=True).frame
    try:
        found = batchlab.compare(frame, target="target", strategies=["mini_batch"], overrides=overrides, progress=True)
        print(found.verdict.text)
        print("recommended", found.to_frame().recommended.sum())
    except KeyboardInterrupt:
        print("nothing is known")
"""


def interrupted(folder: Path, label: str, times: int, *overrides: str) -> str:
    """Run a script that compares for half an hour, interrupt it when its bar has shown so many such labels, and return what it said."""
    (folder / "script.py").write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, "script.py", *overrides],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a job in the background inherits it ignored
    )
    assert process.stderr is not None
    said = ""
    while len(set(re.findall(label, said))) < times:
        piece = os.read(process.stderr.fileno(), 1000)
        assert piece, said
        said += piece.decode(errors="replace")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all its processes
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()
    return output.decode()


def test_an_interrupted_comparison_keeps_what_is_known_and_concludes(tmp_path: Path) -> None:
    said = interrupted(tmp_path, r"race over [\d.]+%", 2)
    assert said.startswith("Train with mini_batch, ")
    assert "recommended 1" in said


def test_an_interruption_before_anything_is_known_ends_it(tmp_path: Path) -> None:
    said = interrupted(tmp_path, "first look", 1, "model.kind=custom", "model.factory=script:Slow")
    assert said == "nothing is known\n"


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
    with pytest.raises(BadInput, match=r"takes a pandas DataFrame, .*, not int"):
        batchlab.compare(3, target="y")
    with pytest.raises(BadInput, match="target column 'z' does not exist"):
        batchlab.compare(pd.DataFrame({"x": [1.0, 2.0], "y": [1.0, 2.0]}), target="z")


def test_a_name_that_the_package_has_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'compair'"):
        batchlab.compair  # noqa: B018
