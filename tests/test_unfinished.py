"""What is kept of a comparison that does not come to its end, and who takes it up."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchlab.experiment import Experiment
from batchlab.search.keeping import Kept
from batchlab.search.saving import both
from batchlab.search.search import Search
from tasks import progress, unfinished
from tasks.provenance import owner
from tests.test_science import Make

GONE = json.dumps([os.uname().nodename, 2**22 + 1, 0.0])
"""A process of this machine that there never was."""


class Heard:
    """Keeps what is told to people."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def moved(self, label: str, share: float) -> None: ...

    def announced(self, text: str) -> None:
        self.said.append(text)

    def concluded(self, search: object, scores: object) -> None: ...


@pytest.fixture(autouse=True)
def heard(mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    monkeypatch.setenv("BATCHLAB_MLRUNS", str(mlruns))
    listener = Heard()
    progress.listeners.append(listener)
    yield listener
    progress.listeners.remove(listener)


def left(key: str, run_id: str, search: Search, by: str = GONE) -> None:
    """Leave a comparison as its process did when it was killed."""
    unfinished.begin(key, run_id)
    unfinished.kept(run_id).keep_known(search.known)
    path = unfinished._folder() / f"{run_id}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"owner": by}))


def test_rows_split_and_every_setting_are_part_of_the_key(experiment: Make) -> None:
    def key(**choices: object) -> str:
        made: Experiment = experiment("quick", **choices)
        return unfinished.key_of(made)

    usual = key()
    assert key() == usual
    others = [key(data="wine"), key(seed=1), key(overrides=["split.test=0.3"]), key(overrides=["search.max_minutes=3"])]
    assert len({usual, *others}) == 5


def test_only_a_comparison_whose_process_is_gone_is_taken_up_and_of_these_the_latest(searched: Search) -> None:
    assert unfinished.left_by("same") is None
    left("same", "a", searched)
    left("other", "b", searched)
    assert unfinished.left_by("same") == "a"
    time.sleep(0.01)
    left("same", "c", searched)
    assert unfinished.left_by("same") == "c"
    left("same", "c", searched, by=json.dumps([os.uname().nodename, os.getppid(), _born(os.getppid())]))
    assert unfinished.left_by("same") == "a"
    left("same", "d", searched, by=owner())
    assert unfinished.left_by("same") == "d"
    unfinished.forget("d")
    assert unfinished.left_by("same") == "a"


def _born(pid: int) -> float:
    import psutil

    return psutil.Process(pid).create_time()


def test_what_was_known_comes_back_and_a_damaged_file_gives_way_to_the_one_before(searched: Search, heard: Heard) -> None:
    left("same", "a", searched)
    unfinished.kept("a").keep_known(searched.known)
    latest, before = both(unfinished.kept("a").folder / "known.npz")
    known = unfinished.kept("a").known()
    assert known is not None
    assert known.all_trainings == searched.known.all_trainings
    assert not heard.said
    for damage in (latest.read_bytes()[:-100], b"", flipped(latest.read_bytes())):
        latest.write_bytes(damage)
        again = unfinished.kept("a").known()
        assert again is not None
        assert again.all_trainings == known.all_trainings
        assert "holds nothing that can be taken up" in heard.said[-1]
    before.write_bytes(b"nothing of the kind")
    assert unfinished.kept("a").known() is None


def flipped(content: bytes) -> bytes:
    """The bytes with one bit of an array changed."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def test_what_is_known_is_written_no_more_often_than_writing_is_worth(searched: Search) -> None:
    kept = Kept(unfinished.kept("a").folder, lambda text: None, share=1e-9)
    kept.keep_known(searched.known)
    latest, before = both(kept.folder / "known.npz")
    written = latest.stat().st_mtime_ns
    kept.keep_known(searched.known)
    assert (latest.stat().st_mtime_ns, before.exists()) == (written, False)


def test_what_nobody_takes_up_for_two_weeks_is_removed(searched: Search) -> None:
    left("same", "a", searched)
    for path in unfinished._folder().iterdir():
        os.utime(path, (0, time.time() - unfinished.KEPT_SECONDS - 1))
    assert unfinished.left_by("same") is None
    assert not list(unfinished._folder().iterdir())
