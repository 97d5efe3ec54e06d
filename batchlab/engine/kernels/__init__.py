"""The CPU kernels: whole runs of steps compiled by numba. `compiled` is the way in; nothing here is imported before it is needed."""
