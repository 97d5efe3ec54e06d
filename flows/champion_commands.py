"""`batchlab champion`: show, history, rollback and promote."""

from typing import Annotated

import typer

from flows import options, running

app = typer.Typer(no_args_is_help=True, help="The registered model in use: show it, its history, roll it back, promote a version.")


@app.command("show")
def show(name: options.Model = None) -> None:
    """Say which version is champion, since when, what it was judged by, and what stands beside it."""
    from flows.display import console, facts
    from tasks import history

    facts(console(), history.shown(name))


@app.command("history")
def history_of(
    name: options.Model = None, most: Annotated[int, typer.Option(help="How many decisions, the latest first.", min=1)] = 50
) -> None:
    """List every decision with its reason, the latest first."""
    from flows.display import console, decisions
    from tasks import history

    decisions(console(), history.decisions(name, most))


@app.command("rollback")
def rollback(
    name: options.Model = None, reason: Annotated[str, typer.Option(help="Why, for the history.")] = "rolled back by hand"
) -> None:
    """Make the previous champion champion again; once more undoes that."""
    from flows.display import console

    running.use_running_server()
    from tasks import history

    console().print(history.rolled_back(name, reason))


@app.command("promote")
def promote(
    version: Annotated[int, typer.Argument(help="The version to make champion, whatever the gate said.")],
    name: options.Model = None,
    reason: Annotated[str, typer.Option(help="Why, for the history.")] = "promoted by hand",
) -> None:
    """Make a version champion by hand."""
    from flows.display import console

    running.use_running_server()
    from tasks import history

    console().print(history.promoted_by_hand(name, version, reason))
