"""The counters of all workers as one: each writes its own into files, and whoever asks gets their sums.

This is prometheus_client's multi-process mode: values are kept in files named by process id, mapped into memory. What
a worker counted stays when it is gone: the supervisor reads its files once more, keeps their sums itself and deletes
them. It writes nothing, and workers reserve their files: what is mapped from a full disk ends whoever writes to it.
"""

import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from iyscheck.server.metrics import LOST_LINES, LOST_LINES_HELP, SERVING, SERVING_HELP
from iyscheck.server.processes.counters import SUMMED, files_of


class Tally(Collector):
    """Adds up what the workers' files in `folder` hold, what workers that are gone counted, and our own lost lines.

    Each of the names in `health` is shown as not served while no worker says that it is, and from `drain` on.
    """

    def __init__(self, folder: Path, lost_lines: Callable[[], int] = lambda: 0, health: Collection[str] = ()) -> None:
        self._folder = folder
        self._lost_lines = lost_lines
        self._health = health
        self._is_draining = False
        self._lock = threading.Lock()
        self._gone: dict[str, Metric] = {}

    def collect(self) -> Iterator[Metric]:
        """Read all files at once."""
        found: dict[str, Metric] = {}
        with self._lock:  # a worker's counts must not be seen twice, nor not at all, while they move
            for metric in (*self._gone.values(), *_merged(list(self._folder.glob("*.db")))):
                _add(found, metric)
        _add(found, CounterMetricFamily(LOST_LINES, LOST_LINES_HELP, self._lost_lines()))
        if self._health:
            found[SERVING] = self._serving(found.get(SERVING))
        yield from found.values()

    def drain(self) -> None:
        """Note that all workers end. One that ends alone says nothing of it: its successor serves."""
        self._is_draining = True

    def _serving(self, told: Metric | None) -> Metric:
        said = (
            {} if told is None or self._is_draining else {each.labels["service"]: each.value for each in told.samples}
        )
        shown = GaugeMetricFamily(SERVING, SERVING_HELP, labels=("service",))
        for name in self._health:
            shown.add_metric([name], said.get(name, 0.0))
        return shown

    def settle(self, pid: int) -> None:
        """Keep the counts of a worker that is gone and forget its gauges; a damaged file's counts are lost."""
        with self._lock:
            for file in files_of(self._folder, pid, SUMMED):
                try:
                    for metric in _merged([file]):
                        _add(self._gone, metric)
                finally:
                    file.unlink(missing_ok=True)
            mark_process_dead(pid, str(self._folder))


def _merged(files: list[Path]) -> list[Metric]:
    """Add up files; one is empty, or not there, for a moment when a worker has just begun."""
    return list(MultiProcessCollector.merge([str(file) for file in files if file.exists() and file.stat().st_size]))


def _add(sums: dict[str, Metric], metric: Metric) -> None:
    """Add a metric to those of its name; buckets hold all smaller ones, so they may be added too."""
    samples = {(sample.name, *sorted(sample.labels.items())): sample for sample in metric.samples}
    before = sums.get(metric.name)
    for sample in before.samples if before is not None else ():
        key = (sample.name, *sorted(sample.labels.items()))
        same = samples.get(key)
        samples[key] = sample if same is None else sample._replace(value=sample.value + same.value)
    sums[metric.name] = summed = Metric(metric.name, metric.documentation, metric.type)
    summed.samples = list(samples.values())
