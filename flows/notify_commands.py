"""`batchlab notify`: who is told when a champion changes, a challenger is refused, data drift or a run fails."""

import os
import re
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Tell a webhook when a champion changes, a challenger is refused, data drift or a run fails.")
ALL = ("champion-changed", "gate-refused", "drift", "run-failed")
Name = Annotated[str, typer.Option(help="A name for the webhook, where there are several.")]


@app.command("webhook")
def webhook(
    url: Annotated[str, typer.Argument(help='The address that news are posted to, as JSON: {"text": …}. Slack\'s webhooks take it.')],
    on: Annotated[list[str] | None, typer.Option("--on", help=f"Which news, once for each: {', '.join(ALL)}; all when left out.")] = None,
    name: Name = "default",
    allow_private: Annotated[bool, typer.Option(help="Let the Prefect server call loopback and private addresses.")] = False,
) -> None:
    """Post news to a webhook from now on; a second time replaces its address and its kinds of news."""
    from batchlab.errors import BadInput

    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise BadInput(f"--name takes small letters, digits and dashes, for example 'on-call'; got '{name}'.")
    use_running_server()
    from flows import notifications

    kinds = tuple(on or ALL)
    notifications.tell_webhook(name, url, kinds, allow_private)
    typer.echo(f"webhook '{name}' is told: {', '.join(kinds)}")


@app.command("list")
def show() -> None:
    """List the webhooks and what each is told."""
    use_running_server()
    from flows import notifications

    found = notifications.webhooks()
    for item in found:
        typer.echo(f"{item.name}: {item.host}, told {', '.join(item.kinds) or 'nothing'}")
    if not found:
        typer.echo("nobody is told anything; `batchlab notify webhook URL` changes that.")


@app.command("remove")
def remove(name: Name = "default") -> None:
    """Stop telling a webhook, and forget its address."""
    use_running_server()
    from flows import notifications

    typer.echo(f"webhook '{name}' removed." if notifications.removed(name) else f"there was no webhook '{name}'.")


def use_running_server() -> None:
    """Point this process at the configured Prefect server, else at the local one; raise BadInput where none runs."""
    from batchlab.errors import BadInput
    from flows import local_server

    os.environ.update(local_server.QUIET)
    url = local_server.configured_url()
    if url is None:
        server = local_server.running()
        if server is None:
            raise BadInput("no Prefect server runs here; start one with `batchlab server start --worker`, or set PREFECT_API_URL.")
        server.wait()
        os.environ.update(server.environment)
    elif local_server.answers(url):
        os.environ["PREFECT_API_URL"] = url
    else:
        raise BadInput(f"PREFECT_API_URL is {url}, but nothing answers there; start it, or unset it to use the local server.")
