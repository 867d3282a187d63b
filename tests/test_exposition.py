import socket
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Gauge

from iyscheck.exposition import serve_metrics


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
