"""The server that Prefect starts for one process alone (`--no-server`): Ctrl-C must not end it early, nor a kill leave it for good."""

import os
import subprocess
from contextlib import suppress
from functools import partial
from typing import Any

import psutil

from tasks.provenance import owner, owner_is_gone

OWNER_OF_SERVER = "BATCHLAB_SERVES"
"""In its environment a temporary server has the process that it serves."""
SERVER = "prefect.server.api.server:create_app"


def claim() -> None:
    """Have the server that Prefect starts for this process say so."""
    os.environ[OWNER_OF_SERVER] = owner()


class _Sessions:
    """The module `subprocess`, whose processes begin a session of their own."""

    Popen = staticmethod(partial(subprocess.Popen, start_new_session=True))

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)


def shield() -> None:
    """Have Prefect start its server in a session of its own: Ctrl-C, which a terminal sends to all processes of a command, would end it
    while the command still needs it. Prefect has no setting for that."""
    from prefect.server.api import server

    vars(server)["subprocess"] = _Sessions()


def end_leftovers() -> None:
    """End the temporary servers of this user's commands that are gone."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            served = process.environ().get(OWNER_OF_SERVER)
            if served is not None and SERVER in process.cmdline() and owner_is_gone(served):
                process.terminate()
