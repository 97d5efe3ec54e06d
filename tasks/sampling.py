"""What the machine does during a search, as MLflow measures it: kept in a file, and recorded with the verdict.

MLflow's own monitor asks its server at every sample, beside the steps that are timed, and ends with the first answer that does not come.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tasks import spool, store, warming

SECONDS_BETWEEN = 2


@contextmanager
def sampling(run_id: str) -> Iterator[None]:
    """Sample processor, memory, disk, network and GPU every two seconds."""
    ended = threading.Event()
    sampler = threading.Thread(target=_sample, args=(run_id, ended), name="sampling", daemon=True)
    sampler.start()
    try:
        yield
    finally:
        ended.set()
        sampler.join()


def _sample(run_id: str, ended: threading.Event) -> None:
    """Sample until the end; a disk that takes no more ends it, too."""
    warming.wait_until_allowed(ended)  # MLflow takes seconds to import
    if ended.is_set():
        return
    store.client()  # MLflow would make a store of its own, where the command was started
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run_id, sampling_interval=SECONDS_BETWEEN)  # measures when asked: its own thread is not started
    try:
        spool.begin_samples(run_id)
        while not ended.wait(SECONDS_BETWEEN):
            monitor.collect_metrics()
            spool.note_sample(run_id, monitor.aggregate_metrics())
            for part in monitor.monitors:
                part.clear_metrics()
    except OSError as error:
        logging.getLogger(__name__).debug("samples of the machine end: %s", error)
