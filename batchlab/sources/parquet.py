from typing import TYPE_CHECKING, Literal

from batchlab.errors import BadInput
from batchlab.sources.base import FileSource

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import dataset


class Parquet(FileSource):
    """A Parquet file, or a folder of Parquet files with one schema."""

    kind: Literal["parquet"] = "parquet"

    def whole(self) -> "pa.Table":
        return self._dataset().to_table()

    def columns(self) -> "pa.Schema":
        return self._dataset().schema

    def _dataset(self) -> "dataset.Dataset":
        from pyarrow import dataset

        files = sorted(self.path.rglob("*.parquet")) if self.path.is_dir() else [self.path]
        if not files:
            raise BadInput(f"folder '{self.path}' holds no .parquet file; give a folder with at least one, or a CSV file.")
        return dataset.dataset(files, format="parquet")
