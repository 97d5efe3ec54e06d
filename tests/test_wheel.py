"""The wheel: all that the library and the command line need lies in it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT

USED = """
import sys
import batchlab
from batchlab.config import load_profile
from batchlab.models import MODELS
from batchlab.strategies import STRATEGIES
import flows.cli
print(batchlab.__file__, flows.cli.__file__, load_profile("quick").model.kind, len(MODELS), len(STRATEGIES), sep="\\n")
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as it is installed: its files in a folder."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)
    (wheel,) = folder.glob("batchlab-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_what_is_imported_from_the_wheel_finds_its_kinds_and_profiles(unpacked: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    done = subprocess.run([sys.executable, "-P", "-c", USED], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    library, command, model, models, strategies = done.stdout.splitlines()
    assert library == str(unpacked / "batchlab" / "__init__.py")
    assert command == str(unpacked / "flows" / "cli.py")
    assert model == "linear"
    kinds = [len(list((CHECKOUT / "batchlab" / name).glob("[a-z]*.py"))) for name in ("models", "strategies")]
    assert int(models) <= kinds[0]
    assert int(strategies) == kinds[1] - 1  # but for base.py


def test_the_wheel_holds_every_file_of_the_packages_and_no_test(unpacked: Path) -> None:
    def files(root: Path) -> set[str]:
        places = (path.relative_to(root) for name in ("batchlab", "flows", "tasks") for path in (root / name).rglob("*"))
        return {str(place) for place in places if place.suffix and "__pycache__" not in place.parts}

    assert files(unpacked) == files(CHECKOUT)
    assert {path.name for path in unpacked.iterdir()} == {"batchlab", "flows", "tasks", "batchlab-0.1.0.dist-info"}
