"""What numbers written as text carry: a currency's sign or %, and blanks or apostrophes between thousands."""

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from batchlab.serving.batchlab_serving import GROUPINGS, PackedColumn, matching, numbers, undressed

if TYPE_CHECKING:
    import pyarrow as pa

BLANK = GROUPINGS[" "]
DRESSED = rf"^\(?[+-]?{BLANK}?(?:\p{{Sc}}{BLANK}?)?[+-]?[0-9.,](?:[0-9.,'\x{{2019}}eE+-]|{BLANK})*(?:{BLANK}?[\p{{Sc}}%])?\)?$"
"""What may be a number with a sign, or with its thousands apart."""
SHARE_OF_ERRORS = 0.05
"""Where no more of the values carry a sign, those are errors in a column of plain numbers."""
APART = {grouping: f"[0-9]{pattern}[0-9]{{3}}([^0-9]|$)" for grouping, pattern in GROUPINGS.items()}


@dataclass
class Dress:
    """How often which sign, and which grouping, was met in one column of text; and the first dressed value."""

    units: "Counter[str]" = field(default_factory=Counter)
    groupings: "Counter[str]" = field(default_factory=Counter)
    example: str | None = None

    def unit(self, known: int) -> str:
        """Return the sign that most of so many values carry; nothing where so few carry any that those are the errors."""
        return self.units.most_common(1)[0][0] if self.units.total() > SHARE_OF_ERRORS * known else ""

    @property
    def grouping(self) -> str:
        """What groups thousands, beside commas and points."""
        return self.groupings.most_common(1)[0][0] if self.groupings else ""

    def taken_off(self, found: "pa.Array", times: Any) -> "pa.Array":
        """Return different values without what they carry, counted with how often each occurs; those that are no such numbers unchanged."""
        import pyarrow as pa
        import pyarrow.compute as pc

        dressed = matching(found, DRESSED)
        if dressed.any():
            dressed &= matching(found, r"[\p{Sc}%]") | matching(found, "|".join(APART.values()))
        if not dressed.any():
            return found
        signs = pc.replace_substring_regex(found, r"[^\p{Sc}%]", "")
        together = found
        for unit in pc.unique(signs.filter(pa.array(dressed))).to_pylist():
            own = dressed & np.asarray(pc.equal(signs, unit).to_numpy(zero_copy_only=False), bool)
            for grouping in ("", *GROUPINGS) if len(unit) <= 1 else ():
                apart = matching(found, APART[grouping] if grouping else "|".join(APART.values()))
                chosen = own & (apart if grouping else ~apart)
                if chosen.any():
                    bare, fits = undressed(found, unit, grouping)
                    fits &= chosen
                    together = pc.if_else(pa.array(fits), bare, together)
                    self._count(found, unit, grouping, fits, times)
        return together

    def _count(self, found: "pa.Array", unit: str, grouping: str, fits: Any, times: Any) -> None:
        if not fits.any():
            return
        count = int(times[fits].sum())
        self.units.update({unit: count} if unit else {})
        self.groupings.update({grouping: count} if grouping else {})
        if self.example is None:
            self.example = str(found[int(np.flatnonzero(fits)[0])].as_py())

    def odd(self, known: int) -> int:
        """Return how many of so many values carry another sign than most; of percentages also those without one."""
        unit = self.unit(known)
        return (known if unit == "%" else self.units.total()) - self.units[unit]

    def counted(self, known: int) -> str:
        """Say how many of so many values carry which sign."""
        several = [f"{count:,} with {unit}" for unit, count in self.units.most_common(5)]
        bare = known - self.units.total()
        return ", ".join([*several, f"{bare:,} without a sign"] if bare else several)

    def note(self, column: PackedColumn) -> str | None:
        """Say how the column's values were read; nothing where they carry nothing."""
        import pyarrow as pa

        if self.example is None or not (column.unit or column.grouping):
            return None
        value = float(numbers(pa.array([self.example]), column)[0][0])
        carried = [f"the sign {column.unit}"] if column.unit else []
        if column.grouping:
            carried.append("blanks between thousands" if column.grouping == " " else "apostrophes between thousands")
        return f"column '{column.name}' holds numbers with {' and '.join(carried)}; '{self.example}' was read as {value:.15g}"
