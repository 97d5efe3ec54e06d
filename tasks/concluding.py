"""What a retraining leaves behind: its record in MLflow, its report in Prefect, its event, and the value that the flow returns."""

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from batchlab.report.retraining import decision_table, report
from batchlab.results import Comparison
from batchlab.retraining.outcome import Mode, Retraining
from batchlab.retraining.promotion import Promotion
from batchlab.retraining.staleness import rule_text
from tasks import promotion as deciding
from tasks import registry, store
from tasks.reporting import mlflow_ui, prefect_link
from tasks.retraining import RetrainingRun, Trained
from tasks.watching import Standing, Study

NOTE = "mlflow.note.content"


@task(cache_policy=NO_CACHE)
def rest(found: Standing | Study, mode: Mode) -> Retraining:
    """Say why nothing was trained."""
    standing = found.standing if isinstance(found, Study) else found
    text = found.quiet or ""
    result = Retraining(
        outcome="waiting" if text.startswith("waiting") else "nothing_new",
        text=f"{text[0].upper()}{text[1:]}.",
        name=standing.name,
        mode=mode,
        champion=standing.champion,
        fresh_rows=found.fresh_rows if isinstance(found, Study) else 0,
    )
    create_markdown_artifact(report(result, {}, ""), key="retraining-report", description="What was done, and why")
    return result


@task(cache_policy=NO_CACHE)
def conclude(run: RetrainingRun, trained: Trained, promotion: Promotion, comparison: Comparison | None, train_rows: int) -> Retraining:
    """Write the decision with its evidence to MLflow and Prefect, tell of it, and return the whole result."""
    study, champion = run.study, registry.champion_of(run.study.standing.name)
    result = Retraining(
        outcome=promotion.decision,
        text=promotion.text,
        name=study.standing.name,
        mode=study.mode,
        champion=None if champion is None else champion.number,
        fresh_rows=study.fresh_rows,
        train_rows=train_rows,
        start=trained.start,
        stale=study.stale,
        remarks=trained.remarks,
        drift=study.drift,
        promotion=promotion,
        mlflow_run_id=run.run_id,
        comparison_run_id=None if comparison is None else trained.comparison_run_id,
    )
    links = _links(run, trained)
    text = report(result, links, rule_text(study.profile.retraining.stale))
    store.client().log_text(run.run_id, text, "report.md")
    store.client().set_tag(run.run_id, NOTE, text)
    deciding.record(run, result, promotion)
    create_markdown_artifact(text, key="retraining-report", description="What was decided, and why")
    create_table_artifact(decision_table(promotion), key="retraining-gate", description="Every condition of the gate")
    create_link_artifact(links["MLflow run"], link_text="The retraining in MLflow (start its UI with `batchlab ui`)", key="mlflow-run")
    deciding.told(run, promotion, links["MLflow run"])
    return result


def _links(run: RetrainingRun, trained: Trained) -> dict[str, str]:
    base = f"{mlflow_ui()}/#"
    links = {
        "MLflow run": f"{base}/experiments/{run.experiment_id}/runs/{run.run_id}?workflowType=machine_learning",
        "Registered model": f"{base}/models/{run.study.standing.name}?workflowType=machine_learning",
    }
    if link := prefect_link():
        links["Prefect flow run"] = link
    return links
