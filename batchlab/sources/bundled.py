import os
import threading
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from batchlab.sources.base import Source
from batchlab.sources.held import TableReading

if TYPE_CHECKING:
    import pyarrow as pa

Name = Literal["diabetes", "breast_cancer", "digits", "wine"]


class Bundled(Source):
    """A real data set that ships with scikit-learn: no download."""

    kind: Literal["bundled"] = "bundled"
    dataset: Name = "diabetes"

    @property
    def name(self) -> str:
        return self.dataset

    @property
    def default_target(self) -> str:
        return "target"

    def opened(self, seed: int, scratch: Path) -> TableReading:
        """Return the rows, kept under `scratch` from the first time on: scikit-learn takes more than a second to import."""
        from pyarrow import ArrowInvalid, feather

        kept = scratch / f"{self.dataset}-{version('scikit-learn')}.arrow"
        try:
            return TableReading(feather.read_table(kept))
        except (FileNotFoundError, ArrowInvalid):
            kept.parent.mkdir(parents=True, exist_ok=True)
            beside = kept.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
            feather.write_feather(self._loaded(), beside)
            beside.replace(kept)
            return TableReading(feather.read_table(kept))

    def _loaded(self) -> "pa.Table":
        import pyarrow as pa
        from sklearn import datasets

        frame = getattr(datasets, f"load_{self.dataset}")(as_frame=True).frame
        return pa.Table.from_pandas(frame, preserve_index=False)
