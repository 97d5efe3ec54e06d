"""What a network is like, as far as training it asks."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Traits:
    """What a network is like. `unstackable` says why several replicas cannot train at once; None where they can. `predicts_alone`: they
    cannot predict at once. `draws`: it draws random numbers in training (dropout). `needs_rows`: it cannot train on one row alone (batch
    norm); such a step goes by its running statistics."""

    unstackable: str | None = None
    predicts_alone: bool = False
    draws: bool = False
    needs_rows: bool = False
