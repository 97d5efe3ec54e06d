"""Notifications: on the Prefect server, a webhook and an automation for each kind of news that calls it."""

from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit
from uuid import UUID

from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import BlockDocument
from prefect.events import AutomationCore, EventTrigger, SendNotification
from prefect.utilities.urls import validate_restricted_url

from batchlab.errors import BadInput, UnknownName
from tasks import events

BLOCK = "batchlab-"
OF_A_MODEL = {"prefect.resource.id": "batchlab.model.*"}
# A run has the tags of its deployment. One that has the tag without a deployment was started by hand, by somebody who sees it fail.
OF_A_DEPLOYMENT = [{"prefect.resource.id": "prefect.tag.batchlab"}, {"prefect.resource.role": "deployment"}]
LINK = "{% if flow_run %}flow run: {{ flow_run | ui_url }}\n{% endif %}"
FACTS = (
    "{{ event.payload.text }}\nmodel: {{ event.resource.name or event.resource.id }}\n"
    "{% for key, fact in event.payload.items() if key not in ('text', 'model') and fact is not none %}"
    "{{ key | replace('_', ' ') }}: {{ fact }}\n{% endfor %}"
)
STATE = (
    "{{ flow.name }}/{{ deployment.name }}: {{ event.resource['prefect.state-message'] | truncate(1000) }}\n"
    "state: {{ event.resource['prefect.state-name'] }}\n"
)


@dataclass(frozen=True)
class News:
    """A kind of news: its headline, the events that bring it, and what the message says, as a template that Prefect fills in."""

    headline: str
    trigger: EventTrigger
    body: str

    @property
    def message(self) -> str:
        """The whole message: what, the facts, and where to look."""
        return f"{self.headline}: {self.body}{LINK}"


def _on(event: str) -> EventTrigger:
    return EventTrigger(expect={event}, match=OF_A_MODEL)


FAILED = EventTrigger(expect={f"prefect.flow-run.{state}" for state in ("Failed", "Crashed", "TimedOut")}, match_related=OF_A_DEPLOYMENT)
NEWS = {
    "champion-changed": News("Champion changed", _on(events.CHAMPION_CHANGED), FACTS),
    "gate-refused": News("Challenger refused", _on(events.GATE_REFUSED), FACTS),
    "drift": News("Drift found", _on(events.DRIFT_FOUND), FACTS),
    "run-failed": News("Run failed", FAILED, STATE),
}


@dataclass(frozen=True)
class Webhook:
    """A webhook that is told news: its name, its host (the rest of the address is a secret), and the kinds of news."""

    name: str
    host: str
    kinds: tuple[str, ...]


def tell_webhook(name: str, url: str, kinds: Collection[str], allow_private: bool) -> None:
    """Have the Prefect server post these kinds of news, and no others, to `url`; said again, it replaces what was said before.

    Raises BadInput for an unknown kind, and for an address that is none, or a private one unless these are allowed.
    """
    for kind in kinds:
        if kind not in NEWS:
            raise UnknownName("kind of news", kind, NEWS)
    check_address(url, allow_private)
    with get_client(sync_client=True) as api:
        block = saved_block(name, url, allow_private)
        for kind in NEWS:
            put(api, name, kind, block if kind in kinds else None)


def check_address(url: str, allow_private: bool) -> None:
    """Raise BadInput unless `url` is one of http or https, and public where private ones are not allowed."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput("the webhook is no address of http:// or https://; give it whole, as the service shows it.")
    if not allow_private:
        try:
            validate_restricted_url(url)
        except ValueError as error:
            reason = "cannot be resolved" if "resolved" in str(error) else "is a private address"
            raise BadInput(f"'{parts.hostname}' {reason}; if the Prefect server may call it, add --allow-private.") from None


def saved_block(name: str, url: str, allow_private: bool) -> UUID:
    """Save the webhook as Prefect's block of the kind that posts JSON; the address is among its secrets, which the UI does not show."""
    block = CustomWebhookNotificationBlock(
        name=str(urlsplit(url).hostname),
        url="{{address}}",
        secrets={"address": url},
        json_data={"text": "{{body}}"},
        allow_private_urls=allow_private,
    )
    return UUID(str(block.save(f"{BLOCK}{name}", overwrite=True)))


def put(api: SyncPrefectClient, name: str, kind: str, block: UUID | None) -> None:
    """Make or update the automation of one kind of news, so that there is exactly one; without a block, remove it."""
    found = api.read_automations_by_name(title(name, kind))
    kept = found[:1] if block is not None else []
    if block is not None:
        wanted = automation(name, kind, block)
        for existing in kept:
            api.update_automation(existing.id, wanted)
        if not kept:
            api.create_automation(wanted)
    for spare in found[len(kept) :]:
        api.delete_automation(spare.id)


def automation(name: str, kind: str, block: UUID) -> AutomationCore:
    """Return the automation that sends one kind of news through the block."""
    news = NEWS[kind]
    made = AutomationCore(
        name=title(name, kind),
        description=f"Batchlab's news '{kind}' to the webhook '{name}'.",
        tags=["batchlab"],
        trigger=news.trigger,
        actions=[SendNotification(block_document_id=block, subject=news.headline, body=news.message)],
    )
    # Prefect's update sends only what was set, and the server refuses a trigger without its defaults, or anything on an owner.
    return AutomationCore(**made.model_dump(exclude={"owner_resource"}))


def title(name: str, kind: str) -> str:
    """Return the automation's name."""
    return f"batchlab {kind} to {name}"


def webhooks() -> list[Webhook]:
    """Return every webhook that is told news."""
    with get_client(sync_client=True) as api:
        return [_webhook(api, block) for block in _blocks(api)]


def _webhook(api: SyncPrefectClient, block: BlockDocument) -> Webhook:
    name = str(block.name).removeprefix(BLOCK)
    kinds = tuple(kind for kind in NEWS if any(found.enabled for found in api.read_automations_by_name(title(name, kind))))
    return Webhook(name, str(block.data["name"]), kinds)


def removed(name: str) -> bool:
    """Remove a webhook with its automations; return whether there was one."""
    with get_client(sync_client=True) as api:
        for kind in NEWS:
            put(api, name, kind, None)
        found = [block for block in _blocks(api) if block.name == f"{BLOCK}{name}"]
        for block in found:
            api.delete_block_document(block.id)
    return bool(found)


def _blocks(api: SyncPrefectClient) -> list[BlockDocument]:
    slug = CustomWebhookNotificationBlock.get_block_type_slug()
    blocks = api.read_block_documents(include_secrets=False)
    return [block for block in blocks if block.block_type and block.block_type.slug == slug and str(block.name).startswith(BLOCK)]
