"""Prefect's server as `prefect server start` runs it, behind a check it lacks: which host was asked, and which page asks.

Without it any web page could make the visitor's browser start flow runs: by a plain POST or a web socket, which no CORS setting stops,
or under a host name that it points at this machine. `uvicorn --factory flows.guarded_prefect:app` runs it; its own pages are at
the addresses in PREFECT_SERVER_CORS_ALLOWED_ORIGINS.
"""

from collections.abc import Collection
from urllib.parse import urlsplit

from prefect.server.api.server import create_app
from prefect.settings import PREFECT_SERVER_CORS_ALLOWED_ORIGINS
from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


def app() -> ASGIApp:
    """Return Prefect's application for requests to its own hosts from its own pages; all hosts and pages where the setting is `*`."""
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
