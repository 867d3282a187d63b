"""The counters of all workers as one: each writes its own into files, and whoever asks gets their sums.

This is prometheus_client's multi-process mode: values are kept in files named by process id. What a worker counted
stays when it is gone: its files are added to common ones, so sums never go back and restarts do not fill the folder.
"""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Names the folder to prometheus_client, which reads it once, when a process first imports it."""
_SUMMED: Final = ("counter", "histogram")
_GONE: Final = "gone"


class Tally(Collector):
    """Adds up what the workers' files in `folder` hold."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        """Read all files at once."""
        with self._lock:  # a worker's counts must not be seen twice, nor not at all, while they move
            # A file is empty for a moment when a worker has just made it.
            files = [str(file) for file in self._folder.glob("*.db") if file.stat().st_size]
            found = list(MultiProcessCollector.merge(files))
        yield from found

    def settle(self, pid: int) -> None:
        """Keep the counts of a worker that is gone and forget its gauges."""
        with self._lock:
            for kind in _SUMMED:
                file = self._folder / f"{kind}_{pid}.db"
                if file.exists():
                    if file.stat().st_size:
                        _add(file, self._folder / f"{kind}_{_GONE}.db")
                    file.unlink()
            mark_process_dead(pid, str(self._folder))


def _add(file: Path, common: Path) -> None:
    kept = MmapedDict(str(common))
    try:
        for key, value, _, _ in MmapedDict.read_all_values_from_file(str(file)):
            kept.write_value(key, kept.read_value(key)[0] + value, 0.0)
    finally:
        kept.close()
