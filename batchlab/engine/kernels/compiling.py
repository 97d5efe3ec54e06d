"""`python -m batchlab.engine.kernels.compiling float32`: compile the kernels and leave them on disk, for `compiled.ready`."""

import signal
import sys

from batchlab.engine.backends.numba_cpu import warm

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a search that is interrupted ends with what is known, which takes kernels
    warm("float64" if sys.argv[1] == "float64" else "float32")
