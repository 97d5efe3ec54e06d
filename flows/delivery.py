"""Recording what was told while MLflow or Prefect was away: by the next command that uses the store, or by `batchlab record`."""

import typer

from flows import running
from tasks import store


def record() -> None:
    """Record in MLflow and Prefect what was told while they were away."""
    store.check_ready()
    if not store.something_is_spooled():
        typer.echo("everything is recorded.")
        return
    running.use_running_server()
    left = _deliver()
    typer.echo("everything is recorded." if not left else f"not everything is recorded yet; the rest is kept in {store.spool()}.")


def after_command() -> None:
    """Record what waits, where the command just ended has used the store."""
    if store.client.cache_info().currsize and store.something_is_spooled():
        _deliver()


def _deliver() -> bool:
    """Record what can be recorded now; whether something is left."""
    running.quiet()
    from flows.display import SearchProgress, console
    from tasks import progress
    from tasks.delivering import deliver

    with SearchProgress(console(stderr=True)) as bars:
        progress.listeners.append(bars)
        try:
            deliver()
        finally:
            progress.listeners.remove(bars)
    return store.something_is_spooled()
