"""Where MLflow's store is: what MLFLOW_TRACKING_URI names, refused early when it cannot be used, never with a password in it."""

import os
import urllib.error
import urllib.request
from pathlib import Path
from ssl import SSLError
from urllib.parse import parse_qs, urlsplit

from batchlab.errors import BadInput

VARIABLE = "MLFLOW_TRACKING_URI"
SERVER, POSTGRESQL, SQLITE = ("http", "https"), ("postgresql", "postgres", "postgresql+psycopg"), "sqlite"
ANSWER_SECONDS = 5


def configured() -> str | None:
    """Return the store's address that the user configured, as MLflow takes it; None to use the folder's own database.

    Raises BadInput for kinds of store that cannot be used, and for an address with a password in it.
    """
    given = os.environ.get(VARIABLE, "").strip()
    if not given:
        return None
    scheme, separator, rest = given.partition("://")
    if scheme == SQLITE and separator:
        return f"sqlite:///{_file(rest)}"
    if not separator or scheme not in (*SERVER, *POSTGRESQL):
        raise BadInput(
            f"{VARIABLE} is '{given.rpartition('@')[2]}', which is no store that can be used: MLflow has given up folders of files; "
            "use http://, https://, postgresql:// or sqlite:///, or unset it for the database under mlruns/."
        )
    _refuse_credentials(given, scheme)
    return f"postgresql+psycopg://{rest}" if scheme in POSTGRESQL else given.rstrip("/")


def is_server(address: str) -> bool:
    """Whether an MLflow server stands between this process and the database."""
    return urlsplit(address).scheme in SERVER


def check_answers(address: str) -> None:
    """Raise BadInput unless somebody answers at the address of a server or of PostgreSQL within five seconds.

    Without this check MLflow would try for minutes, at every call.
    """
    try:
        if is_server(address):
            _ask_server(address)
        elif not address.startswith(SQLITE):
            _ask_postgresql(address)
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise BadInput(f"{VARIABLE} is {address}, but nothing answers there ({reason}); start the server, or unset it.") from error


def check_admits(address: str) -> None:
    """Raise BadInput unless the MLflow server lets this user in, asked as its client asks: with names, tokens and certificates."""
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    question = {"endpoint": "/api/2.0/mlflow/experiments/search", "method": "POST", "json": {"max_results": 1}}
    try:
        status = http_request(get_default_host_creds(address), **question, max_retries=1, timeout=30, raise_on_status=False).status_code
    except MlflowException as error:
        raise BadInput(f"the MLflow server at {address} cannot be asked: {error.message}") from error
    if status in (401, 403):
        user = os.environ.get("MLFLOW_TRACKING_USERNAME")
        raise BadInput(
            f"the MLflow server at {address} refuses {f'user {user!r}' if user else 'a user without a name'} (status {status}); "
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to what it takes."
        )
    if status != 200:
        raise BadInput(f"what answers at {VARIABLE}={address} is no MLflow server: its status is {status} where 200 is expected.")


def _file(rest: str) -> Path:
    """Return the database's file from what follows `sqlite://`."""
    path = rest.partition("?")[0].removeprefix("/")
    if not path or not rest.startswith("/"):
        raise BadInput(f"{VARIABLE} is 'sqlite://{rest}', which names no file; write sqlite:///FILE, or sqlite:////FOLDER/FILE.")
    return Path(path).resolve()


def _refuse_credentials(given: str, scheme: str) -> None:
    parts = urlsplit(given)
    if parts.password is not None or "password" in parse_qs(parts.query) or (scheme in SERVER and parts.username is not None):
        variables = (
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" if scheme in SERVER else "PGPASSWORD, or a file that PGPASSFILE names"
        )
        raise BadInput(f"{VARIABLE} has a password in it, which would be shown in logs and pages; take it out and use {variables}.")


def _ask_server(address: str) -> None:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=ANSWER_SECONDS):
            pass
    except urllib.error.HTTPError:
        pass  # somebody answers; whether it is MLflow, its own client will find out
    except urllib.error.URLError as error:
        if not isinstance(error.reason, SSLError):  # MLflow's client has its own settings for certificates
            raise


def _ask_postgresql(address: str) -> None:
    import psycopg

    try:
        psycopg.connect(address.replace("postgresql+psycopg", "postgresql", 1), connect_timeout=ANSWER_SECONDS).close()
    except psycopg.Error as error:
        said = " ".join(str(error).split())
        raise BadInput(f"{VARIABLE} is {address}, but PostgreSQL cannot be used there: {said}.") from None
