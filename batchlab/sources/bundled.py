from typing import TYPE_CHECKING, Literal

from batchlab.sources.base import Source

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

    def read(self, seed: int) -> "pa.Table":
        import pyarrow as pa
        from sklearn import datasets

        frame = getattr(datasets, f"load_{self.dataset}")(as_frame=True).frame
        return pa.Table.from_pandas(frame, preserve_index=False)
