"""The registry: one champion at every moment, whoever promotes at once, and the way back."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from batchlab.errors import BadInput
from batchlab.retraining.fresh import Mark
from tasks import registry, store
from tests.conftest import CHECKOUT

ROUNDS = 50
CONTENDER = """
import sys
from tasks import registry
name, mine = sys.argv[1:]
first, own = registry.version_of(name, "1"), registry.version_of(name, mine)
print("ready", flush=True)
for _ in sys.stdin:
    try:
        registry.promoted(own, first)
        print("won", flush=True)
    except registry.Superseded:
        print("lost", flush=True)
"""


@pytest.fixture
def client(mlruns: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    """The store of this test alone, in this process too."""
    monkeypatch.setenv("BATCHLAB_MLRUNS", str(mlruns))
    store.client.cache_clear()
    yield store.client()
    store.client.cache_clear()


def versions(client: MlflowClient, name: str, count: int) -> list[registry.Version]:
    """Register a model with so many versions, of which the first is champion."""
    client.create_registered_model(name)
    for _ in range(count):
        client.create_model_version(name, source="file:///nowhere")
    client.set_registered_model_alias(name, "champion", "1")
    return registry.versions(name)


def test_of_two_that_promote_at_once_exactly_one_wins_each_round_and_there_is_always_one_champion(client: MlflowClient) -> None:
    versions(client, "prices", 3)
    contenders = [
        subprocess.Popen(
            [sys.executable, "-c", CONTENDER, "prices", mine], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT
        )
        for mine in ("2", "3")
    ]
    seen, ended = set(), threading.Event()

    def watch() -> None:
        while not ended.is_set():
            champion = registry.champion_of("prices")
            seen.add(None if champion is None else champion.number)

    watcher = threading.Thread(target=watch)
    try:
        assert [said(contender) for contender in contenders] == ["ready", "ready"]
        watcher.start()
        winners = []
        for _ in range(ROUNDS):
            client.set_registered_model_alias("prices", "champion", "1")
            for contender in contenders:
                assert contender.stdin is not None
                contender.stdin.write("go\n")
                contender.stdin.flush()
            answers = [said(contender) for contender in contenders]
            assert sorted(answers) == ["lost", "won"]
            champion = registry.champion_of("prices")
            assert champion is not None
            assert champion.number == 2 + answers.index("won")
            assert registry.aliases_of("prices")["previous"] == 1
            winners.append(champion.number)
    finally:
        ended.set()
        for contender in contenders:
            contender.kill()
            contender.communicate()
        if watcher.ident:
            watcher.join()
    assert len(winners) == ROUNDS
    assert seen <= {1, 2, 3}


def said(contender: "subprocess.Popen[str]") -> str:
    assert contender.stdout is not None
    return contender.stdout.readline().strip()


def test_promoting_over_another_champion_than_was_judged_is_refused_and_changes_nothing(client: MlflowClient) -> None:
    first, second, third = versions(client, "prices", 3)
    registry.promoted(second, first)
    assert registry.aliases_of("prices") == {"champion": 2, "previous": 1}
    with pytest.raises(registry.Superseded, match="version 2 of 'prices' is champion, no longer version 1"):
        registry.promoted(third, first)
    with pytest.raises(registry.Superseded, match="no longer none"):
        registry.promoted(third, None)
    assert registry.aliases_of("prices") == {"champion": 2, "previous": 1}


def test_a_lock_is_free_again_when_its_holder_is_killed(client: MlflowClient) -> None:
    versions(client, "prices", 2)
    hold = "from tasks import registry; import time\nwith registry.exclusive('prices'):\n    print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)
    assert said(holder) == "held"
    holder.kill()
    holder.wait()
    with registry.exclusive("prices"):
        assert registry.champion_of("prices") == registry.Version("prices", 1, "")


def test_a_model_version_or_alias_that_is_not_there_is_named_beside_those_that_are(client: MlflowClient) -> None:
    with pytest.raises(BadInput, match=r"no model is registered in .* yet; `batchlab retrain` makes the first champion"):
        registry.version_of(None)
    versions(client, "prices", 2)
    assert registry.version_of(None).number == 1
    assert registry.version_of("prices", "2").uri == "models:/prices/2"
    with pytest.raises(BadInput, match=r"model 'prices' has no version '7'; its versions are 1, 2, its aliases champion \(version 1\)"):
        registry.version_of("prices", "7")
    with pytest.raises(BadInput, match="has no version 'previous'"):
        registry.version_of("prices", "previous")
    with pytest.raises(BadInput, match="did you mean 'prices'"):
        registry.version_of("price")
    versions(client, "sales", 1)
    with pytest.raises(BadInput, match=r"which model\? 2 are registered \(prices, sales\); name one with --model"):
        registry.version_of(None)


def test_the_mark_of_the_last_decision_never_goes_back(client: MlflowClient) -> None:
    versions(client, "prices", 1)
    assert registry.mark_of("prices") is None
    for digest, newest in (("a", 10.0), ("b", 20.0), ("c", 15.0), ("d", 20.0)):
        registry.set_mark("prices", Mark(digest=digest, rows=5, newest=newest))
    assert registry.mark_of("prices") == Mark(digest="d", rows=5, newest=20.0)


def test_names_of_any_kind_have_a_lock_in_the_store(client: MlflowClient) -> None:
    with registry.exclusive("sales, north (2026) 'x'"):
        (lock,) = (store.folder() / ".locks").iterdir()
    assert lock.name == "sales__north__2026___x_.lock"
    assert os.access(lock, os.W_OK)


def test_a_name_in_long_letters_has_a_lock_too(client: MlflowClient) -> None:
    with registry.exclusive("模" * 200):
        (lock,) = (store.folder() / ".locks").iterdir()
    assert len(lock.name.encode()) < 255


def test_models_beyond_the_first_page_of_the_registry_are_found(client: MlflowClient) -> None:
    for number in range(101):
        client.create_registered_model(f"model-{number:03}")
    assert len(registry.names()) == 101
    registry.set_mark("model-100", Mark(digest="a", rows=5))
    assert registry.mark_of("model-100") == Mark(digest="a", rows=5)
    assert registry.mark_of("unknown") is None
    assert registry.chosen_name("model-100") == "model-100"
