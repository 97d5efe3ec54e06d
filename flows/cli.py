"""The command line. Heavy imports happen inside the commands, so that --help answers at once."""

import atexit
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows import server_commands

if TYPE_CHECKING:
    from batchlab.config import Profile
    from flows.local_server import LocalServer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Which batching strategy, batch size and learning rate should I train with, on my data and my hardware?",
)
app.add_typer(server_commands.app, name="server")

BEGAN = time.perf_counter()
FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
QUIET_PREFECT = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
}


@app.command()
def compare(
    data: Annotated[
        str | None,
        typer.Option(help="A bundled data set (diabetes, breast_cancer, digits, wine), `synthetic`, a path, a glob, a folder or a URL."),
    ] = None,
    target: Annotated[str | None, typer.Option(help="The column to predict.")] = None,
    task: Annotated[str | None, typer.Option(help="regression, binary or multiclass; else inferred from the target.")] = None,
    profile: Annotated[str, typer.Option(help="lesson, lesson-raw, quick, full, or the path of a TOML file.")] = "quick",
    strategies: Annotated[str | None, typer.Option(help="Names of strategies, with commas between.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE on top of the profile, e.g. train.epochs=200.")] = None,
    objective: Annotated[str | None, typer.Option(help="What to be best in: time (default), rows, memory or test_loss.")] = None,
    drop: Annotated[
        str | None, typer.Option(help="Columns to leave out, with commas between (names with commas: --set 'columns.drop=[…]').")
    ] = None,
    categorical: Annotated[str | None, typer.Option(help="Columns to take as categories, with commas between.")] = None,
    time_column: Annotated[str | None, typer.Option(help="The column that orders the rows in time, for chronological splits.")] = None,
    group_column: Annotated[str | None, typer.Option(help="The column whose equal values stay in one part of the split.")] = None,
    target_loss: Annotated[float | None, typer.Option(help="The validation loss to reach; else chosen from the curves.")] = None,
    max_minutes: Annotated[
        float | None,
        typer.Option(help="End the search about then, with a verdict of what is known; start-up, page and records come on top."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the split, the initial weights and the order of rows.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the result there as JSON.")] = None,
    no_server: Annotated[bool, typer.Option("--no-server", help="Use Prefect's own temporary server (slower to start).")] = False,
) -> None:
    """Find the strategy, batch size and learning rate to train with, and show the evidence."""
    from batchlab.config import load_profile
    from flows.display import console, show_result

    names = None if strategies is None else separated(strategies)
    arguments: dict[str, Any] = {
        "data": data,
        "target": target,
        "task": task,
        "strategies": names,
        "overrides": [
            *column_overrides(drop, categorical, time_column, group_column),
            *search_overrides(objective, target_loss, max_minutes),
            *(overrides or []),
        ],
        "seed": seed,
    }
    settings = load_profile(profile, **arguments)
    check_early(settings, json_file)
    server = prepare_server(no_server)
    imports, waiting = warm_up(server)
    result, flow_seconds = run_flow(profile, arguments)
    searching = result.verdict.search_seconds
    timing = (
        f"{time.perf_counter() - BEGAN:.1f} s in all: {imports:.1f} s imports, {waiting:.1f} s waiting for the Prefect server, "
        f"{searching:.1f} s search, {flow_seconds - searching:.1f} s data, scores, models, page and records"
    )
    show_result(console(), result, timing)
    if json_file is not None:
        draft = json_file.with_name(f".{json_file.name}.part")
        draft.write_text(result.model_dump_json(indent=2) + "\n")
        draft.replace(json_file)


def search_overrides(objective: str | None, target_loss: float | None, max_minutes: float | None) -> list[str]:
    """Return the options that are short for keys of the search, as key=value."""
    given = {"objective": objective, "target_loss": target_loss, "max_minutes": max_minutes}
    return [f"search.{key}={value}" for key, value in given.items() if value is not None]


def column_overrides(drop: str | None, categorical: str | None, time_column: str | None, group_column: str | None) -> list[str]:
    """Return the options on columns as key=value; a time or group column also chooses the split that needs it."""
    lists = {"drop": drop, "categorical": categorical}
    given = [f"columns.{key}={json.dumps(separated(names), ensure_ascii=False)}" for key, names in lists.items() if names is not None]
    for key, name, kind in (("time", time_column, "chronological"), ("group", group_column, "group")):
        if name is not None:
            given += [f"columns.{key}={json.dumps(name, ensure_ascii=False)}", f"split.kind={kind}"]
    return given


def separated(names: str) -> list[str]:
    """Return names that were written with commas between."""
    return [name.strip() for name in names.split(",") if name.strip()]


def check_early(settings: "Profile", json_file: Path | None) -> None:
    """Refuse what can be refused before anything is started: columns, the store's folder, the place of the JSON file."""
    from batchlab.table.columns import check_columns
    from tasks import store

    schema = settings.source.peek()
    if schema is not None:
        check_columns(schema, settings.named_columns())
    if json_file is not None:
        _check_place(json_file)
    store.check_writable()


def _check_place(json_file: Path) -> None:
    from batchlab.errors import BadInput

    folder = json_file.resolve().parent
    if not folder.is_dir():
        raise BadInput(f"--json: folder '{folder}' does not exist; make it first.")
    if json_file.is_dir():
        raise BadInput(f"--json: '{json_file}' is a folder; name a file in it.")
    if not os.access(folder, os.W_OK):
        raise BadInput(f"--json: folder '{folder}' cannot be written; name a file elsewhere.")


def prepare_server(temporary: bool) -> "LocalServer | None":
    """Point this process at a Prefect server: the configured one, else the local one, started in the background if need be.

    Returns the local one, to be waited for. With `temporary` Prefect starts one of its own for this process.
    """
    from flows import local_server

    os.environ.update(local_server.QUIET)
    if temporary:
        os.environ["PREFECT_API_URL"] = ""
        return None
    url = local_server.configured_url()
    if url is not None:
        if not local_server.answers(url):
            raise local_server.ServerError(f"PREFECT_API_URL is {url}, but nothing answers there; start it, unset it, or use --no-server.")
        return None
    server = local_server.started()
    os.environ["PREFECT_API_URL"] = server.api_url
    return server


def warm_up(server: "LocalServer | None") -> tuple[float, float]:
    """Import what the flow needs and open the store while the server starts; return the seconds of both."""
    began = time.perf_counter()
    for key, value in QUIET_PREFECT.items():
        os.environ.setdefault(key, value)
    import flows.comparison  # noqa: F401
    from tasks import store, warming

    warming.import_all()
    warming.compile_kernels()
    imported = time.perf_counter()
    store.client()
    if server is not None:
        server.wait()
    return imported - began, time.perf_counter() - imported


def run_flow(profile: str, arguments: dict[str, Any]) -> tuple[Any, float]:
    """Run the comparison in this process with a progress display; return its result and its seconds."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from flows.comparison import comparison
    from flows.display import SearchProgress, console
    from tasks import progress

    began = time.perf_counter()
    # Nobody watches the heartbeats of a run at the command line, and ending their thread takes a second.
    with SearchProgress(console(stderr=True)) as bars, temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        progress.listeners.append(bars)
        try:
            return comparison(profile=profile, **arguments), time.perf_counter() - began
        finally:
            progress.listeners.remove(bars)


@app.command()
def ui(port: Annotated[int, typer.Option(help="Port on loopback.", min=1, max=65535)] = 5000) -> None:
    """Open the MLflow UI on this folder's store, on loopback."""
    from batchlab.errors import BadInput
    from flows import local_server
    from tasks import store

    store.check_writable()
    if not local_server.is_free(port):
        raise BadInput(f"port {port} on loopback is taken; give another with --port.")
    typer.echo(f"MLflow UI of {store.folder()} at http://127.0.0.1:{port}/#/experiments?workflowType=machine_learning (Ctrl-C ends it)")
    store.client()
    environment = {**os.environ, **local_server.QUIET, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store.tracking_uri(), "--workers", "1"]
    os.execve(sys.executable, [*command, "--host", "127.0.0.1", "--port", str(port)], environment)


@app.command()
def doctor() -> None:
    """Show versions, device, store and server, and what is missing and how to get it."""
    from flows.display import console
    from flows.doctor import examine

    if not examine(console()):
        raise typer.Exit(FAILED)


def main() -> None:
    """Run the command line; bad input ends in one line and code 2, a failure in one line and code 1."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end as on Ctrl-C: runs marked, nothing half-written
    from batchlab.errors import BadInput

    try:
        app()
    except BadInput as error:
        _leave(BAD_INPUT, f"error: {error}")
    except SystemExit as leaving:
        if isinstance(leaving.code, str):
            _leave(FAILED, leaving.code)
        code = leaving.code or 0
        _leave(code, "interrupted; what was finished is kept." if code == INTERRUPTED else "")
    except Exception as error:
        if os.environ.get("BATCHLAB_TRACEBACK"):
            traceback.print_exc()
        _leave(FAILED, f"failed: {type(error).__name__}: {error} (BATCHLAB_TRACEBACK=1 shows where)")


def _leave(code: int, message: str = "") -> None:
    """End the process with its exit functions but without tearing down the interpreter, which takes torch two seconds."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C finds the end already under way
    if message:
        print(message, file=sys.stderr)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
