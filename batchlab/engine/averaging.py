"""The running average of the weights: what is judged and shipped. It gives what a decaying learning rate would, without knowing the end.

Polynomial decay (Shamir & Zhang 2013; Polyak & Juditsky 1992): about the last seventh of the steps counts, however many there were.
"""

DECAY = 0.15
"""At step t the weights of that step count for 1/(1 + DECAY·t) of the average."""
EVERY, ALL_UNTIL = 8, 256
"""After the first 256 steps every 8th counts, for eight: at small batches an average of every step would cost more than it gives."""


def average_share(step: int) -> float:
    """Return how much of the average the weights after `step` (from 1) make up; 0 for a step that is passed over."""
    if step <= ALL_UNTIL:
        return max(1.0 / step, 1.0 / (1.0 + DECAY * step))
    return min(1.0, EVERY / (1.0 + DECAY * step)) if step % EVERY == 0 else 0.0
