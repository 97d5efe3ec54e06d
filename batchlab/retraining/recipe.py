"""The recommended setting as keys of a profile: what a comparison hands to the trainings that follow it."""

from typing import Any

from batchlab.config import Profile
from batchlab.errors import BadInput
from batchlab.results import Verdict

ASKED = ("task", "scale", "model", "train", "strategies", "encoding", "columns")
"""The parts of a profile that decide what a comparison recommends; when one of them changes, its recommendation is stale."""


def recipe_of(verdict: Verdict) -> dict[str, Any]:
    """Return the verdict's setting; raises BadInput for a verdict that recommends none."""
    if verdict.settings is None:
        raise BadInput(f"the comparison recommends no setting, so there is nothing to train with: {verdict.text.splitlines()[0]}")
    return verdict.settings


def followed(profile: Profile, recipe: dict[str, Any]) -> Profile:
    """Return the profile with one strategy, one learning rate and the optimizer of the recipe."""
    asked = Profile.model_validate(
        {"strategies": recipe["strategies"], "train": {**profile.train.model_dump(mode="json"), **recipe["train"]}}
    )
    return profile.model_copy(update={"strategies": asked.strategies, "train": asked.train})


def asked_of(profile: Profile) -> dict[str, Any]:
    """Return what the profile asks of a comparison, to tell later whether it still asks the same."""
    return {key: value for key, value in profile.model_dump(mode="json").items() if key in ASKED}
