"""The preparation as a torch module: the same arithmetic makes the training rows and lives inside the saved model."""

import numpy as np
import torch
from torch import Tensor, nn

from batchlab.rows.preparation import Preparation


class Inputs(nn.Module):
    """Maps packed columns `[…, packed columns]` to inputs `[…, inputs]`, in float64."""

    def __init__(self, preparation: Preparation) -> None:
        super().__init__()
        self.embedded, self.width = preparation.embedded, sum(category.width for category in preparation.categories)
        arrays = {name: getattr(preparation, name) for name in ("places", "mean", "scale", "fill", "flagged")}
        categories = preparation.categories
        arrays["category_places"] = np.array([category.place for category in categories], np.int64)
        arrays["sizes"] = np.array([len(category.slots) - 2 for category in categories], np.int64)
        arrays["starts"] = np.cumsum([0, *(len(category.slots) for category in categories)])[:-1].astype(np.int64)
        shifts = [0] * len(categories) if self.embedded else np.cumsum([0, *(category.width for category in categories)])[:-1]
        arrays["slots"] = np.array(
            [slot + shift for category, shift in zip(categories, shifts, strict=True) for slot in category.slots], np.int64
        )
        for name, values in arrays.items():
            if len(values):  # torch.export cannot write empty ones
                self.register_buffer(name, torch.from_numpy(np.array(values)))

    def forward(self, packed: Tensor) -> Tensor:
        """Return the inputs."""
        held, parts = dict(self.named_buffers()), []
        if "places" in held:
            numbers = packed.index_select(-1, held["places"]).double()
            missing = ~torch.isfinite(numbers)
            parts.append(torch.where(missing, held["fill"], (numbers - held["mean"]) / held["scale"]))
            if "flagged" in held:
                parts.append(missing.index_select(-1, held["flagged"]).double())
        if "category_places" in held:
            parts.append(self._categories(packed.index_select(-1, held["category_places"]), held))
        return torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]

    def _categories(self, packed: Tensor, held: dict[str, Tensor]) -> Tensor:
        """Return one input a slot, of which exactly one a category is 1; or the slots themselves, to be embedded."""
        sizes = held["sizes"]
        known = torch.minimum(torch.nan_to_num(packed.double()), sizes.double()).clamp_min(0).long()
        slots = held["slots"][torch.where(torch.isnan(packed), sizes + 1, known) + held["starts"]]
        if self.embedded:
            return slots.double()
        return torch.zeros(*packed.shape[:-1], self.width, dtype=torch.float64).scatter(-1, slots, 1.0)
