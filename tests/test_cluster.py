"""Trainings on a Ray cluster: the same numbers as here, whatever becomes of its nodes; and what would make them others is refused."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from batchlab.cluster.nodes import Facts, Node, check_alike, facts
from batchlab.cluster.sending import Numbers, SentBench
from batchlab.config import load_profile
from batchlab.engine.data import Divisions, TrainingData
from batchlab.engine.losses import Loss
from batchlab.engine.optimizers import Sgd
from batchlab.engine.records import Plan, Trial
from batchlab.errors import BadInput
from batchlab.experiment import Experiment
from batchlab.models.linear import Linear
from batchlab.rows.split import split
from batchlab.rules.run import RunRule
from batchlab.search.hands import Bench, Here, Stack, Trained
from batchlab.search.keeping import KNOWN
from batchlab.search.part import Part
from batchlab.search.records import trials_frame
from batchlab.search.search import Search
from batchlab.search.space import Setting
from batchlab.strategies import Population
from batchlab.strategies.mini_batch import MiniBatch
from batchlab.table import pack
from tests.conftest import CHECKOUT
from tests.forked import STRATEGIES, UNTIMED

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: make ray")
CPU = torch.device("cpu")


def bench(data: TrainingData) -> Bench:
    return Bench(Linear(), Loss("mse"), CPU, Plan(epochs=2, evaluations=2), data)


def rows(count: int = 60) -> TrainingData:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(count, 4, generator=generator)
    return TrainingData(features, features[:, 0] * 2, features[:10], features[:10, 0] * 2, Population(count), 1)


def stack(trials: int = 5, **given: Any) -> Stack:
    setting = Setting(MiniBatch(batch_rows=8), Sgd(), 0.01)
    return Stack(setting, tuple(Trial(0.01, seed) for seed in range(trials)), np.array([30.0, 60.0]), **given)


def unlimited() -> float:
    return float("inf")


def test_a_stack_in_parts_comes_to_the_numbers_of_the_whole() -> None:
    whole = bench(rows()).trained(stack(states=True), unlimited)
    parts = stack(states=True).parts(3)
    assert [len(part.trials) for part in parts] == [2, 2, 1]
    joined = Trained.joined([bench(rows()).trained(part, unlimited) for part in parts])
    for one, other in zip(whole.results, joined.results, strict=True):
        np.testing.assert_array_equal(one.weights["weight"], other.weights["weight"])
        assert one.trial == other.trial
    begun = stack(begun=tuple(result.state for result in whole.results if result.state is not None))
    assert [len(part.begun) for part in begun.parts(2)] == [3, 2]
    assert len(stack(2).parts(7)) == 2


def test_here_stacks_are_trained_in_their_order_until_time_is_over() -> None:
    answers = iter([1.0] * 40 + [0.0] * 1000)
    found = list(Here().trained(bench(rows()), [stack(1)] * 1000, lambda: next(answers), lambda said, progress: None, None))
    assert [number for number, _ in found] == list(range(len(found)))
    assert 0 < len(found) < 1000


@pytest.mark.parametrize("kind", ["plain", "divided", "windows", "versions"])
def test_a_bench_that_was_sent_trains_as_the_one_that_was_kept(kind: str) -> None:
    data = rows()
    if kind == "divided":
        places = np.arange(60, dtype=np.int32)[None]
        data = replace(data, divisions=Divisions(places[:, 10:], places[:, :10]), population=Population(50))
    if kind == "windows":
        flat = torch.randn(400)
        data = replace(data, features=flat.as_strided((60, 4), (2, 1)), places=np.arange(60, dtype=np.int32))
    if kind == "versions":
        held = torch.cat([data.features, data.features + 1])
        data = replace(data, features=held, target=data.target.repeat(2), places=np.arange(60, dtype=np.int32), versions=1)
    sent = SentBench.of(bench(data))
    opened = sent.opened()
    for field in ("features", "target", "validation_features"):
        assert torch.equal(getattr(opened.data, field), getattr(data, field))
    one, other = (held.trained(stack(2), unlimited).results for held in (bench(data), opened))
    np.testing.assert_array_equal(one[1].weights["weight"], other[1].weights["weight"])


def test_of_rows_that_overlap_the_numbers_behind_them_are_sent_once() -> None:
    windows = torch.arange(1000.0).as_strided((981, 20), (1, 1))
    numbers = Numbers.of(windows)
    assert numbers.held.size == 1000
    assert torch.equal(numbers.tensor(), windows)
    numbers.held.flags.writeable = False
    assert torch.equal(numbers.tensor(), windows)


def node(**given: Any) -> Node:
    return Node(**{"address": "10.0.0.2", "cores": 4, "gpus": 0, "facts": facts(), **given})


def other(**given: Any) -> Facts:
    return facts().model_copy(update=given)


def test_nodes_that_would_come_to_other_numbers_are_named_with_what_differs() -> None:
    check_alike([node(), node(address="10.0.0.3", facts=other(host="b", moment=0.0))], RunRule())
    wrong = [
        (node(facts=other(packages=facts().packages | {"torch": "1.0"})), f"torch 1.0 where this process has {facts().packages['torch']}"),
        (node(facts=other(code="f" * 64)), "batchlab's code ffffffff where this process has"),
        (node(facts=other(python="3.9.1")), "Python 3.9.1 where this process has"),
        (node(facts=None, failure="it cannot run this library: no module"), "it cannot run this library: no module"),
    ]
    for one, said in wrong:
        with pytest.raises(BadInput, match=rf"1 of 2 nodes of the cluster would come to other numbers: 10\.0\.0\.2: {said}"):
            check_alike([node(), one], RunRule())


def test_a_cluster_without_room_for_a_stack_is_refused_with_what_it_has() -> None:
    assert node(cores=7).places(RunRule(cores=2)) == 3
    assert node(cores=8, gpus=2).places(RunRule(gpus=0.5)) == 4
    with pytest.raises(BadInput, match=r"no node of the cluster has run.cores=8 and run.gpus=0: 10\.0\.0\.2 has 4 cores and 0 GPUs"):
        check_alike([node()], RunRule(cores=8))


def test_without_ray_it_is_said_how_to_get_it(tmp_path: Path) -> None:
    code = "import sys; sys.modules['ray'] = None; from batchlab.cluster.nodes import connect; connect('auto')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=CHECKOUT, check=False)
    assert "run.on=ray needs the package ray: make ray" in done.stderr


def test_a_profile_sends_rows_nowhere_and_runs_no_code_unless_its_user_says_so(tmp_path: Path) -> None:
    profile = tmp_path / "given.toml"
    profile.write_text('[run]\non = "ray"\naddress = "ray://elsewhere:10001"\n[strategies]\nmini_batch = {}\n')
    with pytest.raises(BadInput, match=r"sends rows to a cluster, whose answers can run code: run\.address is 'ray://elsewhere:10001'"):
        load_profile(str(profile))
    assert load_profile(str(profile), overrides=["run.address=ray://elsewhere:10001"]).run.on == "ray"
    profile.write_text('[source]\nkind = "dataset"\nfactory = "a:b"\nplain = "c:d"\n[strategies]\nmini_batch = {}\n')
    with pytest.raises(BadInput, match=r"runs code: source\.plain is 'c:d'"):
        load_profile(str(profile), overrides=["source.factory=a:b"])


@needs_ray
def test_an_address_where_no_cluster_is_ends_in_one_line() -> None:
    from batchlab.cluster.nodes import connect

    with pytest.raises(BadInput, match=r"no Ray cluster answers at run.address '127\.0\.0\.1:1' .* or train here: run.on=local"):
        connect("127.0.0.1:1")


@pytest.fixture(scope="module")
def three_nodes() -> Iterator[Any]:
    """A cluster of three nodes on this machine, one core each."""
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(**small)
    yield cluster
    cluster.shutdown()


def experiment(folder: Path, data: str, *more: str) -> Experiment:
    settings = load_profile("quick", data=data, strategies=STRATEGIES, overrides=[*UNTIMED, *more])
    table = pack(settings.source, settings.named_columns(), folder)
    return Experiment(settings, table, split(table, settings.split, settings.seed))


def trained(search: Search) -> pd.DataFrame:
    """Run a search to its confirmation and return all that does not depend on timings."""
    for part in search.parts():
        if part.label == "test rows":
            break
        part.run()
    found = trials_frame(search.known, 1.0)
    return found[[name for name in found.columns if "second" not in name]]


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("data", ["diabetes", "digits"])
def test_three_nodes_come_to_the_trainings_of_one_process_bit_for_bit(data: str, tmp_path: Path, three_nodes: Any) -> None:
    from batchlab.cluster.ray_hands import RayHands

    here = trained(Search(experiment(tmp_path, data)))
    exp = experiment(tmp_path, data, "run.on=ray", f"run.address={three_nodes.address}")
    search = Search(exp, hands=RayHands(exp.profile.run, exp))
    assert search.hands.count == 3
    there = trained(search)
    pd.testing.assert_frame_equal(here, there, check_exact=True)
    assert search.findings.notes[0].startswith("trainings ran on 3 workers of a Ray cluster (3 nodes: ")


@needs_ray
@pytest.mark.slow
def test_nodes_that_are_lost_while_they_train_change_nothing(tmp_path: Path, three_nodes: Any) -> None:
    from batchlab.cluster.ray_hands import RayHands
    from tests.besieged import added

    here = trained(Search(experiment(tmp_path, "diabetes")))
    exp = experiment(tmp_path, "diabetes", "run.on=ray", f"run.address={three_nodes.address}")
    search, lost = Search(exp, hands=RayHands(exp.profile.run, exp)), 0
    with ThreadPoolExecutor(1) as beside:
        there = beside.submit(trained, search)
        while not there.done():  # Ray starts nodes on the main thread alone
            three_nodes.remove_node(next(iter(three_nodes.worker_nodes)), allow_graceful=False)
            added(three_nodes)
            lost += 1
    assert lost
    pd.testing.assert_frame_equal(here, there.result(), check_exact=True)


@pytest.fixture
def two_nodes_to_lose(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two nodes of one core each, and one without any, which nothing is trained on."""
    from ray.cluster_utils import Cluster

    from tests.besieged import NODE, added

    monkeypatch.setenv("RAY_worker_niceness", "0")  # else each new worker takes minutes to start beside other work
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        added(cluster)
    yield cluster
    cluster.shutdown()


class Naming(Search):
    """Tells its hands which part is under way."""

    def parts(self) -> Iterator[Part]:
        for part in super().parts():
            self.hands.label = part.label
            yield part


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("data", "rungs"), [("diabetes", 12), ("digits", 8)])
def test_nodes_that_are_lost_in_the_middle_of_a_rung_one_in_each_change_nothing(
    data: str, rungs: int, tmp_path: Path, two_nodes_to_lose: Any
) -> None:
    from tests.besieged import ENDED, LOST, Besieged, besieged

    here = trained(Search(experiment(tmp_path, data)))
    exp = experiment(tmp_path, data, "run.on=ray", f"run.address={two_nodes_to_lose.address}")
    hands = Besieged(exp, tmp_path / "siege")
    there = besieged(Naming(exp, hands=hands), two_nodes_to_lose, trained)
    pd.testing.assert_frame_equal(here, there, check_exact=True)
    print("", data, *(f"{count} in {rung}" for rung, count in Counter(hands.files(LOST)).items()), sep="\n")
    assert hands.files(LOST) == hands.files(ENDED) == hands.rungs
    assert len(hands.rungs) >= rungs


STUCK = """
import os, time
from pathlib import Path
from torch import nn

here = Path(__file__).parent

class Net(nn.Linear):
    def forward(self, rows):
        if os.getpid() != DRIVER and not (here / "stuck").exists():
            (here / "stuck").touch()
            time.sleep(600)
            (here / "over").touch()
        return super().forward(rows)
"""


@needs_ray
@pytest.mark.slow
def test_a_stack_that_is_stuck_is_trained_elsewhere_and_not_waited_for(
    tmp_path: Path, three_nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from batchlab.cluster import ray_hands

    monkeypatch.setattr(ray_hands, "LEAST_SLOW_SECONDS", 1.0)
    (tmp_path / "stuck_once.py").write_text(STUCK.replace("DRIVER", str(os.getpid())))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    network = ("model.kind=custom", "model.factory=stuck_once:Net")
    exp = experiment(tmp_path, "diabetes", "run.on=ray", f"run.address={three_nodes.address}", *network)
    hands, own = ray_hands.RayHands(exp.profile.run, exp), Bench(exp.model, exp.loss, exp.device, exp.profile.train, exp.data)
    try:
        found = dict(hands.trained(own, [stack(1)] * 4, unlimited, lambda said, progress: None, None))
    finally:
        hands.close()
    assert sorted(found) == [0, 1, 2, 3]
    assert (tmp_path / "stuck").exists()
    assert not (tmp_path / "over").exists()


@needs_ray
@pytest.mark.slow
def test_a_cluster_that_is_refused_is_left_again(tmp_path: Path, three_nodes: Any) -> None:
    import ray

    from batchlab.cluster.ray_hands import RayHands

    exp = experiment(tmp_path, "diabetes", "run.on=ray", f"run.address={three_nodes.address}", "run.cores=7")
    with pytest.raises(BadInput, match=r"no node of the cluster has run\.cores=7"):
        RayHands(exp.profile.run, exp)
    assert not ray.is_initialized()


def moment(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


DRIVER = """
import sys
from pathlib import Path
from batchlab.cluster.ray_hands import RayHands
from batchlab.search.keeping import Kept
from batchlab.search.search import Search
from tests.test_cluster import experiment, trained
folder, address = Path(sys.argv[1]), sys.argv[2]
exp = experiment(folder, "diabetes", "run.on=ray", f"run.address={address}")
kept = Kept(folder / "kept", lambda text: None)
known = kept.known()
print("begins" if known is None else f"goes on after {known.all_trainings} trainings", flush=True)
class Keeping(Search):
    def parts(self):
        for part in super().parts():
            yield part
            self.keep()
trained(Keeping(exp, known=known, kept=kept, hands=RayHands(exp.profile.run, exp))).to_pickle(folder / "found.pkl")
"""


@needs_ray
@pytest.mark.slow
def test_a_driver_that_is_killed_goes_on_when_it_is_started_again(tmp_path: Path, three_nodes: Any) -> None:
    here = trained(Search(experiment(tmp_path, "diabetes")))
    said = []
    for kills in (True, True, False):
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(tmp_path), three_nodes.address],
            stdout=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
            env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        )
        assert process.stdout is not None
        said.append(process.stdout.readline().strip())
        before = moment(tmp_path / "kept" / f"{KNOWN}.npz")
        while kills and process.poll() is None and moment(tmp_path / "kept" / f"{KNOWN}.npz") == before:
            time.sleep(0.02)
        if kills:
            process.send_signal(signal.SIGKILL)
        process.wait()
    assert said[0] == "begins"
    assert all(line.startswith("goes on after ") for line in said[1:])
    pd.testing.assert_frame_equal(here, pd.read_pickle(tmp_path / "found.pkl"), check_exact=True)
