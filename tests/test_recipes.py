"""CONTRIBUTING's recipes, each applied to a copy of the checkout: what is new works there, and the contract tests it names pick it up."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

CARRIED = ("batchlab", "flows", "tasks", "tests", "docs", "pyproject.toml", "CONTRIBUTING.md")
LEFT_BEHIND = shutil.ignore_patterns("kernels-*", "*.svg", "*.ipynb")
TESTED = ("-m", "pytest", "-vv", "-p", "no:cacheprovider")
WITH_TORCH = "train.backend=torch"
"""The kernels of a copy are compiled anew, which takes longer than all else."""


def recipes() -> dict[str, list[tuple[str, str]]]:
    """Return the blocks of each recipe, as (`python` or `diff`, text), by what it adds."""
    sections = re.split(r"^## ", (CHECKOUT / "CONTRIBUTING.md").read_text(), flags=re.MULTILINE)
    named = {found[1]: section for section in sections if (found := re.match(r"Add an? (\w+):", section))}
    return {name: re.findall(r"^```(python|diff)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL) for name, text in named.items()}


def copied(place: Path) -> Path:
    """Return a copy of the checkout in that folder."""
    for name in CARRIED:
        source = CHECKOUT / name
        shutil.copytree(source, place / name, ignore=LEFT_BEHIND) if source.is_dir() else shutil.copy2(source, place / name)
    return place


def apply(kind: str, text: str, checkout: Path) -> None:
    """Write the file that a block holds, or change those that its diff names."""
    if kind == "python":
        path = checkout / text.splitlines()[0].removeprefix("# ")
        assert not path.exists(), path
        path.write_text(text)
        return
    for part in re.split(r"^--- a/", text, flags=re.MULTILINE)[1:]:
        (path, same), *_ = re.findall(r"\A(\S+)\n\+\+\+ b/(\S+)\n", part) or [("", "a diff without its two header lines")]
        assert path == same
        change(checkout / path, part.split("\n@@\n")[1:])


def change(path: Path, hunks: list[str]) -> None:
    """Replace, hunk by hunk, the lines that it keeps or removes, which the file must have exactly once, by those that it keeps or adds."""
    assert hunks, path
    text = f"\n{path.read_text()}"
    for hunk in hunks:
        lines = [line or " " for line in hunk.rstrip("\n").split("\n")]
        assert {line[0] for line in lines} <= set(" +-"), hunk
        before, after = ("".join(f"\n{line[1:]}" for line in lines if line[0] in kept) + "\n" for kept in (" -", " +"))
        assert text.count(before) == 1, f"{path} has {text.count(before)} times:{before}"
        text = text.replace(before, after)
    path.write_text(text[1:])


def applied(name: str, place: Path) -> Path:
    """Return a copy of the checkout in that folder to which the recipe is applied."""
    checkout = copied(place)
    for kind, text in recipes()[name]:
        apply(kind, text, checkout)
    return checkout


def run(checkout: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run Python in the copy, which finds the copy's packages."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    return subprocess.run([sys.executable, *arguments], cwd=checkout, env=environment, capture_output=True, text=True, check=False)


def passed(checkout: Path, use: str, files: str, selected: str) -> set[str]:
    """Return the ids of the tests that passed in the copy: `use`, written there as a test of its own, and the selected ones of these files;
    none may fail."""
    (checkout / "tests" / "test_use.py").write_text(f"import batchlab\n\n\ndef test_use(experiment):\n    {use.strip()}\n")
    done = run(checkout, *TESTED, "tests/test_use.py", *files.split(), "-k", f"test_use or {selected}")
    assert done.returncode == 0, done.stdout + done.stderr
    found = set(re.findall(r"^(tests/\S+::.+?) PASSED", done.stdout, flags=re.MULTILINE))
    assert "tests/test_use.py::test_use" in found
    return {name.removeprefix("tests/") for name in found}


TRAINED = """
    from batchlab.engine.loop import train
    from batchlab.engine.records import Trial

    made = experiment("quick", {choices}, overrides=["train.epochs=5", {overrides}])
    strategy = next(iter(made.profile.strategies.values()))
    (result,) = train(made.data, made.model, strategy, [Trial(0.02, 0)], made.profile.train, made.loss, made.device)
    assert result.curve.validation_loss[-1] < result.curve.validation_loss[0]
"""
"""A little training whose loss falls."""
COMPARED = """
    import numpy as np, pandas as pd

    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.standard_normal((120, 2)), columns=["a", "b"])
    frame["y"] = frame.a + 0.1 * rng.standard_normal(120)
    small = ["train.epochs=4", "search.rates=3", "search.tuning_seeds=2", "search.seeds=2", "search.timings=4", "search.defaults=false"]
    found = batchlab.compare(
        frame, "y", strategies=["mini_batch"], max_minutes=float("inf"), overrides=[*small, "search.batch_rows=[8, 16]", {overrides}]
    )
"""
"""A little comparison."""


def words(*overrides: str) -> str:
    """Return overrides as they stand in a list."""
    return ", ".join(map(repr, overrides))


def test_every_recipe_has_its_test_and_what_it_adds_is_asked_for_in_the_reference(tmp_path: Path) -> None:
    found = {name: blocks for name, blocks in recipes().items() if blocks}
    assert set(found) == {"strategy", "model", "activation", "optimizer", "source", "objective", "yardstick"}
    assert all(f"_{name}_" in " ".join(globals()) for name in found)
    checkout = copied(tmp_path)
    for blocks in found.values():
        for kind, text in blocks:
            apply(kind, text, checkout)
    done = run(checkout, *TESTED, "tests/test_documents.py", "-k", "names_every")
    assert done.returncode == 1, done.stdout
    missing = set(re.findall(r"\('([\w.]+)', '(\w+)'\)", done.stdout))
    kinds = {("strategies.NAME", "sorted_batch"), ("model", "gated"), ("train.optimizer", "adagrad"), ("source", "friedman")}
    assert missing == {(f"{key}.kind", kind) for key, kind in kinds} | {("model.activation", "elu"), ("search.objective", "steps")}
    assert "model.width" in done.stdout


def test_the_strategy_recipe_is_under_contract_and_trains(tmp_path: Path) -> None:
    checkout = applied("strategy", tmp_path)
    use = TRAINED.format(choices='strategies=["sorted_batch"]', overrides=words(WITH_TORCH))
    use += """
    from batchlab.search.space import lines_of

    assert [line.label for line in lines_of(made.profile, 265) if line.typed is None] == [f"sorted_batch {size}" for size in (8, 32, 128)]
"""
    found = passed(
        checkout, use, "tests/test_strategies.py tests/test_streaming.py", "once_an_epoch or strategy_states or sorted_batch and torch"
    )
    assert "test_strategies.py::test_every_row_comes_exactly_once_an_epoch" in found
    assert "test_streaming.py::test_every_other_strategy_trains_the_same_on_rows_in_files[sorted_batch-torch]" in found


@pytest.mark.slow
def test_the_model_recipe_is_under_contract_and_trains(tmp_path: Path) -> None:
    checkout = applied("model", tmp_path)
    use = TRAINED.format(choices='strategies=["mini_batch"]', overrides=words("model.kind=gated", "model.width=5"))
    found = passed(checkout, use, "tests/test_models.py", "Gated or every_registered_model")
    assert "test_models.py::test_every_registered_model_is_under_contract" in found
    assert "test_models.py::test_the_stacked_forward_is_each_replicas_own[Gated(kind='gated', width=4)]" in found


@pytest.mark.slow
def test_the_activation_recipe_is_under_contract_and_trains(tmp_path: Path) -> None:
    checkout = applied("activation", tmp_path)
    overrides = words(WITH_TORCH, "model.kind=mlp", "model.activation=elu")
    use = TRAINED.format(choices='strategies=["mini_batch"]', overrides=overrides)
    found = passed(checkout, use, "tests/test_backends.py tests/test_models.py", "elu and not relu and not gelu and not kernels")
    assert "test_backends.py::test_an_activations_value_and_slope_belong_together[elu]" in found
    assert "test_backends.py::test_every_activation_loss_and_optimizer_is_that_of_plain_pytorch[mse-elu-torch]" in found
    assert any(name.startswith("test_models.py") for name in found)


def test_the_optimizer_recipe_is_under_contract_and_trains(tmp_path: Path) -> None:
    checkout = applied("optimizer", tmp_path)
    use = TRAINED.format(choices='strategies=["mini_batch"]', overrides=words(WITH_TORCH, "train.optimizer.kind=adagrad"))
    found = passed(checkout, use, "tests/test_backends.py", "Adagrad or every_registered_optimizer")
    assert "test_backends.py::test_every_registered_optimizer_is_under_contract" in found
    assert any("test_both_forms_of_an_optimizer_are_torchs[Adagrad" in name for name in found)


@pytest.mark.slow
def test_the_kernels_compile_with_the_recipes_of_activation_and_optimizer_and_the_optimizer_races(tmp_path: Path) -> None:
    checkout = applied("activation", tmp_path)
    for kind, text in recipes()["optimizer"]:
        apply(kind, text, checkout)
    use = COMPARED.format(overrides=words('search.optimizers=[{kind = "adagrad"}]', "search.yardsticks=false"))
    use += """
    import pytest
    from batchlab.errors import BadInput

    assert found.verdict.optimizer == "adagrad"
    with pytest.raises(BadInput, match="no few lines say optimizer adagrad"):
        found.verdict.code("torch")
    assert "adagrad" in found.page()
"""
    found = passed(checkout, use, "tests/test_backends.py", "elu and not relu and not gelu and kernels")
    assert len([name for name in found if name.endswith("-elu-kernels]")]) == 3


@pytest.mark.slow
def test_the_source_recipe_is_under_contract_and_is_compared_on(tmp_path: Path) -> None:
    checkout = applied("source", tmp_path)
    use = TRAINED.format(choices='data="friedman", strategies=["mini_batch"]', overrides=words(WITH_TORCH))
    found = passed(checkout, use, "tests/test_reading.py", "friedman or every_kind_of_source")
    assert any("every_pass" in name and "friedman" in name for name in found)


@pytest.mark.slow
def test_the_objective_recipe_decides_a_verdict_and_is_told(tmp_path: Path) -> None:
    checkout = applied("objective", tmp_path)
    use = COMPARED.format(overrides=words(WITH_TORCH, "search.objective=steps", "search.yardsticks=false"))
    use += """
    verdict = found.verdict
    reached = found.to_frame().query("status == 'reached'").steps_to_target
    assert (verdict.objective, verdict.value) == ("steps", reached.min())
    assert f" after {verdict.value:.3g} steps (95% CI " in verdict.text
    assert found.page()
"""
    found = passed(checkout, use, "tests/test_verdict.py", "every_objective or one_measure")
    assert "test_verdict.py::test_what_an_objective_ranks_by_and_says_and_compares_is_one_measure[steps]" in found


@pytest.mark.slow
def test_the_yardstick_recipe_is_under_contract_and_stands_beside_a_verdict(tmp_path: Path) -> None:
    checkout = applied("yardstick", tmp_path)
    use = COMPARED.format(overrides=words(WITH_TORCH, "search.yardsticks=true"))
    use += """
    assert [item.key for item in found.verdict.yardsticks][:2] == ["constant", "median"]
    assert "always predicting the median" in found.page()
"""
    found = passed(checkout, use, "tests/test_yardsticks.py", "every_yardstick_of_these_rows")
    assert len([name for name in found if "every_yardstick_of_these_rows" in name]) == 3
