"""Flow runs whose process is gone: a kill leaves them open in Prefect, where they hold the slot that the next one needs."""

from contextlib import suppress
from datetime import datetime
from typing import Any

import psutil
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelled, Crashed

from tasks import tracking
from tasks.provenance import OWNER, owner, owner_is_gone

OPEN = ["PENDING", "RUNNING", "CANCELLING"]


def claim(flow: Any, flow_run: FlowRun, state: Any) -> None:
    """Note in a flow run that begins, as its hook, which process it runs in: whether that is still at work can then be told."""
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(flow_run.id, {OWNER: owner()})


def end_abandoned_runs(unclaimed_before: datetime | None = None) -> None:
    """End the runs that are open but whose process on this machine is gone: in Prefect, which gives their slots back, and in MLflow."""
    end_flow_runs(unclaimed_before)
    tracking.end_abandoned()


def end_flow_runs(unclaimed_before: datetime | None = None) -> None:
    """End the flow runs that are open but whose process on this machine is gone.

    A flow run that no process has claimed yet is its worker's; `unclaimed_before` is when the last worker, or its server, was seen to be
    gone: what is older and has no process never gets one. Without it such runs are left alone.
    """
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate({"state": {"type": {"any_": OPEN}}}), limit=200)
        at_work = _flow_runs_at_work()  # looked up after the flow runs: one that has begun since is not among those
        for run in found:
            if _is_abandoned(run, at_work, unclaimed_before):
                ended = Cancelled if run.state is not None and run.state.is_cancelling() else Crashed
                client.set_flow_run_state(run.id, ended(message="its process is gone"))  # refused where the run has ended meanwhile


def _is_abandoned(run: FlowRun, at_work: set[str], unclaimed_before: datetime | None) -> bool:
    if (claimed := run.labels.get(OWNER)) is not None:
        return owner_is_gone(str(claimed))
    begun = run.state.timestamp if run.state is not None else None
    if unclaimed_before is None or begun is None or run.deployment_id is None:
        return False
    return begun < unclaimed_before and str(run.id) not in at_work


def _flow_runs_at_work() -> set[str]:
    """Return the flow runs that this machine's processes were started for by a worker."""
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.add(process.environ().get("PREFECT__FLOW_RUN_ID", ""))
    return found
