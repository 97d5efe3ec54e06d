"""The flow that looks at a source and says when it grew: retraining on new data waits for that event."""

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed

from batchlab.config import load_profile
from tasks import arrivals
from tasks.abandoned import claim
from tasks.data import ingest


@flow(name="ingestion", on_running=[claim], log_prints=False)
def ingestion(
    profile: str = "nightly",
    data: str | None = None,
    target: str | None = None,
    overrides: list[str] | None = None,
    name: str | None = None,
) -> "State[arrivals.Arrival]":
    """Read a source under its contract, and send the event `batchlab.dataset.grew` if it has grown since the last time.

    Args:
        profile: A shipped profile (nightly, quick, full, lesson) or the path of a TOML file.
        data: What grows: a folder, a pattern, a file, or the URL of a database or object store; the profile's source when left out.
        target: The column to predict.
        overrides: Settings on top of the profile, as key=value, for example source.table=sales.
        name: The registered model to retrain, where it is not named after source and target.
    """
    settings = load_profile(profile, data=data, target=target, overrides=overrides or [])
    request = arrivals.Request(profile=profile, data=data, overrides=tuple(overrides or ()), name=name)
    with arrivals.alone(settings, name):
        table = ingest.submit(settings).result()
        arrival = arrivals.notice.submit(settings, table, request).result()
    get_run_logger().info(arrival.text)
    return Completed(message=arrival.text, data=arrival)
