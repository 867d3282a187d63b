"""What fails beside the answers must not end them: logs, disks, threads. Real processes."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from iyscheck.client import Client
from iyscheck.consent import Channel, RecipientType
from iyscheck.server.processes.counters import RESERVED_BYTES
from tests.server.conftest import CONSENTED, Site
from tests.server.processes.running import WORKERS, Running, eventually, running

WHO: Mapping[str, Any] = {"brand": 1, "channel": Channel.MESAJ, "recipient_type": RecipientType.BIREYSEL}


def answers(target: str) -> bool:
    """Whether a new connection is answered."""
    with Client(target, timeout_s=20) as client:
        return client.check(**WHO, address=CONSENTED).permitted


@contextmanager
def read_at_first(site: Site, *flags: str) -> Iterator[Running]:
    """Run a server whose log somebody reads until it serves, and nobody afterwards."""
    reading, writing = os.pipe()
    with running(site, *flags, stderr=writing) as server, os.fdopen(reading, "rb") as source:
        os.close(writing)

        def copy() -> None:
            with server.log.open("wb", buffering=0) as log:
                for line in source:
                    log.write(line)
                    if b'"event": "serving"' in line:
                        return

        thread = threading.Thread(target=copy)
        thread.start()
        server.wait_for("serving")
        thread.join()
        source.close()
        yield server


class TestLog:
    """Nobody reads the log any more."""

    @pytest.mark.crash
    def test_reader_gone(self, site: Site) -> None:
        """Workers are started again all the same, the metrics tell how many lines were lost, and the end is orderly."""
        with read_at_first(site) as server:
            os.kill(server.pids()[0], signal.SIGKILL)
            eventually(lambda: server.metric("consent_worker_restarts_total") == 1, "no worker was started again")
            eventually(lambda: server.metric("consent_workers", state="serving") == WORKERS, "a worker is missing")

            assert answers(server.target)
            assert server.metric("consent_log_lines_lost_total") >= 6  # of the supervisor and of the new worker
            server.process.terminate()
            assert server.process.wait(60) == 0


@contextmanager
def filled(folder: Path) -> Iterator[Callable[[], None]]:
    """Mount a small file system in memory there; gives what fills it to the last byte."""
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "iyscheck", folder], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("only root may mount the small disk that this test fills")

    def fill() -> None:
        with (folder / "filler").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))

    try:
        yield fill
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


class TestDisk:
    """The disk of temporary files is full."""

    @pytest.mark.crash
    def test_counters(self, site: Site) -> None:
        """Workers die and are replaced: nobody falls over counters, old counts stay, and it is said which are missing."""
        (site.path / "small").mkdir()
        with filled(site.path / "small") as fill, running(site, TMPDIR=str(site.path / "small")) as server:
            assert answers(server.target)
            before = server.metric("consent_check_decisions_total")
            files = list(site.path.glob("small/*/counters/*.db"))
            assert len(files) == WORKERS * 3
            for file in files:  # what is used of it, which it begins with, leaves room; it has never grown
                assert int.from_bytes(file.read_bytes()[:4], "little") < RESERVED_BYTES // 3
                assert file.stat().st_size == RESERVED_BYTES == file.stat().st_blocks * 512
            fill()
            os.kill(server.pids()[0], signal.SIGKILL)
            server.wait_for("worker_answers", WORKERS + 1)
            server.process.send_signal(signal.SIGHUP)
            server.wait_for("rolled")
            eventually(lambda: len(server.events("worker_left")) == WORKERS, "an old worker stays")

            assert server.events("counters_not_kept")[0]["why"] == "No space left on device"
            assert server.metric("consent_check_decisions_total") >= before
            assert answers(server.target)
            assert not server.events("not_cleaned_up")
            assert [event["signal"] for event in server.events("worker_died")] == ["SIGKILL"]
            server.process.terminate()
            assert server.process.wait(60) == 0
