"""What happened to a data set or a model, told to the Prefect server, which starts deployments and notifies people."""

import logging
import math
from typing import Literal

import httpx
from prefect.client.orchestration import get_client
from prefect.events import Event, get_events_client
from prefect.events.related import related_resources_from_run_context
from prefect.settings import PREFECT_API_URL
from prefect.utilities.asyncutils import run_coro_as_sync
from websockets.exceptions import WebSocketException

DATASET_GREW = "batchlab.dataset.grew"
CHAMPION_CHANGED = "batchlab.champion.changed"
GATE_REFUSED = "batchlab.gate.refused"
DRIFT_FOUND = "batchlab.drift.found"

Fact = str | int | float | None | list[str]


def emit(event: str, resource_kind: Literal["dataset", "model"], name: str, text: str, **facts: Fact) -> bool:
    """Send an event on `batchlab.<resource_kind>.<name>` and return True once the Prefect server has it.

    Its payload is `text`, one sentence for people, and the facts; the flow run that sends it, if any, is among its related resources.
    False where PREFECT_API_URL names no server: the temporary one of a single run has no automations that could listen.
    Raises OSError when the server does not answer for about ten seconds.
    """
    if not PREFECT_API_URL.value():
        return False
    payload = {"text": text, **{key: _in_json(fact) for key, fact in facts.items()}}
    resource = {"prefect.resource.id": f"batchlab.{resource_kind}.{name}", "prefect.resource.name": name}
    run_coro_as_sync(_sent(Event(event=event, resource=resource, payload=payload)))
    return True


def tell_of_model(event: str, name: str, text: str, **facts: Fact) -> None:
    """Send an event on a model; where the server cannot be reached, log that: what the event tells of has happened all the same."""
    try:
        emit(event, "model", name, text, **facts)
    except OSError as error:
        logging.getLogger(__name__).warning("event %s was not sent: %s", event, error)


def _in_json(fact: Fact) -> Fact:
    """Return the fact as JSON can hold it: a loss that is not a number would arrive as nothing, and is told in words."""
    return str(fact) if isinstance(fact, float) and not math.isfinite(fact) else fact


async def _sent(event: Event) -> None:
    # Prefect's own `emit_event` hands over to a thread that only logs what it could not send; whoever must not lose an event has to
    # know. A checkpoint after every event waits until the server has read it.
    try:
        async with get_client() as api:
            event.related += await related_resources_from_run_context(api)
        async with get_events_client(checkpoint_every=1) as events:
            await events.emit(event)
    except (httpx.HTTPError, WebSocketException) as error:
        raise ConnectionError(f"the Prefect server did not take the event {event.event}: {error!r}") from error
