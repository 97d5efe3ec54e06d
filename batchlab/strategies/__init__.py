"""Batching strategies, one file each; a new file is found on arrival."""

from batchlab.records import discover
from batchlab.strategies.base import Indices, Order, Population, Step, Strategy

STRATEGIES = discover(__name__, Strategy)

__all__ = ["STRATEGIES", "Indices", "Order", "Population", "Step", "Strategy"]
