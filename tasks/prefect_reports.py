"""What a comparison leaves in Prefect: its report, its table and links as artifacts of the flow run, each once."""

import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import TYPE_CHECKING
from uuid import UUID

import pandas as pd
from prefect.artifacts import Artifact, LinkArtifact, MarkdownArtifact, TableArtifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Completed

from batchlab.report.markdown import report
from batchlab.report.tables import table
from batchlab.results import Comparison
from tasks import address
from tasks.provenance import owner
from tasks.spool import Told
from tasks.unfinished import ComparisonRun

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


def answers(comparison: ComparisonRun) -> bool:
    """Whether the Prefect server of the comparison's flow run answers within seconds; one of this process alone always does."""
    if comparison.prefect is None:
        return True
    try:
        with urllib.request.urlopen(f"{comparison.prefect}/health", timeout=address.ANSWER_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True  # somebody answers: behind a password, for one
    except OSError:
        return False


def tell(told: Told, title: str, links: Mapping[str, str]) -> None:
    """Make the artifacts that are not there yet; of a flow run whose process could not tell its end, also that it completed.

    Raises ConnectionError where the server does not answer.
    """
    comparison, later = told.comparison, told.owner != owner()
    if comparison.flow_run_id is None or told.result is None or (later and comparison.prefect is None):
        return  # a server of the process alone is gone with it
    if not answers(comparison):
        raise ConnectionError(f"nothing answers at {comparison.prefect}")
    flow_run = UUID(comparison.flow_run_id)
    own = {} if comparison.prefect is None else {PREFECT_API_URL: comparison.prefect, PREFECT_CLIENT_MAX_RETRIES: 1}
    with temporary_settings(own), get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run])))
        there = {item.key for item in found}
        for item in _artifacts(told.result, title, links):
            if item.key not in there:
                data = item.format(_sync=True)  # type: ignore[call-arg]
                made = ArtifactCreate(type=item.type, key=item.key, description=item.description, flow_run_id=flow_run, data=data)
                client.create_artifact(made)
        if later and comparison.of_its_own:
            _complete(client, flow_run)


def _complete(client: "SyncPrefectClient", flow_run_id: UUID) -> None:
    """Say that a comparison's flow run completed, once all that it told is recorded; one that the server has forgotten is left alone."""
    try:
        state = client.read_flow_run(flow_run_id).state
    except ObjectNotFound:
        return
    if state is None or not state.is_completed():
        client.set_flow_run_state(flow_run_id, Completed(message="its verdict was told; recorded later"), force=True)


def _artifacts(result: Comparison, title: str, links: Mapping[str, str]) -> list[Artifact]:
    headings, rows = table(result.comparison.task, result.strategies)
    lines = pd.DataFrame(rows, columns=headings).to_dict("records")
    run, page = links["MLflow run"], links["Report page"]
    return [
        MarkdownArtifact(key="comparison-report", markdown=report(title, result, links), description="The verdict and its table"),
        TableArtifact(key="comparison-table", table=lines, description="One row a setting"),
        LinkArtifact(key="mlflow-run", link=run, link_text="The comparison in MLflow (start its UI with `batchlab ui`)"),
        LinkArtifact(key="report-page", link=page, link_text="The verdict's page (start the MLflow UI with `batchlab ui`)"),
    ]
