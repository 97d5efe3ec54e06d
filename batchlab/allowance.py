"""How much memory a comparison may take beside its libraries: what the user says, or a share of what is free."""

import ctypes
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

LIBRARIES_GIB = 1.3
"""What Python, torch, MLflow, Prefect and the others take by themselves, in GiB: measured with torch for CUDA on Linux."""
SHARE_OF_FREE = 0.8
"""Of the memory that is free when it begins, a comparison plans to use this much."""
ROWS_SHARE, TRAININGS_SHARE = 0.625, 0.375
"""Training and validation rows stay in files where they would take more than the first share. Trainings may take what the rows leave, and
of rows in files the second share: the rest is for samples, scores and the page."""

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
"""Settings of glibc's `mallopt`."""


@dataclass(frozen=True)
class Allowance:
    """The bytes that rows and trainings may take together, beside what the libraries take."""

    total_bytes: int

    @classmethod
    def of(cls, memory_gib: float | None) -> "Allowance":
        """Return what `memory_gib` says, or a share of what is free now."""
        return cls(int(SHARE_OF_FREE * free_bytes()) if memory_gib is None else int(memory_gib * 2**30))

    @property
    def rows_bytes(self) -> int:
        """The bytes of rows that are kept in memory."""
        return int(ROWS_SHARE * self.total_bytes)

    def trainings_bytes(self, held_bytes: int) -> int:
        """Return what trainings may take beside rows that take `held_bytes`."""
        return max(0, min(self.total_bytes - held_bytes, int(TRAININGS_SHARE * self.total_bytes)))

    @property
    def text(self) -> str:
        """The promise in a sentence."""
        gib = self.total_bytes / 2**30
        return f"at most {gib:.2g} GiB of memory beside the {LIBRARIES_GIB:g} GiB or so of the libraries"


def give_back_freed_memory() -> None:
    """Let this process give freed arrays back to the system at once, where its allocator (glibc's) would keep up to 64 MiB a thread."""
    with suppress(OSError, AttributeError, TypeError):
        for setting, value in ((MMAP_THRESHOLD, 2**22), (TRIM_THRESHOLD, 2**23), (ARENA_MAX, 2)):
            ctypes.CDLL("libc.so.6").mallopt(setting, value)


def free_bytes() -> int:
    """Return the memory that is free on this machine and within this process's control groups, whatever caches could give back included."""
    return min([psutil.virtual_memory().available, *(max(0, limit - used) for limit, used in _control_groups())])


def memory_limit() -> int:
    """Return the bytes of memory that this process may use at most: the machine's, or its control group's."""
    return min([psutil.virtual_memory().total, *(limit for limit, _ in _control_groups())])


def _control_groups() -> Iterator[tuple[int, int]]:
    """Yield the limit of each control group that has one, and what is used of it beside files in its cache."""
    try:
        groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:  # not Linux
        return
    root = Path("/sys/fs/cgroup")
    for _, controllers, path in groups:
        for folder in dict.fromkeys((root.joinpath(*controllers.split(",")[:1], path.strip("/")), root)):
            for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
                with suppress(OSError, ValueError):  # no such group, or no limit ("max")
                    yield int((folder / limit).read_text()), int((folder / used).read_text()) - _cached(folder)


def _cached(folder: Path) -> int:
    with suppress(OSError, ValueError):
        counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return int(counts.get("inactive_file", 0)) + int(counts.get("active_file", 0))
    return 0
