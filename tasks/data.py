"""Tasks that bring rows in and divide them."""

from pathlib import Path

from prefect import task

from batchlab.config import Profile
from batchlab.experiment import Experiment, open_split, save_split
from batchlab.packing import PackedTable, pack
from batchlab.split import split
from tasks import store
from tasks.retrying import RETRIES


@task(**RETRIES)
def ingest(profile: Profile) -> Path:
    """Pack the profile's source and return the folder of its packed table."""
    store.check_writable()
    return pack(profile.source, profile.columns(), store.tables(), profile.seed).path


@task(**RETRIES)
def divide(profile: Profile, table: Path) -> Path:
    """Split the table's rows, check that every strategy can train on them, and return the split's file."""
    packed = PackedTable.open(table)
    parts = split(packed, profile.split, profile.seed)
    Experiment(profile, packed, parts).check()
    return save_split(parts, packed)


def opened(profile: Profile, table: Path, parts: Path) -> Experiment:
    """Return the experiment that the two paths and the profile describe."""
    return Experiment(profile, PackedTable.open(table), open_split(parts))
