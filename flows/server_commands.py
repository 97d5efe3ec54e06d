"""`batchlab server`: start, status and stop of this machine's servers: Prefect, its worker, and with --postgres MLflow and PostgreSQL."""

import shlex
from typing import Annotated

import typer

from flows import local_server, local_stack, local_worker, mlflow_server, postgres_server

app = typer.Typer(no_args_is_help=True, help="The servers on this machine that runs share.")


@app.command("start")
def start(
    worker: Annotated[bool, typer.Option(help="Also make the work pool, deploy, and start a worker.")] = False,
    postgres: Annotated[
        bool,
        typer.Option(
            help="Keep runs in PostgreSQL under mlruns/postgres, with an MLflow server before it; both servers ask for a password."
        ),
    ] = False,
) -> None:
    """Start the local servers in the background, or find those that run."""
    typer.echo("starting takes up to half a minute")
    local_stack.started(postgres, worker)
    _say_what_runs()
    if worker:
        typer.echo("Try:  .venv/bin/prefect deployment run comparison/default --param profile=lesson --watch")
    typer.echo('after: eval "$(.venv/bin/batchlab server env)"  which sets addresses and passwords in this shell.')
    typer.echo("Stop with: batchlab server stop")


@app.command("status")
def status() -> None:
    """Say which of the local servers run, and where."""
    _say_what_runs()


@app.command("env")
def env() -> None:
    """Print the shell's lines that let other programs use the local servers: addresses and, with --postgres, passwords."""
    for name, value in local_stack.environment().items():
        typer.echo(f"export {name}={shlex.quote(value)}")


@app.command("stop")
def stop() -> None:
    """Stop the worker, then the servers, then the database."""
    ended = local_stack.stopped()
    typer.echo(", ".join(f"{name} stopped" for name in ended) if ended else "worker was not running, server was not running.")


def _say_what_runs() -> None:
    server, tracking, database = local_server.running(), mlflow_server.running(), postgres_server.running()
    if server is None:
        typer.echo("no local Prefect server runs; `batchlab server start` or the next `batchlab compare` starts one.")
    else:
        where = "PostgreSQL, with a password" if server.database else "SQLite"
        _say("Prefect server", server.healthy(), server.ui_url, server.process.pid, where)
    if tracking is not None:
        _say("MLflow server", tracking.healthy(), tracking.url, tracking.process.pid, "PostgreSQL, with a password")
    if database is not None:
        typer.echo(f"PostgreSQL at {database.place} (process {database.process.pid}), its files in {database.folder}")
    worker = local_worker.running()
    typer.echo(f"worker: {f'process {worker.pid} on pool {local_worker.POOL!r}' if worker else 'none'}")


def _say(name: str, answers: bool, url: str, pid: int, where: str) -> None:
    typer.echo(f"{name} {'answers' if answers else 'is starting'} at {url} (process {pid}; {where})")
