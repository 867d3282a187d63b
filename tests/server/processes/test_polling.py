"""Who waits at the server's sockets: told from how often gRPC's own threads are woken."""

import os
from pathlib import Path

import grpc
import pytest

from iyscheck.server.processes import polling
from iyscheck.v1.consent_check_pb2_grpc import ConsentCheckServiceStub
from tests.server.conftest import Site
from tests.server.processes.running import running
from tests.server.processes.test_workers import OWN_CONNECTION, REQUEST

CHECKS = 300


def wake_ups(pid: int) -> int:
    """Count how often threads of gRPC's own have gone to sleep in a process."""
    count = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            status = dict(line.split(":\t", 1) for line in (thread / "status").read_text().splitlines())
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
        if status["Name"] == "event_engine":
            count += int(status["voluntary_ctxt_switches"])
    return count


def woken(site: Site, workers: int, **environment: str) -> int:
    """Serve as an operator does, check, and count how often gRPC's own threads were woken by that."""
    with running(site, f"--workers={workers}", **environment) as server:
        target = server.target
        pids = [server.process.pid] if workers == 1 else server.pids()
        with grpc.insecure_channel(target, options=(OWN_CONNECTION,)) as channel:
            stub = ConsentCheckServiceStub(channel)
            stub.Check(REQUEST, timeout=10)
            before = sum(map(wake_ups, pids))
            for _ in range(CHECKS):
                assert stub.Check(REQUEST, timeout=10).permitted
            return sum(map(wake_ups, pids)) - before


@pytest.mark.parametrize("workers", [1, 2])
def test_direct(site: Site, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server does not hand each call from thread to thread, alone or as a worker."""
    monkeypatch.delenv(polling.VARIABLE, raising=False)
    assert woken(site, workers) < CHECKS / 2


def test_as_told(site: Site) -> None:
    """Who sets gRPC's variable decides."""
    assert woken(site, 1, **{polling.VARIABLE: ""}) >= CHECKS


def test_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set already stays."""
    monkeypatch.setenv(polling.VARIABLE, "other")
    polling.poll_directly()
    assert os.environ[polling.VARIABLE] == "other"
