"""Where training runs."""

from typing import TYPE_CHECKING, Literal

from batchlab.errors import BadInput

if TYPE_CHECKING:
    import torch

DeviceChoice = Literal["auto", "cpu", "cuda", "mps"]


def chosen_device(choice: DeviceChoice) -> "torch.device":
    """Return the device to train on; `auto` takes CUDA, then MPS, then the CPU. Raises BadInput for one that is not there."""
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if choice == "auto":
        return torch.device(next(name for name, there in present.items() if there))
    if not present[choice]:
        have = ", ".join(name for name, there in present.items() if there)
        raise BadInput(f"device '{choice}' was asked for, but torch {torch.__version__} sees only {have} here; use --set device=auto.")
    return torch.device(choice)
