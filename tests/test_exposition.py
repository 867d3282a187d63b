import socket
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from socketserver import ThreadingMixIn

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from iyscheck import exposition
from iyscheck.exposition import MOST_SCRAPES, serve_metrics
from tests.server.test_tls import made


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "localhost"])  # noqa: S104 - for a moment
def test_no_name(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """Metrics are served without asking a resolver for the name of an address, which may take ten seconds."""

    def fail(*_: object) -> str:
        raise AssertionError("asked for a name")

    monkeypatch.setattr(socket, "getfqdn", fail)
    monkeypatch.setattr(socket, "gethostbyaddr", fail)
    registry = CollectorRegistry()
    Gauge("here", "Is here.", registry=registry).set(7)

    server, thread = serve_metrics(registry, host, 0)
    try:
        where = {"0.0.0.0": "127.0.0.1", "::1": "[::1]"}.get(host, host)  # noqa: S104 - the same
        with urllib.request.urlopen(f"http://{where}:{server.server_port}/metrics") as page:
            assert "here 7.0" in page.read().decode()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(name="port")
def _port() -> Iterator[int]:
    """A port with metrics."""
    server, thread = serve_metrics(CollectorRegistry(), "127.0.0.1", 0)
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def connected(port: int) -> socket.socket:
    """Connect, and say nothing."""
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def test_silent(monkeypatch: pytest.MonkeyPatch, port: int, capfd: pytest.CaptureFixture[str]) -> None:
    """Who says nothing, or half of a request, is hung up on, and that is no error."""
    monkeypatch.setattr(exposition, "SILENT_S", 0.2)
    with connected(port) as nothing, connected(port) as half:
        half.sendall(b"GET /metr")

        assert nothing.recv(1) == b""
        assert half.recv(1) == b""

    assert capfd.readouterr().err == ""


def test_many_silent(port: int) -> None:
    """Silent connections take a bounded number of threads. One more is ended at once, and a place comes back."""
    open_ones = [connected(port) for _ in range(MOST_SCRAPES)]
    with connected(port) as one_more:
        assert one_more.recv(1) == b""
    for each in open_ones:
        each.close()
    while True:  # until one of their threads has seen that
        with connected(port) as scrape:
            scrape.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            if scrape.recv(100).startswith(b"HTTP/1.0 200 OK"):
                break


def test_broken_off(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Who speaks no TLS, or goes away before the answer, is not told of: strangers must not fill the error output."""
    made(tmp_path / "certs")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "certs/server.pem", tmp_path / "certs/server.key")
    trusting = ssl.create_default_context(cafile=str(tmp_path / "certs/ca.pem"))
    server, thread = serve_metrics(CollectorRegistry(), "127.0.0.1", 0, lambda: context)
    assert isinstance(server, ThreadingMixIn)
    server.daemon_threads = False  # so that its end waits for them
    for _ in range(10):
        with connected(server.server_port) as plain:
            plain.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        with trusting.wrap_socket(connected(server.server_port), server_hostname="127.0.0.1") as gone:
            gone.sendall(b"GET /metrics HTTP/1.0\r\n")
    url = f"https://127.0.0.1:{server.server_port}/metrics"
    with urllib.request.urlopen(url, context=trusting) as page:
        assert page.status == 200
    server.shutdown()
    server.server_close()
    thread.join()

    assert capfd.readouterr().err == ""


class Failing(Collector):
    """What is measured cannot be."""

    def collect(self) -> Iterator[Metric]:
        """Fail."""
        raise ZeroDivisionError


def test_fails(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """A page that cannot be made is told to the server's owner once, and nobody prints a trace."""
    failures: list[type[BaseException] | None] = []
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Failing())
    server, thread = serve_metrics(registry, "127.0.0.1", 0)
    monkeypatch.setattr(server, "handle_error", lambda *_: failures.append(sys.exc_info()[0]))
    with pytest.raises(urllib.error.HTTPError, match="500"):
        urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics")
    server.shutdown()
    server.server_close()
    thread.join()

    assert failures == [ZeroDivisionError]
    assert capfd.readouterr().err == ""
