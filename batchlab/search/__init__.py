"""The search: every strategy and batch size with its own best learning rate, timed apart, and the verdict drawn from them."""
