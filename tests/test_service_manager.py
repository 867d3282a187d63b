"""What a service manager is told, by a real socket."""

import os
import socket
import time
from pathlib import Path

import pytest

from iyscheck import service_manager
from iyscheck.service_manager import ServiceManager
from tests.notified import notified


def test_told(tmp_path: Path) -> None:
    """Each step is told in the words of sd_notify; a status only where it is new."""
    before = time.monotonic()
    with notified(tmp_path) as told:
        manager = ServiceManager(told.address)
        assert manager.ready("serving,\n2 workers")
        manager.status("serving,\n2 workers")
        manager.status("serving, 1 of 2 workers")
        manager.alive("serving, 1 of 2 workers")  # nobody waits for a sign of life
        manager.reloading("replacing")
        manager.stopping("draining")
        told.wait_for("STOPPING")

    reloading = told.said.pop(2)
    assert told.said == [
        {"READY": "1", "STATUS": "serving, 2 workers"},
        {"STATUS": "serving, 1 of 2 workers"},
        {"STOPPING": "1", "STATUS": "draining"},
    ]
    assert (reloading["RELOADING"], reloading["STATUS"]) == ("1", "replacing")
    assert before <= int(reloading["MONOTONIC_USEC"]) / 1e6 <= time.monotonic()


def test_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of life come four times in the time in which one has to come, however often it is said."""
    now = 1_000.0
    monkeypatch.setattr("iyscheck.service_manager.time.monotonic", lambda: now)
    with notified(tmp_path) as told:
        manager = ServiceManager(told.address, watchdog_s=8)
        for _ in range(100):
            manager.alive("loading")
            now += 0.25
        manager.stopping("")
        monkeypatch.undo()
        told.wait_for("STOPPING")

    assert told.count("WATCHDOG") == 13
    assert told.count("STATUS") == 1


@pytest.mark.parametrize(
    ("variables", "address", "watchdog_s"),
    [
        ({}, "", None),
        ({"NOTIFY_SOCKET": "/run/notify"}, "/run/notify", None),
        ({"NOTIFY_SOCKET": "@abstract", "WATCHDOG_USEC": "30000000"}, "\0abstract", 30.0),
        (
            {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())},
            "/run/notify",
            0.5,
        ),
        ({"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, "/run/notify", None),
        ({"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "0"}, "/run/notify", None),
        ({"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "soon"}, "/run/notify", None),
        ({"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "500000"}, "", None),
        ({"WATCHDOG_USEC": "500000"}, "", None),
    ],
)
def test_found(variables: dict[str, str], address: str, watchdog_s: float | None) -> None:
    """It is found by its variables; a watchdog that is somebody else's, or cannot be told, is none."""
    manager = ServiceManager.of_this_process(variables)

    assert (manager._address, manager.watchdog_s) == (address, watchdog_s)  # where it speaks is nowhere else to be seen


def test_abstract() -> None:
    """A socket without a file is spoken to by its name."""
    name = f"iyscheck-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        assert ServiceManager(f"@{name}").ready("")

        assert listening.recv(100) == b"READY=1"


def test_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who cannot be told keeps nobody waiting; who does not ask is not told, and that is no fault."""
    monkeypatch.setattr(service_manager, "_PATIENCE_S", 0.05)
    assert not ServiceManager(str(tmp_path / "gone")).ready("serving")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as full:
        full.bind(str(tmp_path / "full"))
        manager = ServiceManager(str(tmp_path / "full"))
        assert not all(manager.ready(str(number)) for number in range(10_000))

    assert ServiceManager().ready("serving")
