"""Prefect's server as `prefect server start` runs it, behind a check it lacks: which host was asked, and which page asks.

Without it any web page could make the visitor's browser start flow runs: by a plain POST or a web socket, which no CORS setting stops,
or under a host name that it points at this machine. `uvicorn --factory flows.guarded_prefect:app` runs it, and
`python -m flows.guarded_prefect FD` does on the socket that is open as FD; its own pages are at the addresses in
PREFECT_SERVER_CORS_ALLOWED_ORIGINS.

It also looks for work of its own more seldom: steps are timed beside it. What settings can slow down is in flows/local_server.py.
"""

import asyncio
import socket
import sys
from collections.abc import Collection
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from burner_redis import PubSub  # type: ignore[import-untyped]
from docket import Worker
from prefect.server.api import background_workers
from prefect.server.api.server import create_app
from prefect.server.events import triggers
from prefect.settings import PREFECT_SERVER_CORS_ALLOWED_ORIGINS
from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

BETWEEN_LOOKS, BETWEEN_SWEEPS = timedelta(seconds=2), timedelta(seconds=15)
"""How late at most begins what the server does by itself, and how often it looks whether an event was lost; what it is asked for, and
events, it takes at once."""
READ = PubSub.get_message


async def read_seldom(subscriber: PubSub, ignore_subscribe_messages: bool = False, timeout: float | None = 0.0) -> Any:
    """Return the subscriber's next message; one who waits looks now and then, where the queue has a thread look ten times a second."""
    found = await READ(subscriber, ignore_subscribe_messages, 0.0)
    while found is None and timeout != 0.0:
        await asyncio.sleep(BETWEEN_LOOKS.total_seconds())
        found = await READ(subscriber, ignore_subscribe_messages, 0.0)
        if timeout is not None:
            break
    return found


def look_seldom() -> None:
    """Have the server look for work that is due every two seconds instead of ten and four times a second: its queue has no settings."""
    worker = partial(Worker, minimum_check_interval=BETWEEN_LOOKS, scheduling_resolution=BETWEEN_LOOKS)
    setattr(background_workers, "Worker", worker)  # noqa: B010
    setattr(triggers, "consumer", partial(triggers.consumer, BETWEEN_SWEEPS))  # noqa: B010
    PubSub.get_message = read_seldom


def app() -> ASGIApp:
    """Return Prefect's application for requests to its own hosts from its own pages; all hosts and pages where the setting is `*`."""
    look_seldom()
    origins = PREFECT_SERVER_CORS_ALLOWED_ORIGINS.value().split(",")
    server: ASGIApp = create_app(final=True)
    if "*" in origins:
        return server
    hosts = [str(urlsplit(origin).hostname) for origin in origins]
    return TrustedHostMiddleware(from_own_pages(server, origins), allowed_hosts=hosts, www_redirect=False)


def from_own_pages(server: ASGIApp, origins: Collection[str]) -> ASGIApp:
    """Return the application behind a refusal of other pages' requests; what is no browser sends no Origin and passes."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        origin = Headers(scope=scope).get("origin") if scope["type"] in ("http", "websocket") else None
        if origin is None or origin in origins:
            await server(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            refusal = f"The page {origin} may not use this server; PREFECT_SERVER_CORS_ALLOWED_ORIGINS names those that may."
            await PlainTextResponse(refusal, 403)(scope, receive, send)

    return guarded


if __name__ == "__main__":
    uvicorn.Server(uvicorn.Config(app, factory=True, log_level="warning")).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
