"""`batchlab server`: start, status and stop of the local Prefect server and its worker."""

from typing import Annotated

import typer

from flows import local_server, local_worker

app = typer.Typer(no_args_is_help=True, help="The Prefect server on this machine that runs share.")


@app.command("start")
def start(worker: Annotated[bool, typer.Option(help="Also make the work pool, deploy, and start a worker.")] = False) -> None:
    """Start the local Prefect server in the background, or find the one that runs."""
    server = local_server.started()
    typer.echo(f"Prefect server at {server.ui_url} (process {server.process.pid}); starting takes up to half a minute")
    server.wait()
    if worker:
        local_worker.started(server)
        typer.echo("worker on pool 'batchlab', deployment comparison/default. Try:")
        typer.echo(f"  PREFECT_API_URL={server.api_url} .venv/bin/prefect deployment run comparison/default --param profile=lesson --watch")
    typer.echo("Stop it with: batchlab server stop")


@app.command("status")
def status() -> None:
    """Say whether the local Prefect server and its worker run, and where."""
    server = local_server.running()
    if server is None:
        typer.echo("no local Prefect server runs; `batchlab server start` or the next `batchlab compare` starts one.")
        return
    typer.echo(f"Prefect server {'answers' if server.healthy() else 'is starting'} at {server.ui_url} (process {server.process.pid})")
    typer.echo(f"worker: {'runs' if local_worker.running() else 'none'}; PREFECT_API_URL={server.api_url}")


@app.command("stop")
def stop() -> None:
    """Stop the worker, then the local Prefect server."""
    worker = local_worker.stopped()
    server = local_server.stopped()
    typer.echo(f"worker {'stopped' if worker else 'was not running'}, server {'stopped' if server else 'was not running'}.")
