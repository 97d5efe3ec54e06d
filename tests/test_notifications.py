"""Notifications: one readable POST to a real webhook for each kind of news, from processes that end at once and runs that fail."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.deployments import run_deployment
from prefect.settings import PREFECT_API_URL, temporary_settings

from batchlab.errors import BadInput
from flows import local_worker, notify_commands
from flows.local_server import LocalServer
from flows.notifications import NEWS, Webhook, removed, tell_webhook, webhooks
from tests.conftest import Command

NEWS_OF_A_MODEL = """
from tasks import events
events.emit(events.CHAMPION_CHANGED, "model", "sales-price", "Version 7 is champion, 4% better.", version=7, champion=6)
events.emit(events.GATE_REFUSED, "model", "sales-price", 'Refused: "<worse>" & größer.', version=8, loss=float("inf"))
events.emit(events.DRIFT_FOUND, "model", "sales-price", "Drift in 2 columns.", psi=0.31, run=None)
"""


class Receiver:
    """A real HTTP server on loopback that keeps what is posted to it, as pairs of a path and a message."""

    def __init__(self) -> None:
        self.posts: Queue[tuple[str, str]] = Queue()
        posts = self.posts

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()
                posts.put((self.path, body["text"]))

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def next(self) -> tuple[str, str]:
        return self.posts.get(timeout=60)


@pytest.fixture
def receiver(server: LocalServer) -> Iterator[Receiver]:
    made = Receiver()
    yield made
    with temporary_settings({PREFECT_API_URL: server.api_url}):
        for left in webhooks():
            removed(left.name)
    made.server.shutdown()


def emitted(server: LocalServer, code: str) -> None:
    """Run code in a process that ends as soon as it is through."""
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PREFECT_API_URL": server.api_url}, check=True)


def failed_run(server: LocalServer) -> str:
    """Make a real run of ingestion/default fail, and return its id."""
    with temporary_settings({PREFECT_API_URL: server.api_url}):
        with get_client(sync_client=True) as api:
            api.create_work_pool(WorkPoolCreate(name=local_worker.POOL, type="process"), overwrite=True)
        local_worker.prefect(server, "--no-prompt", "deploy", "--name", "ingestion/default")
        run = run_deployment("ingestion/default", parameters={"profile": "nightly", "data": "no-such-file.csv"}, timeout=0)
    local_worker.prefect(server, "flow-run", "execute", str(run.id))
    return str(run.id)


@pytest.fixture
def on_server(server: LocalServer) -> Iterator[None]:
    """This process talks to the session's server."""
    with temporary_settings({PREFECT_API_URL: server.api_url}):
        yield


def test_each_kind_of_news_is_posted_once_and_readable(server: LocalServer, receiver: Receiver, batchlab: Command) -> None:
    url = f"{receiver.address}/hook?token=secret"
    for _ in range(2):  # said twice, told once
        done = batchlab("notify", "webhook", url, "--allow-private")
        assert done.stdout == "webhook 'default' is told: champion-changed, gate-refused, drift, run-failed\n", done.stderr
    assert batchlab("notify", "list").stdout == "default: 127.0.0.1, told champion-changed, gate-refused, drift, run-failed\n"
    emitted(server, NEWS_OF_A_MODEL)
    run = failed_run(server)
    posts = sorted(receiver.next() for _ in range(4))
    emitted(server, 'from tasks import events; events.emit(events.DRIFT_FOUND, "model", "last", "The last.")')
    assert receiver.next() == ("/hook?token=secret", "Drift found: The last.\nmodel: last\n")
    assert receiver.posts.empty()
    assert {path for path, _ in posts} == {"/hook?token=secret"}
    refused, champion, drift, failed = (text for _, text in posts)
    assert champion == "Champion changed: Version 7 is champion, 4% better.\nmodel: sales-price\nversion: 7\nchampion: 6\n"
    assert refused == 'Challenger refused: Refused: "<worse>" & größer.\nmodel: sales-price\nversion: 8\nloss: inf\n'
    assert drift == "Drift found: Drift in 2 columns.\nmodel: sales-price\npsi: 0.31\n"
    assert failed.startswith("Run failed: ingestion/default: Flow run encountered an exception: BadInput: 'no-such-file.csv' ")
    assert failed.endswith(f"state: Failed\nflow run: {server.ui_url}/runs/flow-run/{run}\n")
    assert batchlab("notify", "remove").stdout == "webhook 'default' removed.\n"


@pytest.mark.usefixtures("on_server")
def test_webhooks_have_names_and_kinds_of_news_and_leave_nothing_behind(server: LocalServer, receiver: Receiver) -> None:
    one, two = f"{receiver.address}/one", f"{receiver.address}/two"
    tell_webhook("one", one, tuple(NEWS), allow_private=True)
    tell_webhook("two", one, tuple(NEWS), allow_private=True)
    tell_webhook("two", two, ("drift", "gate-refused"), allow_private=True)  # another address, and less of it
    assert sorted(webhooks(), key=lambda item: item.name) == [
        Webhook("one", "127.0.0.1", tuple(NEWS)),
        Webhook("two", "127.0.0.1", ("gate-refused", "drift")),
    ]
    assert removed("one")
    assert not removed("one")
    emitted(server, NEWS_OF_A_MODEL)
    assert [receiver.next()[0] for _ in range(2)] == ["/two", "/two"]
    assert removed("two")
    assert receiver.posts.empty()
    with get_client(sync_client=True) as api:
        assert [found.name for found in api.read_automations() if found.name.startswith("batchlab")] == []
        assert [block.name for block in api.read_block_documents() if str(block.name).startswith("batchlab")] == []


@pytest.mark.usefixtures("on_server")
@pytest.mark.parametrize(
    ("url", "kind", "private", "said"),
    [
        ("http://127.0.0.1:9/hook", "drift", False, "'127.0.0.1' is a private address; .* add --allow-private"),
        ("hooks.example.com/x", "drift", True, "no address of http:// or https://"),
        ("http://127.0.0.1:9/hook", "drfit", True, "kind of news 'drfit' does not exist; did you mean 'drift'?"),
    ],
)
def test_what_cannot_be_told_is_refused(url: str, kind: str, private: bool, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        tell_webhook("refused", url, (kind,), private)
    assert webhooks() == []


@pytest.mark.usefixtures("on_server")
def test_the_address_of_a_webhook_is_among_the_secrets_of_its_block(receiver: Receiver) -> None:
    tell_webhook("quiet", f"{receiver.address}/services/T0/SECRET", ("drift",), allow_private=True)
    with get_client(sync_client=True) as api:
        (block,) = [block for block in api.read_block_documents(include_secrets=False) if block.name == "batchlab-quiet"]
    assert removed("quiet")
    assert "SECRET" not in block.model_dump_json()


def test_the_commands_say_what_is_missing(batchlab: Command, tmp_path: Path) -> None:
    done = batchlab("notify", "list", PREFECT_HOME=str(tmp_path))
    assert done.returncode == 2
    assert "batchlab server start" in done.stderr
    done = batchlab("notify", "webhook", "https://hooks.example.com/x", "--name", "On call")
    assert done.returncode == 2
    assert "--name takes small letters" in done.stderr


def test_the_command_names_the_kinds_that_there_are() -> None:
    assert set(notify_commands.ALL) == set(NEWS)
