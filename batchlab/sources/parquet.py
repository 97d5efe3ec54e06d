from pathlib import Path
from typing import TYPE_CHECKING, Literal

from batchlab.errors import BadInput
from batchlab.sources.base import Source, existing

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import dataset


class Parquet(Source):
    """A Parquet file, or a folder of Parquet files with one schema."""

    kind: Literal["parquet"] = "parquet"
    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    def read(self, seed: int) -> "pa.Table":
        import pyarrow as pa

        try:
            return self._open().to_table()
        except (pa.ArrowInvalid, OSError) as error:
            raise BadInput(f"'{self.path}' cannot be read as Parquet: {error}") from error

    def peek(self) -> "pa.Schema":
        return self._open().schema

    def _open(self) -> "dataset.Dataset":
        import pyarrow as pa
        from pyarrow import dataset

        if existing(self.path).is_dir() and not any(self.path.rglob("*.parquet")):
            raise BadInput(f"folder '{self.path}' holds no .parquet file; give a folder with at least one, or a CSV file.")
        files = sorted(self.path.rglob("*.parquet")) if self.path.is_dir() else [self.path]
        try:
            return dataset.dataset(files, format="parquet")
        except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
            raise BadInput(f"'{self.path}' cannot be read as Parquet: {error}") from error
