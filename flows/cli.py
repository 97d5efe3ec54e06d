"""The command line. Heavy imports happen inside the commands, so that --help answers at once."""

import atexit
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, get_args

import typer

from batchlab.analysis.objectives import Objective
from flows import champion_commands, delivery, notify_commands, options, predict_command, retrain_commands, running, server_commands

if TYPE_CHECKING:
    from batchlab.search.search import Search

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Which batching strategy, batch size and learning rate should I train with, on my data and my hardware?",
)
app.add_typer(server_commands.app, name="server")
app.add_typer(champion_commands.app, name="champion")
app.add_typer(notify_commands.app, name="notify")

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


@app.command()
def compare(
    data: options.Data = None,
    target: options.Target = None,
    task: options.TaskOfTarget = None,
    profile: Annotated[str, typer.Option(help="lesson, lesson-raw, quick, full, or the path of a TOML file.")] = "quick",
    strategies: Annotated[str | None, typer.Option(help="Names of strategies, with commas between.")] = None,
    overrides: options.Overrides = None,
    objective: Annotated[
        str | None,
        typer.Option(help=f"What decides: {', '.join(get_args(Objective))}; best (default): the cheapest of those with the lowest loss."),
    ] = None,
    drop: options.Drop = None,
    categorical: options.Categorical = None,
    time_column: options.TimeColumn = None,
    missing: options.Missing = None,
    group_column: Annotated[str | None, typer.Option(help="The column whose equal values stay in one part of the split.")] = None,
    window: options.Window = None,
    horizon: options.Horizon = None,
    target_loss: Annotated[
        float | None, typer.Option(help="The validation loss to reach; else the best one found plus a margin of 1%.")
    ] = None,
    max_minutes: Annotated[
        float | None,
        typer.Option(help="The search takes no longer, and says what more time would settle; start-up, page and records come on top."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the split, the initial weights and the order of rows.")] = None,
    json_file: options.JsonFile = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew, also where the same comparison was killed.")] = False,
    wide: Annotated[bool, typer.Option("--wide", help="Show every setting, column and note.")] = False,
    code: Annotated[
        Literal["torch", "lightning", "skorch", "keras"] | None, typer.Option(help="Print the lines that train so with this library.")
    ] = None,
    no_server: options.NoServer = False,
) -> None:
    """Find the strategy, batch size and learning rate to train with, and show the evidence."""
    from tasks import opening

    opening.begin()
    from batchlab.config import load_profile
    from flows.display import PLAIN_WIDTH, WIDE_WIDTH, console, show_end, show_verdict

    names = None if strategies is None else options.separated(strategies)
    arguments: dict[str, Any] = {
        "data": data,
        "target": target,
        "task": task,
        "strategies": names,
        "overrides": [
            *options.column_overrides(drop, categorical, time_column, group_column, missing, window, horizon),
            *search_overrides(objective, target_loss, max_minutes),
            *(overrides or []),
        ],
        "seed": seed,
    }
    settings = load_profile(profile, **arguments)
    options.check_early(settings, json_file)
    if spare_memory := settings.memory_gib is not None:
        opening.end()
    imports, waiting = running.warm_up(running.prepare_server(no_server), spare_memory)
    from flows.comparison import comparison

    shown_on, told = console(plain_width=WIDE_WIDTH if wide else PLAIN_WIDTH), [math.nan]

    def on_verdict(search: "Search", scores: Mapping[str, float | None]) -> None:
        told[0] = time.perf_counter() - running.BEGAN
        show_verdict(shown_on, search, scores, wide)

    result = running.run_flow(lambda: comparison(profile=profile, fresh=fresh, **arguments), on_verdict)
    whole, searching = time.perf_counter() - running.BEGAN, result.verdict.search_seconds
    timing = (
        f"{whole:.1f} s in all: {searching:.1f} s search, {told[0] - searching:.1f} s before it (of these {imports:.1f} s imports, "
        f"{waiting:.1f} s waiting for the Prefect server), {whole - told[0]:.1f} s records and page after it"
    )
    show_end(shown_on, result, timing, code)
    options.write_json(json_file, result.model_dump_json(indent=2))


def search_overrides(objective: str | None, target_loss: float | None, max_minutes: float | None) -> list[str]:
    """Return the options that are short for keys of the search, as key=value."""
    given = zip(options.SHORT, (objective, target_loss, max_minutes), strict=True)
    return [f"{key}={value}" for key, value in given if value is not None]


app.command()(retrain_commands.retrain)
app.command()(retrain_commands.update)
app.command()(predict_command.predict)
app.command()(delivery.record)


@app.command()
def ui(port: Annotated[int, typer.Option(help="Port on loopback.", min=1, max=65535)] = 5000) -> None:
    """Open the MLflow UI on this folder's store, on loopback."""
    from batchlab.errors import BadInput
    from flows import local_server, mlflow_server
    from tasks import address, store

    store.check_ready()
    if address.is_server(store.tracking_uri()):
        typer.echo(f"MLflow's server shows it at {store.ui_url()}/#/experiments?workflowType=machine_learning")
        return
    if not local_server.is_free(port):
        raise BadInput(f"port {port} on loopback is taken; give another with --port.")
    typer.echo(f"MLflow UI of {store.folder()} at http://127.0.0.1:{port}/#/experiments?workflowType=machine_learning (Ctrl-C ends it)")
    store.client()
    environment = {**os.environ, **local_server.QUIET, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store.tracking_uri(), "--workers", "1"]
    os.execve(sys.executable, [*command, "--host", "127.0.0.1", "--port", str(port), *mlflow_server.guards(port)], environment)


@app.command()
def doctor(
    ray: Annotated[
        str | None, typer.Option(help="Look at the nodes of the Ray cluster at this address, too (`auto` for this machine's).")
    ] = None,
) -> None:
    """Show versions, device, store and server, and what is missing and how to get it."""
    from flows.display import console
    from flows.doctor import examine

    if not examine(console(), ray):
        raise typer.Exit(FAILED)


def main() -> None:
    """Run the command line; bad input ends in one line and code 2, a failure in one line and code 1."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end as on Ctrl-C: runs marked, nothing half-written
    from batchlab.errors import BadInput
    from flows import local_stack

    local_stack.adopt()
    try:
        app()
    except BadInput as error:
        _leave(BAD_INPUT, f"error: {options.named(str(error))}")
    except SystemExit as leaving:
        if isinstance(leaving.code, str):
            _leave(FAILED, leaving.code)
        code = leaving.code or 0
        if code == 0:
            delivery.after_command()
        _leave(code, "interrupted; what was finished is kept." if code == INTERRUPTED else "")
    except Exception as error:
        if os.environ.get("BATCHLAB_TRACEBACK"):
            traceback.print_exc()
        _leave(FAILED, f"failed: {type(error).__name__}: {error} (BATCHLAB_TRACEBACK=1 shows where)")


def _leave(code: int, message: str = "") -> NoReturn:
    """End the process with its exit functions but without tearing down the interpreter, which takes torch two seconds."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C finds the end already under way
    if message:
        print(message, file=sys.stderr)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
