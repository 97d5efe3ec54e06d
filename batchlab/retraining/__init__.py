"""Kept retrained: when a champion is trained again, whether its challenger is better, and whether the data still are what they were."""
