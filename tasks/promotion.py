"""Tasks that decide: champion and challenger on the same rows, the gate, and the switch that only one can make."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from batchlab.retraining.challenger import Challenger
from batchlab.retraining.judging import judged
from batchlab.retraining.outcome import Retraining
from batchlab.retraining.promotion import Promotion
from tasks import events, registry, store
from tasks.registry import Superseded, Version
from tasks.retraining import RetrainingRun, Trained, version_in
from tasks.tracking import log_metrics

MOST_ROUNDS = 10
"""So often a challenger is judged anew because another one became champion meanwhile."""


@task(cache_policy=NO_CACHE)
def decide(run: RetrainingRun, challenger: Challenger, trained: Trained) -> Promotion:
    """Judge the challenger against whoever is champion, and make it champion if it wins; judge again when another one was quicker."""
    name, version = run.study.standing.name, version_in(run, trained)
    opened, mark = registry.opened(version), run.study.standing.mark if run.study.standing.champion is not None else None
    for _ in range(MOST_ROUNDS):
        champion = registry.champion_of(name)
        held = None if champion is None else registry.opened(champion)
        promotion = judged(challenger, opened, held, run.study.drift, run.study.mode == "update", mark)
        try:
            if promotion.wins:
                registry.promoted(version, champion)
            _note(run, promotion, version if promotion.wins else champion)
            registry.set_mark(name, run.study.mark)
            return promotion
        except Superseded as news:
            store.client().set_tag(run.run_id, "batchlab.judged_again", str(news))
    raise RuntimeError(
        f"another version of '{name}' became champion {MOST_ROUNDS} times while version {version.number} was judged; try again."
    )


def _note(run: RetrainingRun, promotion: Promotion, champion: Version | None) -> None:
    """Write into the run what was decided, before anything else can fail: it is part of the history from now on."""
    tags = {"decision": promotion.decision, "reason": promotion.text[:4000]}
    for key, value in (tags | {"batchlab.champion": "None" if champion is None else str(champion.number)}).items():
        store.client().set_tag(run.run_id, key, value)


def told(run: RetrainingRun, promotion: Promotion, url: str) -> None:
    """Emit what was decided, for automations and people."""
    name = run.study.standing.name
    event = events.CHAMPION_CHANGED if promotion.wins else events.GATE_REFUSED
    facts = {"champion": promotion.champion, "challenger": promotion.challenger, "run": run.run_id, "url": url}
    events.tell_of_model(event, name, f"{name} version {promotion.challenger}: {promotion.text}", **facts)


def record(run: RetrainingRun, result: Retraining, promotion: Promotion) -> None:
    """Write the decision with all of its evidence into the run, whatever it was."""
    client = store.client()
    numbers = ("improvement", "champion_loss", "challenger_loss", "constant_loss", "minimum_effect", "seed_scatter", "holdout_rows")
    log_metrics(run.run_id, {name: getattr(promotion, name) for name in numbers})
    client.log_text(run.run_id, promotion.model_dump_json(indent=2), "promotion.json")
    client.log_text(run.run_id, result.model_dump_json(indent=2), "retraining.json")
    if promotion.challenger is not None:
        for key, value in {"decision": promotion.decision, "reason": promotion.text[:4000]}.items():
            client.set_model_version_tag(run.study.standing.name, str(promotion.challenger), key, value)
        client.update_model_version(run.study.standing.name, str(promotion.challenger), promotion.text)
