from pathlib import Path
from typing import Literal

from batchlab.sources.base import Source
from batchlab.sources.held import TableReading

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
        import pyarrow as pa
        from sklearn import datasets

        frame = getattr(datasets, f"load_{self.dataset}")(as_frame=True).frame
        return TableReading(pa.Table.from_pandas(frame, preserve_index=False))
