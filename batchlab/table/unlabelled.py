"""Rows without a target: nothing is wrong with them, they are left out; how many, and what is left."""

from batchlab.errors import BadInput
from batchlab.table.portions import Packer

FEWEST_LABELLED = 6
"""Fewer rows cannot be divided into training, validation and test rows of 2 each."""
FEW_LABELLED, SMALL_SHARE = 100, 0.1
"""So few rows, or so small a share of all, are worth a word."""


def check_labelled(target: str, unlabelled: int, labelled: int) -> None:
    """Raise BadInput where hardly any row has a target."""
    if not unlabelled or labelled >= FEWEST_LABELLED:
        return
    rows = unlabelled + labelled
    if not labelled:
        raise BadInput(f"target '{target}' is missing in all {rows:,} rows; name another column with --target.")
    raise BadInput(
        f"target '{target}' is missing in {unlabelled:,} of {rows:,} rows; the {labelled} left are too few to train, validate and test on."
    )


def unlabelled_note(packer: Packer) -> list[str]:
    """Say how many rows have no target, how that is written where it is by words, and what is left; nothing where all have one."""
    name, missing, left = packer.plan.target.name, packer.unlabelled.total(), packer.rows
    if not missing:
        return []
    share = missing / packer.source_rows
    note = f"target '{name}' is missing in {missing:,} of {packer.source_rows:,} rows ({100 * share:.1f}%), which are left out"
    words = [(word, count) for word, count in packer.unlabelled.most_common(6) if word]
    if words:
        written = ", ".join(f"{count:,} '{word}'" for word, count in words)
        note += f" ({written} among them: if that is a class of its own, give it another name)"
    if left < FEW_LABELLED or left < SMALL_SHARE * packer.source_rows:
        note += f"; only {left:,} rows are left to train, validate and test on"
    return [note]
