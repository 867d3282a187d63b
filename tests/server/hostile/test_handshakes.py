"""Handshakes that fail, of which gRPC would write a line each: as many as strangers like, and by threads of its own."""

import fcntl
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from iyscheck.client import Client, Tls
from iyscheck.consent import Channel, Reason, RecipientType
from iyscheck.streams import VERBOSITY
from tests.cli.commands import as_process
from tests.server.conftest import CONSENTED, Site
from tests.server.hostile.conftest import PATIENCE_S, Attacked
from tests.server.processes.running import Running, eventually, running
from tests.server.test_tls import made

FAILED_HANDSHAKES = 400
WORDS = {"http": b"GET / HTTP/1.1\r\n\r\n", "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(20), "none": b""}
"""What is said to a port that wants TLS."""
SMALLEST_PIPE = 4096


@pytest.fixture(name="certs", scope="module")
def _certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates for the server."""
    return made(tmp_path_factory.mktemp("handshakes") / "certs")


@pytest.fixture(autouse=True)
def _by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests are run with must not be what keeps gRPC silent."""
    for name in (VERBOSITY, "GRPC_TRACE"):
        monkeypatch.delenv(name, raising=False)


def flags(certs: Path) -> list[str]:
    """What has a server speak TLS."""
    return [f"--tls-cert={certs / 'server.pem'}", f"--tls-key={certs / 'server.key'}"]


def fail(target: str, times: int) -> None:
    """Say what is no TLS, on one connection after the other."""
    host, _, port = target.rpartition(":")
    for number in range(times):
        with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
            connection.settimeout(0.5)  # a server that hangs does not end them
            try:
                connection.sendall(list(WORDS.values())[number % len(WORDS)])
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1)
            except OSError:
                continue


@contextmanager
def failing(target: str) -> Iterator[None]:
    """Have strangers fail meanwhile, and be done at the end of the block."""
    strangers = [threading.Thread(target=fail, args=(target, FAILED_HANDSHAKES // 4)) for _ in range(4)]
    for each in strangers:
        each.start()
    try:
        yield
    finally:
        for each in strangers:
            each.join()


@contextmanager
def not_read(site: Site, *arguments: str) -> Iterator[Running]:
    """Run a server whose log is a full pipe from when it serves on: its reader is there, and stands still."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, SMALLEST_PIPE)
    with running(site, *arguments, stderr=writing) as server, os.fdopen(reading, "rb", buffering=0) as source:
        os.close(writing)

        def copy() -> None:
            with server.log.open("wb", buffering=0) as log:
                said = b""
                while b'"event": "serving"' not in said or not said.endswith(b"\n"):
                    said += (part := source.read(SMALLEST_PIPE))
                    log.write(part)

        thread = threading.Thread(target=copy)
        thread.start()
        server.wait_for("serving")
        thread.join()
        yield server


def is_permitted(client: Client) -> bool:
    """Ask one question."""
    answer = client.check(brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, address=CONSENTED)
    return answer.reason is Reason.CONSENTED


@pytest.mark.crash
@pytest.mark.parametrize("workers", [1, 2])
def test_log_not_read(site: Site, certs: Path, workers: int) -> None:
    """Where nobody reads the log, open connections and new ones are answered all the same, and the end is orderly."""
    with not_read(site, f"--workers={workers}", *flags(certs)) as server:
        said = server.wait_for("serving")
        tls = Tls(ca=certs / "ca.pem")
        attacked = Attacked(said["listen"], said["metrics_listen"], server.process.pid, tls)
        with Client(server.target, tls=tls, timeout_s=PATIENCE_S) as lasting:
            assert is_permitted(lasting)
            with attacked.unharmed() as good, failing(server.target):
                pass
            assert good.answered > 0
            assert is_permitted(lasting)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0


@pytest.mark.crash
@pytest.mark.parametrize("workers", [1, 2])
def test_log_is_json(site: Site, certs: Path, workers: int) -> None:
    """The log tells its events and nothing else, whatever strangers do."""
    with running(site, f"--workers={workers}", *flags(certs)) as server:
        with failing(server.target):
            pass
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        told = [json.loads(line) for line in server.log.read_text().splitlines()]

    assert told[-1]["event"] == "stopped"
    assert all({"event", "level", "timestamp"} <= line.keys() for line in told)


def test_as_told(site: Site, certs: Path) -> None:
    """Who sets gRPC's variable has its lines."""
    with running(site, "--workers=1", *flags(certs), **{VERBOSITY: "INFO"}) as server:
        fail(server.target, 4)
        eventually(lambda: "andshake failed" in server.log.read_text(), "gRPC says nothing")


def test_command(site: Site, certs: Path) -> None:
    """A command whose handshakes fail says one sentence."""
    made(other := site.path / "other")
    with running(site, "--workers=1", *flags(certs)) as server:
        target = f"127.0.0.1:{server.target.rpartition(':')[2]}"
        done = as_process("info", "--server", target, "--tls-ca", str(other / "ca.pem"), "--timeout", "5")

    assert done.returncode == 2
    assert done.stderr.startswith("iyscheck: ")
    assert done.stderr.count("\n") == 1
