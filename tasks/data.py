"""Tasks that bring rows in and divide them."""

from pathlib import Path

from prefect import task

from batchlab.allowance import Allowance
from batchlab.config import Profile
from batchlab.experiment import Experiment
from batchlab.rows.split import Split, split
from batchlab.table import PackedTable, pack
from batchlab.table.packing import Listener
from tasks import progress, store
from tasks.retrying import RETRIES


@task(**RETRIES)
def ingest(profile: Profile) -> Path:
    """Pack the profile's source and return the folder of its packed table."""
    store.check_writable()
    listener = Listener(progress.moved, lambda text: progress.announce(f"{text} {promise(profile)}"))
    table = pack(profile.source, profile.named_columns(), store.tables(), profile.seed, profile.checks, listener)
    for note in table.notes():
        progress.announce(note)
    return table.path


def promise(profile: Profile) -> str:
    """Say how much memory a comparison takes, before big work."""
    return f"The comparison takes {Allowance.of(profile.memory_gib).text} (memory_gib)."


@task(**RETRIES)
def divide(profile: Profile, table: Path) -> Path:
    """Split the table's rows, check that every strategy can train on them, and return the split's file."""
    packed = PackedTable.open(table)
    parts = split(packed, profile.split, profile.seed)
    Experiment(profile, packed, parts).check()
    return parts.save(packed)


def opened(profile: Profile, table: Path, parts: Path) -> Experiment:
    """Return the experiment that the two paths and the profile describe."""
    return Experiment(profile, PackedTable.open(table), Split.open(parts))
