"""The files of Batchlab's own PostgreSQL: databases, roles and their passwords, made once under the store's folder."""

import json
import os
import pwd
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchlab.errors import BadInput
from flows.background import HOST, ServerError

OWNER = "batchlab"
DATABASES = {"prefect": ("prefect",), "mlflow": ("mlflow", "mlflow_users")}
"""The databases of each role; a role can open no other."""
SECRETS = (OWNER, *DATABASES, "prefect_api", "mlflow_api", "mlflow_forms")


@dataclass(frozen=True)
class Cluster:
    """One folder's database cluster, with the passwords of its roles and of the servers before it in files that only their owner reads."""

    folder: Path

    @property
    def data(self) -> Path:
        """The files of the databases."""
        return self.folder / "data"

    @property
    def passfile(self) -> Path:
        """The passwords as PostgreSQL's clients read them, where PGPASSFILE names it: so they are in no command line and no address."""
        return self.folder / "pgpass"

    def secret(self, name: str) -> str:
        """Return one of the passwords that were drawn when the cluster was made."""
        return str(json.loads((self.folder / "secrets.json").read_text())[name])

    def make(self) -> None:
        """Make the cluster unless it is there; a half-made one is made again."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _check_reachable(self.folder)
        if self.data.exists():
            return
        drawn = {name: secrets.token_hex(24) for name in SECRETS}
        _write_private(self.folder / "secrets.json", json.dumps(drawn))
        _write_private(self.passfile, "".join(f"{HOST}:*:*:{role}:{drawn[role]}\n" for role in (OWNER, *DATABASES)))
        draft, password = self.folder / "data.part", self.folder / "password.part"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        _write_private(password, drawn[OWNER])
        for path in (draft, password):
            hand_over(path)
        options = ["-U", OWNER, "-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8", "--no-locale"]
        self.run("initdb", "-D", str(draft), *options)
        password.unlink()
        draft.rename(self.data)

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs as the account that owns the cluster; raise ServerError with what it said when it fails."""
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
        command = [str(self.binary(program)), *arguments]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False, **account())
        if done.returncode:
            raise ServerError(f"`{program}` failed: {(done.stderr or done.stdout).strip()} (its log is {self.folder / 'server.log'})")

    def binary(self, program: str) -> Path:
        """Return one of PostgreSQL's programs, of the version that the cluster was made with; Debian keeps them beside the search path."""
        made_with = (self.data / "PG_VERSION").read_text().strip() if self.data.exists() else "*"
        kept = sorted(Path("/usr/lib/postgresql").glob(f"{made_with}/bin/{program}"), key=lambda path: float(path.parts[-3]))
        found = shutil.which(program) or (kept[-1] if kept else None)
        if found is None:
            version = "PostgreSQL" if made_with == "*" else f"PostgreSQL {made_with}, which made {self.data},"
            raise BadInput(f"{version} is not installed: there is no {program}; `make postgres` installs it on Debian and Ubuntu.")
        return Path(found)


def account() -> dict[str, Any]:
    """Return whom PostgreSQL runs as: it refuses root, so nobody where root starts it."""
    if os.geteuid() != 0:
        return {}
    return {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}


def hand_over(path: Path) -> None:
    """Make the account that PostgreSQL runs as the owner of a file or folder."""
    if whom := account():
        shutil.chown(path, whom["user"], whom["group"])


def _check_reachable(folder: Path) -> None:
    closed = [parent for parent in (folder, *folder.parents) if not parent.stat().st_mode & 0o001]
    if os.geteuid() == 0 and closed:
        raise BadInput(
            f"the database runs as 'nobody', because PostgreSQL refuses root, and '{closed[-1]}' lets only its owner in; "
            f"`chmod o+x` it, name a store elsewhere with BATCHLAB_MLRUNS, or be another user than root."
        )


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner ever could read."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
