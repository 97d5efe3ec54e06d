"""What a retraining leaves behind: its record in MLflow, its report in Prefect, its event, and the value that the flow returns."""

from datetime import UTC, datetime

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from batchlab.experiment import Experiment
from batchlab.report.drift_table import Shapes, shapes, shown_drift
from batchlab.report.retraining import decision_table, report
from batchlab.report.retraining_page import Background, retraining_page
from batchlab.results import Comparison
from batchlab.retraining.drift import MADE_BY_CHAMPION
from batchlab.retraining.fresh import reference_rows, rows_after
from batchlab.retraining.outcome import Retraining
from batchlab.retraining.promotion import Promotion
from batchlab.retraining.saved import Lineage
from batchlab.retraining.staleness import rule_text
from batchlab.rows.split import Split
from batchlab.table import PackedTable
from tasks import promotion as deciding
from tasks import registry, store
from tasks.history import Decision, decisions
from tasks.reporting import prefect_link
from tasks.retraining import RetrainingRun, Trained, version_in
from tasks.watching import Study

NOTE, PAGE = "mlflow.note.content", "retraining.html"


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
        remarks=(*trained.remarks, *_beaten(comparison)),
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
    create_link_artifact(links["MLflow run"], link_text="The retraining in MLflow (start its UI with `batchlab ui`)", key="retraining-run")
    deciding.told(run, promotion, links["MLflow run"])
    # Last: what was decided stands and is told, whatever becomes of its page.
    store.client().log_text(run.run_id, retraining_page(result, _background(run, trained, result), links), PAGE)
    create_link_artifact(
        links["Report page"], link_text="The retraining's page (start the MLflow UI with `batchlab ui`)", key="retraining-page"
    )
    return result


def _beaten(comparison: Comparison | None) -> list[str]:
    """Return what the comparison says of a yardstick that does better than its best setting: a champion is worth no more."""
    if comparison is None or not any(item.beats for item in comparison.verdict.yardsticks):
        return []
    return [comparison.verdict.text.splitlines()[1]]


def _links(run: RetrainingRun, trained: Trained) -> dict[str, str]:
    base = f"{store.ui_url()}/#"
    links = {
        "MLflow run": f"{base}/experiments/{run.experiment_id}/runs/{run.run_id}?workflowType=machine_learning",
        "Report page": f"{base}/experiments/{run.experiment_id}/runs/{run.run_id}/artifacts/{PAGE}?workflowType=machine_learning",
        "Registered model": f"{base}/models/{run.study.standing.name}?workflowType=machine_learning",
    }
    if link := prefect_link():
        links["Prefect flow run"] = link
    return links


def _background(run: RetrainingRun, trained: Trained, result: Retraining) -> Background:
    """Return what the page says beside the decision."""
    study = run.study
    table = PackedTable.open(study.table)
    assert study.split is not None
    times = table.side_column("time")
    return Background(
        unit=Experiment(study.profile, table, Split.open(study.split)).loss_unit_name,
        stale_rule=rule_text(study.profile.retraining.stale),
        lineages=_lineages(run, trained, result),
        decisions=[*reversed(decisions(study.standing.name)), _decision(run, result)],
        shapes=_shapes(table, study),
        dated=times is not None and times.dtype.kind == "i",
    )


def _lineages(run: RetrainingRun, trained: Trained, result: Retraining) -> dict[str, Lineage]:
    """Return where both sides come from; the champion is the one that the challenger was judged against."""
    versions = {"challenger": version_in(run, trained)}
    if result.promotion is not None and result.promotion.champion is not None:
        versions = {"champion": registry.version_of(run.study.standing.name, str(result.promotion.champion)), **versions}
    return {f"{side}, version {version.number}": registry.lineage_of(version) for side, version in versions.items()}


def _decision(run: RetrainingRun, result: Retraining) -> Decision:
    """Return the decision just made as the history will tell it once its run has ended."""
    promotion = result.promotion
    assert promotion is not None
    return Decision(
        when=datetime.now(UTC),
        decision=promotion.decision,
        version=promotion.challenger,
        champion=result.champion,
        champion_loss=promotion.champion_loss,
        challenger_loss=promotion.challenger_loss,
        reason=promotion.text,
        run_id=run.run_id,
    )


def _shapes(table: PackedTable, study: Study) -> dict[str, Shapes]:
    """Return how the values of the columns that changed most were and are distributed."""
    if study.drift is None or study.standing.mark is None:
        return {}
    fresh = rows_after(table, study.standing.mark)
    before = reference_rows(table, study.standing.mark, 10 * len(fresh))
    return shapes(table, before, fresh, [item.name for item in shown_drift(study.drift) if item.kind not in MADE_BY_CHAMPION])
