"""The servers: whose requests they refuse, which stores are taken, and PostgreSQL under both, started, killed, found again and stopped."""

import base64
import json
import os
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from batchlab.errors import BadInput
from flows.local_server import LocalServer
from flows.local_worker import POOL, RAY_POOL
from flows.postgres_cluster import Cluster
from tasks import address, store
from tests.conftest import SMALL
from tests.stacks import Stack, exported, running_stack

SECRET = "S3CRET"


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("http://127.0.0.1:5000/", "http://127.0.0.1:5000"),
        ("https://mlflow.example.org/team", "https://mlflow.example.org/team"),
        ("postgresql://me@localhost/runs", "postgresql+psycopg://me@localhost/runs"),
        ("postgres://localhost:5433/runs?sslmode=require", "postgresql+psycopg://localhost:5433/runs?sslmode=require"),
        ("sqlite:////tmp/runs.db", "sqlite:////tmp/runs.db"),
        ("", None),
    ],
)
def test_the_address_of_a_store_is_taken_as_mlflow_takes_it(given: str, taken: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(address.VARIABLE, given)
    assert address.configured() == taken
    monkeypatch.delenv(address.VARIABLE)
    assert address.configured() is None
    assert store.tracking_uri() == f"sqlite:///{store.folder() / 'mlflow.db'}"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("mlruns", "folders of files"),
        ("file:///srv/mlruns", "folders of files"),
        (f"mysql://me:{SECRET}@host/runs", "no store"),
        ("sqlite://", "names no file"),
        ("sqlite:runs.db", "no store"),
        (f"http://me:{SECRET}@127.0.0.1:5000", "MLFLOW_TRACKING_PASSWORD"),
        (f"https://{SECRET}@127.0.0.1:5000", "MLFLOW_TRACKING_PASSWORD"),
        (f"postgresql://me:{SECRET}@localhost/runs", "PGPASSWORD"),
        (f"postgresql+psycopg://localhost/runs?user=me&password={SECRET}", "PGPASSWORD"),
    ],
)
def test_a_store_that_cannot_be_used_is_refused_without_its_password(given: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(address.VARIABLE, given)
    with pytest.raises(BadInput, match=reason) as caught:
        store.check_ready()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_server_that_is_away_is_named_at_once(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        place = f"{scheme}://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv(address.VARIABLE, place)
        with pytest.raises(BadInput, match=r"127.0.0.1:\d+.*refused"):
            store.check_ready()


def test_a_server_that_hangs_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "ANSWER_SECONDS", 0.5)
    with socket.socket() as hanging:
        hanging.bind(("127.0.0.1", 0))
        hanging.listen()
        monkeypatch.setenv(address.VARIABLE, f"http://127.0.0.1:{hanging.getsockname()[1]}")
        with pytest.raises(BadInput, match=r"nothing answers there .*timed out"):
            store.check_ready()


def test_what_answers_but_is_no_mlflow_is_told_apart(server: LocalServer) -> None:
    with pytest.raises(BadInput, match="is no MLflow server"):
        address.check_admits(server.ui_url)


def test_a_database_elsewhere_is_used_and_the_environment_left_alone(store_template: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.db").write_bytes((store_template / "mlflow.db").read_bytes())
    code = """
import os
from tasks import store
experiment = store.client().get_experiment(store.experiment_id("somewhere"))
print(experiment.artifact_location, os.environ.get("MLFLOW_TRACKING_URI"))
"""

    def run(**environment: str) -> str:
        env = {**os.environ, "BATCHLAB_MLRUNS": str(tmp_path / "mlruns"), **environment}
        return subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert run(MLFLOW_TRACKING_URI="sqlite:///elsewhere.db").split() == [f"file://{tmp_path}/mlruns/artifacts", "sqlite:///elsewhere.db"]
    assert not (tmp_path / "mlruns" / "mlflow.db").exists()
    (tmp_path / "elsewhere.db").rename(tmp_path / "mlruns" / "mlflow.db")
    assert run().split() == [f"file://{tmp_path}/mlruns/artifacts", "None"]


def status_of(url: str, *, body: object = None, password: str | None = None, **headers: str) -> int:
    """Return the status of the answer to a POST where there is a body, else to a GET."""
    headers |= {"Content-Type": "application/json"}
    if password is not None:
        headers["Authorization"] = f"Basic {base64.b64encode(password.encode()).decode()}"
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


def websocket_answer(url: str, origin: str) -> str:
    """Return the first line of the answer to a page's attempt to open a web socket."""
    place = urlsplit(url)
    lines = [f"GET {place.path} HTTP/1.1", f"Host: {place.netloc}", f"Origin: {origin}", "Upgrade: websocket", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Protocol: prefect", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw=="]
    with socket.create_connection((str(place.hostname), place.port or 80), timeout=10) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        return connection.recv(1000).decode().splitlines()[0]


def check_prefect_guards(api_url: str, password: str | None = None) -> None:
    """Hold a Prefect server to refusing other hosts and pages, and to serving its own pages, from both of its names."""
    ui_url, flows = api_url.removesuffix("/api"), f"{api_url}/flows/filter"
    other = f"http://localhost:{urlsplit(api_url).port}"
    assert status_of(f"{ui_url}/dashboard", Accept="text/html") == 200
    assert status_of(flows, body={}, password=password) == 200
    for own in (ui_url, other):
        assert status_of(flows, body={}, password=password, Origin=own) == 200
        assert " 101 " in websocket_answer(f"{api_url}/events/in", own)
    assert status_of(flows.replace("127.0.0.1", "localhost"), body={}, password=password) == 200
    for foreign in ("http://evil.example", "null", "http://127.0.0.1:9"):
        assert status_of(flows, body={}, password=password, Origin=foreign) == 403
        assert " 403 " in websocket_answer(f"{api_url}/events/in", foreign)
    for host in ("evil.example", f"evil.example:{urlsplit(api_url).port}"):
        assert status_of(flows, body={}, password=password, Host=host) == 400


def test_the_prefect_server_serves_its_own_pages_only(server: LocalServer) -> None:
    check_prefect_guards(server.api_url)


def test_a_version_of_postgresql_that_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "PG_VERSION").write_text("9.9\n")
    with pytest.raises(BadInput, match=r"PostgreSQL 9.9, which made .*/data, is not installed: there is no pg_ctl"):
        Cluster(tmp_path).binary("pg_ctl")


@pytest.mark.skipif(os.geteuid() != 0, reason="only where root starts PostgreSQL does another account run it")
def test_a_folder_that_the_database_could_not_reach_is_named(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    with pytest.raises(BadInput, match="lets only its owner in"):
        Cluster(tmp_path / "closed" / "postgres").make()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Stack]:
    with running_stack("postgres", PREFECT_WORKER_QUERY_SECONDS="1") as stack:
        yield stack


def state(stack: Stack, name: str) -> dict[str, object]:
    """Return what the servers' commands remember."""
    found: dict[str, object] = json.loads((Path(stack.environment["PREFECT_HOME"]) / f"batchlab-{name}.json").read_text())
    return found


def process(stack: Stack, name: str) -> psutil.Process:
    return psutil.Process(state(stack, name)["process"]["pid"])  # type: ignore[index]


NAMES = ("worker", "mlflow", "server", "postgres")


@pytest.mark.slow
def test_both_servers_ask_for_a_password_and_serve_their_own_pages_only(postgres: Stack) -> None:
    password = postgres.environment["PREFECT_API_AUTH_STRING"]
    check_prefect_guards(postgres.api_url, password)
    flows = f"{postgres.api_url}/flows/filter"
    assert [status_of(flows, body={}, password=wrong) for wrong in (None, "batchlab:wrong")] == [401, 401]
    mlflow = postgres.tracking_uri
    login = ":".join(postgres.environment[name] for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"))
    search, body = f"{mlflow}/api/2.0/mlflow/experiments/search", {"max_results": 1}
    assert [status_of(search, body=body, password=wrong) for wrong in (None, "batchlab:wrong", "admin:password")] == [401] * 3
    assert status_of(search, body=body, password=login) == status_of(mlflow, password=login) == 200
    assert status_of(search, body=body, password=login, Origin=mlflow) == 200
    assert status_of(search, body=body, password=login, Origin="http://evil.example") == 403
    for host in ("evil.example", "10.evil.example", f"192.168.evil.example:{urlsplit(mlflow).port}"):
        assert status_of(mlflow, password=login, Host=host) == 403


@pytest.mark.slow
def test_a_wrong_mlflow_password_is_bad_input(postgres: Stack) -> None:
    code = "from tasks import store; store.client()"
    for user, password in (("batchlab", "wrong"), ("", "")):
        done = postgres.run("python", "-c", code, MLFLOW_TRACKING_USERNAME=user, MLFLOW_TRACKING_PASSWORD=password)
        assert "BadInput: the MLflow server at http://127.0.0.1:" in done.stderr
        assert "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in done.stderr


@pytest.mark.slow
def test_commands_use_the_mlflow_server_of_their_own_store_unless_told_otherwise(postgres: Stack, tmp_path: Path) -> None:
    code = "from flows import local_stack; from tasks import store; local_stack.adopt(); print(store.tracking_uri())"
    unset = dict.fromkeys(("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"), "")

    def used(**environment: str) -> str:
        return postgres.run("python", "-c", code, **{**unset, **environment}).stdout.strip()

    assert used() == postgres.tracking_uri
    assert used(BATCHLAB_MLRUNS=str(tmp_path)) == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert used(MLFLOW_TRACKING_URI="http://127.0.0.1:9") == "http://127.0.0.1:9"


@pytest.mark.slow
def test_no_password_can_be_read_by_other_users(postgres: Stack) -> None:
    cluster = postgres.mlruns / "postgres"
    secrets = list(json.loads((cluster / "secrets.json").read_text()).values())
    assert len(set(secrets)) == 6
    lines = [" ".join(item.info["cmdline"] or ()) for item in psutil.process_iter(["cmdline"])]
    assert any("--backend-store-uri postgresql" in line for line in lines)
    files = [*Path(postgres.environment["PREFECT_HOME"]).glob("batchlab-*"), *cluster.glob("*")]
    readable = [path for path in files if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077]
    assert {path.name for path in readable} >= {"mlflow-users.ini", "batchlab-server.json"}
    shown = lines + [path.read_text() for path in readable] + [postgres.run("batchlab", "server", "status").stdout]
    assert not [text for text in shown for secret in secrets if secret in text]
    logs = [path for path in files if path.suffix == ".log"]
    assert len(logs) == 4
    assert not [path for path in logs for secret in secrets if secret in path.read_text()]


@pytest.mark.slow
def test_a_role_can_open_its_own_databases_only(postgres: Stack) -> None:
    place = {"host": "127.0.0.1", "port": state(postgres, "postgres")["port"], "passfile": str(postgres.mlruns / "postgres" / "pgpass")}
    for role, database in (("prefect", "prefect"), ("mlflow", "mlflow"), ("mlflow", "mlflow_users")):
        with psycopg.connect(user=role, dbname=database, **place) as connection:  # type: ignore[arg-type]
            tables = connection.execute("select count(*) from pg_tables where schemaname = 'public'").fetchone()
            assert tables is not None
            assert tables[0] > 2
    for role, database in (("prefect", "mlflow"), ("mlflow", "prefect")):
        with pytest.raises(psycopg.OperationalError, match="permission denied"):
            psycopg.connect(user=role, dbname=database, **place)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_the_comparison_deployment_runs_on_both(kind: str, request: pytest.FixtureRequest, store_template: Path) -> None:
    if kind == "postgres":
        check_comparison(request.getfixturevalue("postgres"))
    else:
        with running_stack(kind, template=store_template, PREFECT_WORKER_QUERY_SECONDS="1") as stack:
            check_comparison(stack)


def check_comparison(stack: Stack) -> None:
    """Hold a stack to running the comparison's deployment, all of it recorded."""
    overrides = json.dumps(["train.epochs=20", *SMALL])
    parameters = ["--param", "profile=lesson", "--param", f"overrides={overrides}"]
    done = stack.run("prefect", "deployment", "run", "comparison/default", *parameters, "--watch")
    assert done.returncode == 0, done.stdout + done.stderr
    experiment = stack.client().get_experiment_by_name("comparison-prices")
    assert experiment is not None
    runs = stack.client().search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    sizes = [f"mini_batch {rows}" for rows in (5, 10, 25, 50)]
    lines = {"full_batch", "accumulated", *sizes, "stochastic", "data_loader", "growing", "typed batch 32 adam 0.001"}
    assert {*lines, "typed batch 10 sgd 0.01"} <= {run.info.run_name for run in runs}
    place = "mlflow-artifacts:/" if stack.kind == "postgres" else f"{(stack.mlruns / 'artifacts').as_uri()}"
    assert all(run.info.artifact_uri.startswith(place) for run in runs)
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.info.run_name.startswith("prices: ")
    assert "verdict.html" in {item.path for item in stack.client().list_artifacts(parent.info.run_id)}
    (flow_run,) = stack.ask("/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}})
    assert parent.data.tags["prefect.flow_run_id"] == flow_run["id"]
    assert stack.ask("/work_pools/" + POOL)["status"] == "READY"


@pytest.mark.slow
def test_postgresql_is_a_store_without_a_server_too(postgres: Stack) -> None:
    database = f"postgresql://mlflow@127.0.0.1:{state(postgres, 'postgres')['port']}/mlflow"
    code = "from tasks import store; print(store.client().get_experiment(store.experiment_id('direct')).artifact_location)"
    done = postgres.run("python", "-c", code, MLFLOW_TRACKING_URI=database, PGPASSFILE=str(postgres.mlruns / "postgres" / "pgpass"))
    assert done.stdout.strip() == (postgres.mlruns / "artifacts").as_uri(), done.stderr
    assert postgres.client().get_experiment_by_name("direct") is not None


@pytest.mark.slow
def test_what_runs_is_found_and_what_was_killed_is_started_at_its_old_place(postgres: Stack) -> None:
    before = {name: state(postgres, name) for name in NAMES}
    name = postgres.client().get_experiment(postgres.client().create_experiment("before the kill")).name
    assert postgres.run("batchlab", "server", "start", "--postgres", "--worker").returncode == 0
    assert {name: state(postgres, name) for name in NAMES} == before
    plain = postgres.run("batchlab", "server", "start", PREFECT_API_URL="")
    assert "PostgreSQL, with a password" in plain.stdout
    for server in NAMES:
        process(postgres, server).kill()
    assert "no local Prefect server runs" in postgres.run("batchlab", "server", "status").stdout
    again = postgres.run("batchlab", "server", "start", "--postgres", "--worker")
    assert again.returncode == 0, again.stdout + again.stderr
    after = {name: state(postgres, name) for name in NAMES}
    assert [after[name].get("port") for name in NAMES] == [before[name].get("port") for name in NAMES]
    assert all(after[name]["process"] != before[name]["process"] for name in NAMES)
    assert postgres.client().get_experiment_by_name(name) is not None
    assert {item["name"] for item in postgres.ask("/work_pools/filter", {})} == {POOL, RAY_POOL}


@pytest.mark.slow
def test_everything_ends_in_its_order_and_the_data_outlive_it(postgres: Stack) -> None:
    processes = [process(postgres, name) for name in NAMES]
    family = [*processes, *(child for item in processes for child in item.children(recursive=True))]
    known = {item["name"] for item in postgres.ask("/deployments/filter", {})}
    stopped = postgres.run("batchlab", "server", "stop").stdout
    assert stopped.strip() == "worker stopped, MLflow server stopped, Prefect server stopped, database stopped"
    assert not [item for item in family if item.is_running() and item.status() != psutil.STATUS_ZOMBIE]
    log = (postgres.mlruns / "postgres" / "server.log").read_text()
    assert log.rstrip().endswith("database system is shut down")
    assert postgres.run("batchlab", "server", "start", "--postgres").returncode == 0
    postgres.environment.update(exported(postgres.run("batchlab", "server", "env").stdout))  # the ports may have been taken meanwhile
    assert {item["name"] for item in postgres.ask("/deployments/filter", {})} == known


@pytest.mark.slow
def test_a_server_on_sqlite_is_not_taken_for_one_on_postgresql(postgres: Stack, server: LocalServer, tmp_path: Path) -> None:
    mixed = postgres.run("batchlab", "server", "start", "--postgres", PREFECT_HOME=os.environ["PREFECT_HOME"])
    assert mixed.returncode == 1
    assert "a Prefect server on SQLite runs already" in mixed.stderr
