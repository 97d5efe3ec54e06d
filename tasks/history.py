"""Every decision on a registered model, as its runs tell it; and those that people make: rollback and promotion by hand."""

import getpass
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from batchlab.errors import BadInput
from batchlab.records import Result
from batchlab.retraining.promotion import Promotion
from tasks import registry, store
from tasks.registry import CHALLENGER, CHAMPION, PREVIOUS, Superseded, Version

if TYPE_CHECKING:
    from batchlab.retraining.saved import Lineage

PROMOTING = ("first", "promoted", "rollback", "by_hand")


class Decision(Result):
    """One decision: when, what, on which version, and why; the mean holdout losses that it rests on where it was the gate's."""

    when: datetime
    decision: str
    version: int | None
    champion: int | None
    champion_loss: float | None
    challenger_loss: float | None
    reason: str
    run_id: str


def experiment_name(name: str) -> str:
    """Return the MLflow experiment that holds the decisions on a model."""
    return f"retraining-{name}"


def decisions(name: str | None, most: int = 50, version: int | None = None) -> list[Decision]:
    """Return the latest decisions (on one `version` of it), the latest first; raises BadInput for a model that is not registered.

    A run that failed or was killed after its decision, at its report say, has decided all the same.
    """
    client, chosen = store.client(), registry.chosen_name(name)
    experiment = client.get_experiment_by_name(experiment_name(chosen))
    if experiment is None:
        return []
    query = "tags.decision != '' and attributes.status != 'RUNNING'"
    if version is not None:
        query += f" and tags.`batchlab.version` = '{version}'"
    runs = client.search_runs([experiment.experiment_id], query, max_results=most, order_by=["attributes.start_time DESC"])
    return [_decision(run) for run in runs]


def _decision(run: object) -> Decision:
    info, tags, metrics = run.info, run.data.tags, run.data.metrics  # type: ignore[attr-defined]
    return Decision(
        when=datetime.fromtimestamp(info.start_time / 1000, UTC),
        decision=tags["decision"],
        version=_number(tags.get("batchlab.version")),
        champion=_number(tags.get("batchlab.champion")),
        champion_loss=metrics.get("champion_loss"),
        challenger_loss=metrics.get("challenger_loss"),
        reason=tags.get("reason", ""),
        run_id=info.run_id,
    )


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def shown(name: str | None) -> dict[str, str]:
    """Return what there is to know of a model's champion, by what it is called."""
    champion = registry.version_of(name)
    aliases, lineage = registry.aliases_of(champion.name), registry.lineage_of(champion)
    latest = next((item for item in decisions(champion.name, version=champion.number) if item.decision in PROMOTING), None)
    strategy, train = next(iter(lineage.recipe["strategies"].items())), lineage.recipe["train"]
    judged = "–" if latest is None or latest.challenger_loss is None else f"{latest.challenger_loss:,.5g} on the rows it was judged by"
    facts = {
        "model": champion.name,
        "champion": f"version {champion.number}{_kind(lineage)}",
        "loss": judged,
        "since": "–" if latest is None else f"{latest.when:%Y-%m-%d %H:%M} UTC ({latest.decision}): {latest.reason}",
        "trained with": f"{strategy[0]} {strategy[1].get('batch_rows', '')}".strip() + f", learning rate {train['learning_rate'][0]:.4g}",
        "started from": lineage.start,
        "data": f"{lineage.mark.rows:,} rows, table {lineage.mark.digest}",
        "previous": f"version {aliases[PREVIOUS]}" if PREVIOUS in aliases else "none",
        "challenger": f"version {aliases[CHALLENGER]}" if CHALLENGER in aliases else "none",
        "MLflow run": champion.run_id,
        "load it as": f"models:/{champion.name}@{CHAMPION}",
    }
    return facts


def _kind(lineage: "Lineage") -> str:
    """Say what kind of model it is; nothing where it was made before that was kept."""
    kind = lineage.asked.get("model", {}).get("kind")
    return "" if kind is None else f", a model of kind {kind}"


def rolled_back(name: str | None, reason: str) -> str:
    """Make the previous champion champion again, and say so; raises BadInput where there is none."""
    champion = registry.version_of(name)
    back = _previous(champion)
    if back is None:
        raise BadInput(
            f"no champion before version {champion.number} of '{champion.name}' is still there, so there is nothing to go back to; "
            "`batchlab champion promote VERSION` takes any other version."
        )
    return _switched(champion, back, "rollback", reason)


def _previous(champion: Version) -> Version | None:
    """Return the champion before this one: the alias, or what the history says where a kill left the alias on the champion itself, or that
    version was deleted."""
    there = {version.number: version for version in registry.versions(champion.name) if version.number != champion.number}
    alias = registry.aliases_of(champion.name).get(PREVIOUS)
    made = [item.version for item in decisions(champion.name, 1000) if item.decision in PROMOTING]
    return next((there[number] for number in (alias, *made) if number in there), None)


def promoted_by_hand(name: str | None, number: int, reason: str) -> str:
    """Make a version champion whatever the gate said, and say so; raises BadInput for one that does not exist or cannot be retrained."""
    chosen = registry.chosen_name(name)
    version, champion = registry.version_of(chosen, str(number)), registry.champion_of(chosen)
    registry.lineage_of(version)
    if version == champion:
        raise BadInput(f"version {number} of '{chosen}' is champion already.")
    return _switched(champion, version, "by_hand", reason)


def _switched(champion: Version | None, version: Version, decision: str, reason: str) -> str:
    """Make the version champion instead of this one, record it as a decision, and tell of it."""
    from tasks import events  # with Prefect and torch, which a look at the history does without
    from tasks.tracking import log_metrics, recorded_run

    before = "none" if champion is None else f"version {champion.number}"
    text = f"Version {version.number} of '{version.name}' is champion now, before it was {before}: {reason}"
    tags = {"batchlab.kind": "retraining", "batchlab.model": version.name, "batchlab.version": str(version.number)}
    tags |= {"batchlab.champion": str(version.number), "reason": reason, "batchlab.by": _user()}
    with recorded_run(store.experiment_id(experiment_name(version.name)), f"{decision} to version {version.number}", tags) as run_id:
        try:
            registry.promoted(version, champion)
        except Superseded as news:
            raise BadInput(f"nothing was changed, because meanwhile {news}; look again with `batchlab champion show`.") from news
        store.client().set_tag(run_id, "decision", decision)
        log_metrics(run_id, {"champion_before": None if champion is None else float(champion.number)})
    events.tell_of_model(events.CHAMPION_CHANGED, version.name, text, champion=None if champion is None else champion.number, run=run_id)
    return text


def _user() -> str:
    """Return who decides; the number of a user without a name, as containers have them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def evidence(run_id: str) -> Promotion:
    """Return the gate's whole decision that a run holds."""
    import mlflow

    return Promotion.model_validate_json(mlflow.artifacts.load_text(f"runs:/{run_id}/promotion.json"))
