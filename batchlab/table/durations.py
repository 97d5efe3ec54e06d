"""Lengths of time as people write them, in the unit of a time column."""

from batchlab.errors import BadInput


def length_of(given: float | str, dated: bool, key: str, unit: str = "the unit of the time column") -> float:
    """Return a length of time: microseconds of a duration where the column holds dates, else the number. Raises BadInput for neither."""
    if dated:
        import pandas as pd

        try:
            return float(pd.Timedelta(str(given)) / pd.Timedelta("1us"))
        except ValueError as error:
            raise BadInput(f'{key} \'{given}\' is no duration; write it like "5 days" or "12h".') from error
    try:
        return float(given)
    except ValueError as error:
        raise BadInput(f"{key} is '{given}'; it must be a number of {unit}.") from error
