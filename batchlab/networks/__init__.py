"""Networks as the engine and the models see them: activations, flat weights, several replicas at once, what one is like."""
