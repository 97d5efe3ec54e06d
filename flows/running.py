"""Running a flow at the command line: on which server, with what made ready meanwhile, and with a progress display."""

import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from flows.display import OnVerdict
    from flows.local_server import LocalServer

Value = TypeVar("Value")
BEGAN = time.perf_counter()
QUIET_PREFECT = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_API_REQUEST_TIMEOUT": "15",
}


def prepare_server(temporary: bool) -> "LocalServer | None":
    """Point this process at a Prefect server: the configured one, else the local one, started in the background if need be.

    Returns the local one, to be waited for. With `temporary` Prefect starts one of its own for this process.
    """
    from flows import local_server, temporary_server

    os.environ.update(local_server.QUIET)
    temporary_server.end_leftovers()
    if temporary:
        temporary_server.claim()
        os.environ["PREFECT_API_URL"] = ""
        os.environ.setdefault("PREFECT_LOGGING_TO_API_ENABLED", "false")  # that server is gone before its last lines would arrive
        return None
    url = local_server.configured_url()
    if url is not None:
        if not local_server.answers(url):
            raise local_server.ServerError(f"PREFECT_API_URL is {url}, but nothing answers there; start it, unset it, or use --no-server.")
        return None
    server = local_server.started()
    os.environ.update(server.environment)
    return server


def use_running_server() -> None:
    """Point this process at the Prefect server that runs, configured or local, so that it hears of what happens; start none."""
    from flows import local_server

    if local_server.configured_url() is None and (server := local_server.running()) is not None:
        os.environ.update(server.environment)


def quiet() -> None:
    """Have Prefect, which is imported after this, say little and wait seconds rather than minutes."""
    for key, value in QUIET_PREFECT.items():
        os.environ.setdefault(key, value)


def warm_up(server: "LocalServer | None", spare_memory: bool = False) -> tuple[float, float]:
    """Import what the flows need while the server starts, and begin with what they need later; return the seconds of both."""
    from batchlab.allowance import give_back_freed_memory

    give_back_freed_memory()
    began = time.perf_counter()
    quiet()
    import flows.comparison  # noqa: F401
    from tasks import warming

    warming.begin(spare_memory)
    imported = time.perf_counter()
    if server is not None:
        server.wait()
    return imported - began, time.perf_counter() - imported


def run_flow(flow: Callable[[], Value], on_verdict: "OnVerdict" = lambda search, scores: None) -> Value:
    """Run a flow in this process with a progress display; return its result. `on_verdict` is told a comparison's verdict
    as soon as that is known."""
    from httpx import TransportError
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from flows import ending, temporary_server
    from flows.display import SearchProgress, console
    from tasks import progress

    if os.environ.get("PREFECT_API_URL") == "":
        temporary_server.shield()
    # Nobody watches the heartbeats of a run at the command line, and ending their thread takes a second.
    with SearchProgress(console(stderr=True), on_verdict) as bars, temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        progress.listeners.append(bars)
        before = signal.signal(signal.SIGINT, _cut_short)
        try:
            return flow()
        except TransportError:  # Prefect's server could not be told how the flow ended
            if (result := ending.came_to()) is None:
                raise
            known: Value = result
            return known
        finally:
            ending.closed()
            signal.signal(signal.SIGINT, before)
            progress.listeners.remove(bars)


def _cut_short(number: int, frame: FrameType | None) -> None:
    """On the first Ctrl-C end the search with the verdict of what is known, or recording with what is recorded; on a second one, or where
    nothing is known, end at once."""
    from tasks import progress

    if not progress.cut_short():
        raise KeyboardInterrupt
