"""Recovery after a kill: what a dead worker or server has left open is ended, so that the next retraining gets its slot.

`python -m flows.recovering SECONDS` does it for the Prefect server and the MLflow store of its environment; SECONDS since 1970 is when
the worker, or the server, that was to start flow runs was seen to be gone.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from flows import background

CHECKOUT = Path(__file__).resolve().parent.parent


def recover(environment: Mapping[str, str], gone_since: float) -> None:
    """End what was left open, in a process of its own with `environment` on top of this one's; where that fails, say so and go on."""
    command = [sys.executable, "-m", "flows.recovering", str(gone_since)]
    env = {**os.environ, **background.QUIET, **environment}
    done = subprocess.run(command, cwd=CHECKOUT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        print(f"runs that a kill has left open could not be ended: {reason}; the next retraining tries again.", file=sys.stderr)


def main() -> None:
    """End what was left open."""
    from tasks.abandoned import end_abandoned_runs

    end_abandoned_runs(datetime.fromtimestamp(float(sys.argv[1]), UTC))


if __name__ == "__main__":
    main()
