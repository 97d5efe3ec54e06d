"""Where training runs."""

from typing import TYPE_CHECKING, Literal

from batchlab.errors import BadInput

if TYPE_CHECKING:
    import torch

DeviceChoice = Literal["auto", "cpu", "cuda", "mps"]


def chosen_device(choice: DeviceChoice, precision: str = "float32") -> "torch.device":
    """Return the device to train on; `auto` takes CUDA, then MPS (which has no float64), then the CPU.

    Raises BadInput for a device that is not there.
    """
    import torch

    if precision == "tf32" and not torch.cuda.is_available():
        raise BadInput("train.precision 'tf32' is a format of CUDA devices, and torch sees none here; use float32.")
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available() and precision != "float64", "cpu": True}
    if choice == "auto":
        return torch.device(next(name for name, there in present.items() if there))
    if not present[choice]:
        have = ", ".join(name for name, there in present.items() if there)
        raise BadInput(
            f"device '{choice}' was asked for, but torch {torch.__version__} sees only {have} here for {precision}; use --set device=auto."
        )
    return torch.device(choice)
