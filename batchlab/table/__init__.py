"""Source → packed table: what columns hold, the contract, the quarantine, and the table itself."""

from batchlab.table.packing import pack, pack_read
from batchlab.table.schema import PackedTable, Schema

__all__ = ["PackedTable", "Schema", "pack", "pack_read"]
