"""Yardsticks beside the recommended setting: which of them have a lower test loss, by how much, and how surely. Pure."""

import math

from batchlab.analysis.estimates import CONFIDENCE
from batchlab.analysis.paired import Difference
from batchlab.analysis.yardsticks import Yardstick, difference
from batchlab.results import YardstickResult
from batchlab.search.evidence import Ground
from batchlab.search.findings import Finding
from batchlab.search.known import Known


def beside(ground: Ground, known: Known, best: Finding | None) -> tuple[YardstickResult, ...]:
    """Return each yardstick with how its test loss compares with the mean over draws of the recommended setting's."""
    margin = ground.experiment.profile.search.margin
    return tuple(_result(item, _difference(ground, known, best, item), margin) for item in known.yardsticks)


def _difference(ground: Ground, known: Known, best: Finding | None, item: Yardstick) -> Difference | None:
    """Return the relative difference; None where nothing is recommended or tested, and where rows score that were trained on."""
    if best is None or best.candidate.setting not in known.test_portions or ground.experiment.profile.split.kind == "in_sample":
        return None
    losses, portions = known.test_losses[best.candidate.setting], known.test_portions[best.candidate.setting]
    return difference(item, losses, portions, ground.data.divisions is not None)


def _result(item: Yardstick, found: Difference | None, margin: float) -> YardstickResult:
    known = found is not None and math.isfinite(found.value)
    error = (1 - CONFIDENCE) / 2
    ends = (found.low(error), found.high(error)) if found is not None and known and math.isfinite(found.variance) else None
    return YardstickResult(
        key=item.key,
        name=item.name,
        validation_loss=_finite(item.validation_loss),
        test_loss=_finite(item.test_loss),
        difference=found.value if found is not None and known else None,
        difference_ci=ends,
        beats=found is not None and ends is not None and ends[1] < 0 and found.value < -margin,
        seconds=item.seconds,
        rows=item.rows,
        of_rows=item.of_rows,
        note=item.note,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
