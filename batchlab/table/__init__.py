"""Source → packed table: what columns hold, the contract, the quarantine, and the table itself."""

from batchlab.table.packing import pack
from batchlab.table.schema import PackedTable, Schema, gathered

__all__ = ["PackedTable", "Schema", "gathered", "pack"]
