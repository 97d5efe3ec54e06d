"""Temporary Prefect servers whose command was killed: nobody else would ever end them."""

import os
from contextlib import suppress

import psutil

from tasks.provenance import owner, owner_is_gone

OWNER_OF_SERVER = "BATCHLAB_SERVES"
"""In its environment a temporary server has the process that it serves."""
SERVER = "prefect.server.api.server:create_app"


def claim_temporary_server() -> None:
    """Have the server that Prefect starts for this process say so."""
    os.environ[OWNER_OF_SERVER] = owner()


def end_leftover_servers() -> None:
    """End the temporary servers of this user's commands that are gone."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            served = process.environ().get(OWNER_OF_SERVER)
            if served is not None and SERVER in process.cmdline() and owner_is_gone(served):
                process.terminate()
