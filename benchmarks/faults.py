"""`make faults`: disturb real comparisons in every way that docs/reliability.md names, and say what came of each; hours, if you let it.

Every fault's outcome goes to faults.json as soon as it is known. Faults that need more rights than this process has are skipped by name.
"""

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from benchmarks import machine
from tests.faults import PATIENCE_SECONDS, Outcome, Siege, besieged, timed

DATA = Path(__file__).resolve().parent / "faults.json"
TARGETS = {"command": 0.5, "family": 0.4, "measuring": 0.1}
KILLS = ("searches", "kills")
STOPPED_SECONDS = 60
SMALL_DISK, SMALL_MEMORY = "2m", 500 * 2**20
TELLING = ("error:", "failed:", "taking up", "does not take", "could not be written", "started again", "recorded", "Killed")
"""Lines with one of these words tell what came of a fault."""
GROUPS = Path("/sys/fs/cgroup/memory")


def main() -> None:
    """Run the faults that are named, and the kills until there were so many."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where stores go; emptied of what each fault left there")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=300, help="begin no new comparison after so long")
    parser.add_argument("--faults", nargs="*", default=[*FAULTS, *KILLS], choices=[*FAULTS, *KILLS])
    given = parser.parse_args()
    if "searches" in given.faults:
        searches(given.folder / "searches", given.kills, given.minutes)
    if set(given.faults) <= {"searches"}:
        return
    calm = Siege(given.folder / "undisturbed")
    shutil.rmtree(calm.folder, ignore_errors=True)
    seconds = timed(lambda: calm.struck("command", signal.SIGKILL, PATIENCE_SECONDS))
    undisturbed = calm.outcome()
    kept("undisturbed", {"seconds": seconds, "settings": len(undisturbed.settings), "trials": len(undisturbed.trials)})
    for name in [name for name in given.faults if name in FAULTS]:
        siege = Siege(given.folder / name.replace(" ", "_"))
        shutil.rmtree(siege.folder, ignore_errors=True)
        siege.folder.mkdir(parents=True)
        try:
            said = FAULTS[name](siege, seconds)
            kept(name, {"said": said, "differs_in": siege.outcome().differences(undisturbed)})
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            kept(name, {"failed": str(error)[-600:]})
    if "kills" in given.faults:
        kills(given.folder, undisturbed, seconds, given.kills, time.monotonic() + 60 * given.minutes)


def kept(name: str, record: dict[str, Any]) -> None:
    """Add a record to the file, and print it."""
    known = json.loads(DATA.read_text()) if DATA.exists() else {}
    known |= {"machine": machine.described(), name: record}
    DATA.write_text(json.dumps(known, indent=1) + "\n")
    print(name, json.dumps({key: value for key, value in record.items() if key != "blows"})[:600], flush=True)


def kills(folder: Path, undisturbed: Outcome, seconds: float, most: int, until: float) -> None:
    """Kill comparisons at random moments, each up to five times, until there were so many kills; add them up."""
    drawn, blows, stories, differing, failed = random.Random(14), list[dict[str, Any]](), 0, list[str](), list[str]()
    while len(blows) < most and time.monotonic() < until:
        siege = Siege(folder / "kills")
        shutil.rmtree(siege.folder, ignore_errors=True)
        try:
            besieged(siege, drawn, 0.8 * seconds, 5, TARGETS)
            differing += siege.outcome().differences(undisturbed)
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            failed.append(str(error)[-600:])
        stories, blows = stories + 1, blows + [asdict(blow) for blow in siege.blows]
        lost = [blow["lost_seconds"] for blow in blows if blow["lost_seconds"] is not None]
        record = {
            "kills": len(blows),
            "comparisons": stories,
            "differing": differing,
            "failed": failed,
            "orphans": sum(blow["orphans"] for blow in blows),
            "lost_seconds_median": statistics.median(lost) if lost else None,
            "lost_seconds_most": max(lost, default=None),
            "blows": blows,
        }
        kept("kills", record)


def searches(folder: Path, most: int, minutes: float) -> None:
    """Kill searches alone, without their commands, which takes a tenth of the time; in a process that never had threads, since it forks."""
    command = [sys.executable, "-m", "tests.forked", str(folder), "--kills", str(most), "--minutes", str(minutes)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    kept("searches", json.loads(done.stdout.splitlines()[-1]))


def stopped_for_a_minute(siege: Siege, seconds: float) -> str:
    """Stop the whole family for a minute and let it go on."""
    process = siege.begun()
    time.sleep(0.5 * seconds)
    os.killpg(process.pid, signal.SIGSTOP)
    time.sleep(STOPPED_SECONDS)
    os.killpg(process.pid, signal.SIGCONT)
    return ended(process)


def interrupted_twice(siege: Siege, seconds: float) -> str:
    """Press Ctrl-C twice; begin again."""
    process = siege.begun()
    time.sleep(0.5 * seconds)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    return f"{ended(process, None)}; then {ended(siege.begun())}"


def two_at_once(siege: Siege, seconds: float) -> str:
    """Run the same comparison twice at a time on one store."""
    first = siege.begun()
    time.sleep(0.3 * seconds)
    second = siege.begun()
    return f"{ended(first)}; {ended(second)}"


def damaged_state(siege: Siege, seconds: float) -> str:
    """Kill, flip a bit in all that is kept of the latest state, and begin again."""
    for delay in (0.5, 0.6, 0.7):
        siege.struck("family", signal.SIGKILL, delay * seconds)
        if states := [path for path in (siege.store / "unfinished").glob("*/*.npz") if ".before." not in path.name]:
            break
    assert states, "nothing was kept before the kill"
    for path in states:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    return ended(siege.begun())


def changed_table(siege: Siege, seconds: float) -> str:
    """Kill, change a number of the packed table, and begin again: refused; remove the table, and begin once more."""
    siege.struck("family", signal.SIGKILL, 0.6 * seconds)
    (path,) = (siege.store / "tables").glob("*/features.npy")
    content = bytearray(path.read_bytes())
    content[-3] ^= 64
    path.write_bytes(content)
    refused = ended(siege.begun(), 2)
    shutil.rmtree(path.parent)
    return f"{refused}; without it: {ended(siege.begun())}"


def disk_full(siege: Siege, seconds: float) -> str:
    """Run on a file system that is full before the end; make room and begin again."""
    siege.store.mkdir()
    with mounted(siege.store, SMALL_DISK):
        full = ended(siege.begun(), None)
        called("mount", "-o", "remount,size=200m", str(siege.store))
        said = f"{full}; with room: {ended(siege.begun())}"
        shutil.copytree(siege.store, siege.folder / "copy")
    shutil.copytree(siege.folder / "copy", siege.store, dirs_exist_ok=True)
    return said


def read_only_store(siege: Siege, seconds: float) -> str:
    """Run on a file system that takes no writing, then on one that does."""
    siege.store.mkdir()
    with mounted(siege.store, "1m"):
        called("mount", "-o", "remount,ro", str(siege.store))
        said = ended(siege.begun(), None)
    return f"{said}; then {ended(siege.begun())}"


def out_of_memory(siege: Siege, seconds: float) -> str:
    """Run in a control group whose memory is too small: the system kills what asks for more; begin again outside it."""
    group = GROUPS / "batchlab-faults"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(SMALL_MEMORY))
        process = siege.begun()
        (group / "cgroup.procs").write_text(str(process.pid))
        said = ended(process, None)
    finally:
        group.rmdir()
    return f"{said}; with room: {ended(siege.begun())}"


def loader_worker_killed(siege: Siege, seconds: float) -> str:
    """Kill a worker of a DataLoader that is being measured, alone."""
    process, until = siege.begun(), time.monotonic() + PATIENCE_SECONDS
    while not (workers := loader_workers(process.pid)):
        assert process.poll() is None, "the command ended before there was a worker"
        assert time.monotonic() < until, "there was no worker"
        time.sleep(0.005)
    os.kill(workers[0], signal.SIGKILL)
    return ended(process)


def loader_workers(command: int) -> list[int]:
    """Return the workers among the processes of a command: those that a forkserver forked."""
    found = []
    for process in psutil.Process(command).children(recursive=True):
        with suppress(psutil.Error):
            parent = process.parent()
            if parent is not None and "forkserver" in " ".join(parent.cmdline()) and "forkserver" in " ".join(process.cmdline()):
                found.append(process.pid)
    return found


def ended(process: "subprocess.Popen[str]", code: int | None = 0) -> str:
    """Wait for the command's end and return how it ended, in one line; the code has to be this one, unless any will do."""
    output, _ = process.communicate(timeout=PATIENCE_SECONDS + STOPPED_SECONDS)
    assert code is None or process.returncode == code, output
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    told = [line for line in lines if any(word in line for word in TELLING)] or lines[-1:]
    return f"code {process.returncode}: {' / '.join(told)[:500]}"


@contextmanager
def mounted(place: Path, size: str) -> Iterator[None]:
    """Have a small file system at this place."""
    called("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place))
    try:
        yield
    finally:
        called("umount", str(place))


def called(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


FAULTS: dict[str, Callable[[Siege, float], str]] = {
    "stopped for a minute": stopped_for_a_minute,
    "Ctrl-C twice": interrupted_twice,
    "two at once": two_at_once,
    "damaged state": damaged_state,
    "changed table": changed_table,
    "disk full": disk_full,
    "read-only store": read_only_store,
    "out of memory": out_of_memory,
    "loader worker killed": loader_worker_killed,
}

if __name__ == "__main__":
    main()
