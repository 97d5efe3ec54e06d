"""What the machine does during a search, as MLflow measures it: kept in a file, and recorded with the verdict.

MLflow's own monitor asks its server at every sample, beside the steps that are timed, and ends with the first answer that does not come.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from tasks import spool

SECONDS_BETWEEN = 2


@contextmanager
def sampling(run_id: str) -> Iterator[None]:
    """Sample processor, memory, disk, network and GPU every two seconds."""
    monitor = _Sampler(run_id, sampling_interval=SECONDS_BETWEEN)
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()


class _Sampler(SystemMetricsMonitor):
    """MLflow's measurements without its server."""

    def monitor(self) -> None:
        """Sample until the end; a disk that takes no more ends it, too."""
        try:
            spool.begin_samples(self._run_id)
            while not self._shutdown_event.wait(self.sampling_interval):
                self.collect_metrics()
                spool.note_sample(self._run_id, self.aggregate_metrics())
                for part in self.monitors:
                    part.clear_metrics()
        except OSError as error:
            logging.getLogger(__name__).debug("samples of the machine end: %s", error)
