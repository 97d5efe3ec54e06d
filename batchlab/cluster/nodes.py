"""The nodes of a Ray cluster: what each has, and what would make its numbers other ones than this process's."""

import functools
import hashlib
import importlib.util
import os
import platform
import socket
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import batchlab
from batchlab.errors import BadInput
from batchlab.records import Record
from batchlab.rules.run import RunRule

PACKAGES = ("torch", "numpy", "numba", "pandas", "pyarrow", "pydantic")
"""Whose versions must be the same on all nodes."""
CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 60.0
LOUD_SKEW_SECONDS = 5.0
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


class Facts(Record):
    """What a node, or this process, runs on: `code` is a digest of this library's sources; `moment` is in seconds since 1970."""

    host: str
    processor: str
    python: str
    code: str
    packages: dict[str, str]
    moment: float


class Node(Record):
    """A node of the cluster: its address, its cores and GPUs, what it runs on, and how its clock goes ahead of this machine's, in seconds.
    `failure` says why it could not tell."""

    address: str
    cores: int
    gpus: int
    facts: Facts | None = None
    ahead: float = 0.0
    failure: str | None = None

    def places(self, rule: RunRule) -> int:
        """Return how many stacks of trainings it can train at a time."""
        by_cores = self.cores // rule.cores
        return min(by_cores, int(self.gpus / rule.gpus)) if rule.gpus else by_cores

    def differences(self, here: Facts) -> list[str]:
        """Say what differs from this process, each in a few words."""
        if self.facts is None:
            return [self.failure or "it did not answer"]
        own, other = _versions(here), _versions(self.facts)
        return [f"{name} {other[name]} where this process has {own[name]}" for name in own if own[name] != other[name]]


def _versions(facts: Facts) -> dict[str, str]:
    return {"Python": facts.python, "batchlab's code": facts.code[:8], **facts.packages}


def facts() -> Facts:
    """Return what this process runs on."""
    return Facts(
        host=socket.gethostname(),
        processor=processor(),
        python=platform.python_version(),
        code=code_digest(),
        packages={name: _version(name) for name in PACKAGES},
        moment=time.time(),
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


@functools.cache
def processor() -> str:
    """Return the name of the processor."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.exists() else []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


@functools.cache
def code_digest() -> str:
    """Return a digest of the library's sources."""
    found, root = hashlib.sha256(), Path(str(batchlab.__file__)).parent
    for path in sorted(root.rglob("*.py")):
        found.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return found.hexdigest()


def check_installed() -> None:
    """Raise BadInput where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise BadInput("run.on=ray needs the package ray: make ray, or pip install 'batchlab[ray]'.")


def connect(address: str, cores: int = 1) -> bool:
    """Connect this process to the cluster at the address, unless it is connected to one; returns whether it was not. Raises BadInput where
    there is none."""
    check_installed()
    os.environ.update({key: value for key, value in ENVIRONMENT.items() if key not in os.environ})
    import ray

    if ray.is_initialized():
        return False
    threads = {name: str(cores) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "LOKY_MAX_CPU_COUNT")}
    places = [os.getcwd(), *sys.path[:1], *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    own = {"PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, places))), **threads}
    try:
        _check_answers(address)
        ray.init(address=address, log_to_driver=False, logging_level="CRITICAL", runtime_env={"env_vars": own})
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        why = str(error).strip().splitlines()[0]
        raise BadInput(
            f"no Ray cluster answers at run.address '{address}' ({type(error).__name__}: {why}). Start one with `ray start --head` and "
            "name its address, or train here: run.on=local."
        ) from error
    return True


def _check_answers(address: str) -> None:
    """Raise OSError, or ValueError, where nobody listens at the address: Ray itself would ask for minutes."""
    place = urlsplit(address if "://" in address else f"//{address}")
    if place.hostname is not None and place.port is not None:
        socket.create_connection((place.hostname, place.port), timeout=CONNECT_SECONDS).close()


def disconnect() -> None:
    """Leave the cluster that this process is connected to."""
    import ray

    ray.shutdown()


def looked_at(address: str) -> list[Node]:
    """Return the nodes of the cluster at the address, for people; raises BadInput where there is none."""
    connected = connect(address)
    try:
        return nodes()
    finally:
        if connected:
            disconnect()


def nodes() -> list[Node]:
    """Return the living nodes of the cluster that this process is connected to, each asked what it runs on."""
    told = (_told(node, answer) for node, answer in _asked(facts))
    return [node for node in told if node is not None]


def check_seen(paths: Sequence[Path]) -> None:
    """Raise BadInput where a node does not see these files, which hold rows that are not sent."""
    import ray
    from ray.exceptions import GetTimeoutError, NodeDiedError, TaskUnschedulableError

    blind = []
    for node, answer in _asked(_missing, [str(path) for path in paths]):
        try:
            sees = not ray.get(answer, timeout=ANSWER_SECONDS)
        except (TaskUnschedulableError, NodeDiedError):  # it is gone
            continue
        except GetTimeoutError:
            sees = False
        blind += [] if sees else [node["NodeManagerAddress"]]
    if blind:
        raise BadInput(
            f"'{paths[0].parent}', where the rows are, is not seen on {len(blind)} nodes of the cluster ({', '.join(blind)}): keep the "
            "store on a path that all nodes share, or give the rows more memory (memory_gib), so that they are sent."
        )


def _missing(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if not Path(path).exists()]


def _asked(question: Callable[..., Any], *given: Any) -> list[tuple[dict[str, Any], Any]]:
    """Return each living node, as Ray tells it, with the reference of its answer to the question."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0, max_retries=0)(question)
    alive = [node for node in ray.nodes() if node["Alive"]]
    there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in alive]
    return [(node, ask.options(scheduling_strategy=place).remote(*given)) for node, place in zip(alive, there, strict=True)]


def _told(node: dict[str, Any], answer: Any) -> Node | None:
    """Return the node with what it said of itself; None where it is gone, which Ray learns of after a while."""
    import ray

    has = node["Resources"]
    known = {"address": node["NodeManagerAddress"], "cores": int(has.get("CPU", 0)), "gpus": int(has.get("GPU", 0))}
    try:
        told = ray.get(answer, timeout=ANSWER_SECONDS)
    except (ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError):
        return None
    except ray.exceptions.RayError as error:
        why = str(getattr(error, "cause", None) or error).strip().splitlines()
        return Node(**known, failure=f"it cannot run this library: {why[-1] if why else type(error).__name__}")
    return Node(**known, facts=told, ahead=told.moment - time.time())


def check_alike(found: Sequence[Node], rule: RunRule) -> None:
    """Raise BadInput where a node would come to other numbers than this process, or none has room for a stack of trainings."""
    here = facts()
    wrong = [f"{node.address}: {', '.join(differing)}" for node in found if (differing := node.differences(here))]
    if wrong:
        raise BadInput(
            f"{len(wrong)} of {len(found)} nodes of the cluster would come to other numbers: {'; '.join(wrong)}. Install the same versions "
            "everywhere (requirements.lock)."
        )
    if not sum(node.places(rule) for node in found):
        has = ", ".join(f"{node.address} has {node.cores} cores and {node.gpus} GPUs" for node in found)
        raise BadInput(f"no node of the cluster has run.cores={rule.cores} and run.gpus={rule.gpus:g}: {has}.")
