"""The registered model: its versions, who is champion, challenger and previous, and the switch between them that only one can make."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from batchlab.errors import BadInput, UnknownName
from batchlab.files.naming import file_name
from batchlab.retraining import saved
from batchlab.retraining.fresh import Mark
from batchlab.retraining.saved import Lineage
from tasks import model_files, store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

    from batchlab.retraining.judging import Registered

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
MARK = "batchlab.mark"
TABLE = "table_digest"
"""A tag of every version that a retraining made."""
COMPARISON = "comparison_run"
"""A tag of those that a comparison was made for: its run."""
FILES = "batchlab.files"
"""A tag of every version that was registered here: the digest of its files."""
LATEST = 1000
"""So many versions at most are looked through for one that a retraining made."""


@dataclass(frozen=True)
class Version:
    """One version of a registered model, and the MLflow run that trained it."""

    name: str
    number: int
    run_id: str

    @property
    def uri(self) -> str:
        """The address that MLflow loads it by."""
        return f"models:/{self.name}/{self.number}"


class Superseded(Exception):
    """Another version became champion since the decision was made: it must be made again."""


def names() -> list[str]:
    """Return the names of all registered models."""
    page = store.client().search_registered_models()
    found = [model.name for model in page]
    while page.token:
        page = store.client().search_registered_models(page_token=page.token)
        found += [model.name for model in page]
    return sorted(found)


def version_of(name: str | None, which: str = CHAMPION) -> Version:
    """Return a version by its number or alias; without a name, of the only registered model.

    Raises BadInput that says which models, versions and aliases there are.
    """
    chosen = chosen_name(name)
    found = _looked_up(chosen, which)
    if found is not None:
        return found
    numbers = ", ".join(str(version.number) for version in versions(chosen)) or "none"
    aliases = ", ".join(f"{alias} (version {number})" for alias, number in aliases_of(chosen).items()) or "none"
    raise BadInput(f"model '{chosen}' has no version '{which}'; its versions are {numbers}, its aliases {aliases}.")


def chosen_name(name: str | None) -> str:
    """Return the name, or without one that of the only registered model; raises BadInput where there is none or several."""
    if name is not None and _model(name) is not None:
        return name
    known = names()
    if name is None and not known:
        raise BadInput(f"no model is registered in {store.tracking_uri()} yet; `batchlab retrain` makes the first champion.")
    if name is None and len(known) > 1:
        raise BadInput(f"which model? {len(known)} are registered ({', '.join(known)}); name one with --model.")
    if name is not None and name not in known:
        raise UnknownName("model", name, known)
    return name or known[0]


def champion_of(name: str) -> Version | None:
    """Return the champion; None for a model that has none yet."""
    return _looked_up(name, CHAMPION)


def versions(name: str) -> list[Version]:
    """Return every version of the model, oldest first; none for a model that is not registered."""
    found = store.client().search_model_versions(f"name='{_quoted(name)}'")
    return sorted((_version(item) for item in found), key=lambda version: version.number)


def aliases_of(name: str) -> dict[str, int]:
    """Return which version each alias names."""
    return {alias: int(number) for alias, number in store.client().get_registered_model(name).aliases.items()}


def registered(name: str, model_uri: str, run_id: str, tags: dict[str, str]) -> Version:
    """Register a logged model as the newest version and the challenger, and return it."""
    client = store.client()
    with exclusive(name):
        if _model(name) is None:
            client.create_registered_model(name, tags={"batchlab.kind": "champion"}, description="Kept retrained by Batchlab.")
        model_id = model_uri.removeprefix("models:/")
        held = {FILES: model_files.digest_of(model_files.downloaded(model_uri, run_id, store.tracking_uri()))}
        made = _version(client.create_model_version(name, model_uri, run_id, tags=tags | held, model_id=model_id))
        client.set_registered_model_alias(name, CHALLENGER, str(made.number))
    return made


def mark_of(name: str) -> Mark | None:
    """Return how far the data went when the last decision was made; None before the first."""
    model = _model(name)
    text = None if model is None else model.tags.get(MARK)
    return None if text is None else Mark.model_validate_json(text)


def set_mark(name: str, mark: Mark) -> None:
    """Note how far the data went that a decision was made on, unless a later one has been made meanwhile."""
    with exclusive(name):
        before = mark_of(name)
        if before is None or mark.last >= before.last:
            store.client().set_registered_model_tag(name, MARK, mark.model_dump_json())


def opened(version: Version) -> "Registered":
    """Return the version as it is served, with what it needs to be trained on; raises BadInput for one that retraining did not make."""
    from batchlab.retraining.judging import Registered
    from batchlab.scoring.shipping import GRAPH
    from batchlab.serving import graphs

    folder = downloaded(version)
    size_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return Registered(_saved(version), graphs.opened(folder / model_files.EXPORTED / GRAPH), version.number, size_bytes)


def runnable(version: Version) -> bool:
    """Whether the version's files are those that were registered here: the file that they carry may be run."""
    tags = store.client().get_model_version(version.name, str(version.number)).tags
    return tags.get(FILES) == model_files.digest_of(downloaded(version))


def lineage_of(version: Version) -> Lineage:
    """Return where the version comes from; raises BadInput for one that retraining did not make."""
    return _saved(version).lineage


def _saved(version: Version) -> saved.Saved:
    try:
        return saved.opened(downloaded(version) / model_files.EXPORTED)
    except BadInput as error:
        raise BadInput(f"version {version.number} of '{version.name}': {error}") from error


def check_own(name: str) -> None:
    """Raise BadInput where the name is that of a model which somebody else made: its versions are none that a retraining made."""
    found = _latest(name)
    if found and not any(TABLE in item.tags for item in found):
        raise BadInput(
            f"a model '{name}' is registered already, and none of its {len(found)} versions was made by `batchlab retrain`; choose another "
            "name (--model)."
        )


def recommended(name: str) -> Lineage | None:
    """Return the lineage of the newest version that a comparison was made for and whose files are there, promoted or refused; where none
    bears that tag, of the newest that a retraining made. None where there is no such version."""
    made = [item for item in _latest(name) if TABLE in item.tags]
    for item in sorted(made, key=lambda item: COMPARISON not in item.tags):
        with suppress(BadInput):
            return lineage_of(_version(item))
    return None


def _latest(name: str) -> "list[ModelVersion]":
    query = f"name='{_quoted(name)}'"
    return list(store.client().search_model_versions(query, max_results=LATEST, order_by=["version_number DESC"]))


def downloaded(version: Version) -> Path:
    """Return a folder with the version's files; raises BadInput where they are gone."""
    return model_files.downloaded(version.uri, version.run_id, store.tracking_uri())


def promoted(challenger: Version, instead_of: Version | None) -> None:
    """Make the challenger champion, if `instead_of` still is (None: if there is none yet); raises Superseded otherwise.

    `previous` is written first and `champion` last, each in one transaction of the store: a kill in between changes no champion.
    """
    client, name = store.client(), challenger.name
    with exclusive(name):
        now = champion_of(name)
        if now != instead_of:
            raise Superseded(f"version {now.number if now else 'none'} of '{name}' is champion, no longer {_said(instead_of)}")
        if now is not None and now != challenger:
            client.set_registered_model_alias(name, PREVIOUS, str(now.number))
        client.set_registered_model_alias(name, CHAMPION, str(challenger.number))
        if aliases_of(name).get(CHALLENGER) == challenger.number:
            client.delete_registered_model_alias(name, CHALLENGER)


@contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Hold the model's lock, which the operating system lets go of when its holder dies."""
    folder = store.folder() / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{file_name(name)}.lock"):  # two names may share one, which only makes them wait for each other
        yield


def _looked_up(name: str, which: str) -> Version | None:
    from mlflow.exceptions import MlflowException

    client = store.client()
    try:
        found = client.get_model_version(name, which) if which.isdigit() else client.get_model_version_by_alias(name, which)
    except MlflowException as error:
        if error.error_code in model_files.NOT_THERE:
            return None
        raise
    return _version(found)


def _model(name: str) -> "RegisteredModel | None":
    from mlflow.exceptions import MlflowException

    try:
        return store.client().get_registered_model(name)
    except MlflowException as error:
        if error.error_code in model_files.NOT_THERE:
            return None
        raise


def _version(found: object) -> Version:
    return Version(str(found.name), int(found.version), str(found.run_id or ""))  # type: ignore[attr-defined]


def _said(version: Version | None) -> str:
    return "none" if version is None else f"version {version.number}"


def _quoted(name: str) -> str:
    return name.replace("'", "''")
