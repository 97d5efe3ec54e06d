"""Numbers, durations and amounts of memory as people read them."""

import math

UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
BYTES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "bytes"))


def number(value: float) -> str:
    """Return three significant digits, thousands with commas, M for millions and G for billions."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "–"
    if abs(value) >= 1e6:
        return f"{value / 1e9:.3g}G" if abs(value) >= 1e9 else f"{value / 1e6:.3g}M"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def seconds(value: float) -> str:
    """Return a duration with its unit."""
    size, name = unit_of(value)
    return f"{number(value / size)} {name}"


def memory(value: float) -> str:
    """Return an amount of memory with its unit."""
    size, name = next(((size, name) for size, name in BYTES if value >= size), BYTES[-1])
    return f"{value / size:.3g} {name}"


def unit_of(value: float) -> tuple[float, str]:
    """Return the unit that a duration is shown in: its size in seconds, its name."""
    return next(((size, name) for size, name in UNITS if value >= size), UNITS[-1])
