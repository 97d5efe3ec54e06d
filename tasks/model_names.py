"""The names that models are registered under: of source and target unless the user names one, and such that they can be loaded by it."""

from batchlab.config import Profile
from batchlab.errors import BadInput
from batchlab.files.naming import file_name

LONGEST = 200
SIGNS = "/:?@;#%\\"
"""Mean something else in an address like models:/NAME@champion."""


def model_name(profile: Profile) -> str:
    """Return the name that a model of the profile's source and target is registered under, unless the user names one."""
    return file_name(f"{profile.source.name}-{profile.named_columns().target}", LONGEST)


def check_name(name: str) -> None:
    """Raise BadInput for a name that no model can be registered under, or be loaded by."""
    strange = sorted({sign for sign in name if sign in SIGNS or not sign.isprintable()})
    wrong = [f"has {' '.join(map(repr, strange))} in it"] if strange else []
    wrong += [f"is {len(name)} signs long"] if len(name) > LONGEST else []
    wrong += ["is blank at its ends, or all dots"] if name != name.strip() or not name.strip(".") else []
    if wrong:
        raise BadInput(f"model name '{name}' {' and '.join(wrong)}; use 1 to {LONGEST} letters, digits, blanks, and - _ . , ( ).")
