"""The recommended setting as keys of a profile: what a comparison hands to the trainings that follow it."""

from collections.abc import Collection, Mapping
from typing import Any

from batchlab.config import Profile
from batchlab.errors import BadInput
from batchlab.results import Verdict

ASKED = ("task", "device", "scale", "model", "train", "strategies", "encoding", "columns")
"""The parts of a profile that decide what a comparison recommends; when one of them changes, its recommendation is stale."""
SEARCHED = ("objective", "target_loss", "batch_rows")
"""What of the search's rule decides it; the rest is how thoroughly it looks."""
SHAPING = ("task", "scale", "model", "encoding", "columns")
"""The parts that decide what the network's inputs and weights mean."""


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
    tree = profile.model_dump(mode="json")
    return {**{key: tree[key] for key in ASKED}, "search": {key: tree["search"][key] for key in SEARCHED}}


def differing(before: Mapping[str, Any], now: Mapping[str, Any], keys: Collection[str]) -> list[str]:
    """Return which of the parts are asked for otherwise than before, by name."""
    return sorted(key for key in keys if before.get(key) != now.get(key))
