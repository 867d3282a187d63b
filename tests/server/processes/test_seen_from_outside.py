"""What the metrics of several workers show of them: how many series, what they use, and one that stands still."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from iyscheck.store.deliveries import Delivery
from iyscheck.store.layout import SourceState
from tests.builders import ADDRESS_KEY, STORE_KEY, StoreBuilder, a_batch
from tests.server.conftest import Site, write_key
from tests.server.processes.running import Running, eventually, running

BRANDS = 500
FEEDS = ("daily", "pull", "push")
MOST_SERIES = 450
"""In a scrape of two workers, before any caller has a name."""
MOST_OF_DATA = 150
"""Of those the ones of store, brands, feeds, processes and the probe."""
OF_DATA = (
    *("consent_brand", "consent_feed_", "consent_freshness", "consent_probe", "consent_process_", "consent_rejected"),
    *("consent_sources", "consent_store_", "consent_watermark_"),
)


@pytest.fixture(name="server", scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two workers over a store of many brands and some feeds."""
    site = Site(tmp_path_factory.mktemp("site"))
    write_key(site.path / "address.key", ADDRESS_KEY)
    write_key(site.path / "store.key", STORE_KEY)
    with StoreBuilder(site.path / "store") as store:
        for brand in range(1, BRANDS + 1):
            store.brand(brand, now=True)
        store.commit()
        now = int(time.time())
        for feed in FEEDS:
            delivery = Delivery(feed=feed, now_s=now, local_s=now + 10_800, every_s=86_400)
            store.writer.apply(a_batch(), SourceState(name=feed), finished=True, delivery=delivery)
    with running(site) as server:
        server.wait_for("serving")
        yield server


def test_series(server: Running) -> None:
    """However many brands there are, a scrape stays small."""
    scrape = server.scrape()
    of_data = [name for name, _ in scrape if name.startswith(OF_DATA)]

    assert server.metric("consent_brands", state="fresh") == BRANDS
    assert len(of_data) <= MOST_OF_DATA, len(of_data)
    assert len(scrape) <= MOST_SERIES, len(scrape)


@pytest.mark.crash
def test_use(server: Running) -> None:
    """Each worker's use is told by its number, the supervisor's too, and goes on when the worker is another one."""

    def cpu(worker: str) -> float:
        return server.metric("consent_process_cpu_seconds_total", worker=worker)

    before = {worker: cpu(worker) for worker in ("0", "1", "supervisor")}
    memory = server.metric("consent_process_anonymous_bytes", worker="0")
    pids, answers = server.pids(), len(server.events("worker_answers"))
    os.kill(pids[0], signal.SIGKILL)
    server.wait_for("worker_answers", answers + 1)
    eventually(lambda: cpu("0") > before["0"], "its successor uses nothing")

    assert min(before.values()) > 0
    assert memory > 2**20
    assert all(cpu(worker) >= used for worker, used in before.items())
    assert server.metric("consent_process_open_fds", worker="1") > 3


@pytest.mark.thorough
def test_frozen_worker(server: Running) -> None:
    """One of two workers stands still: probes run out of time now and then, and others are answered as ever."""

    def probes(outcome: str) -> float:
        return server.metric("consent_probes_total", outcome=outcome)

    eventually(lambda: probes("ok") >= 2, "nobody asks")
    frozen = server.pids()[1]
    ok, late = probes("ok"), probes("timeout")
    os.kill(frozen, signal.SIGSTOP)
    try:
        eventually(lambda: probes("timeout") >= late + 2, "nobody notices")
        eventually(lambda: probes("ok") >= ok + 2, "nobody is answered")
    finally:
        os.kill(frozen, signal.SIGCONT)
    late, ok = probes("timeout"), probes("ok")
    eventually(lambda: probes("ok") >= ok + 5, "it stays away")

    assert server.events("probe_failed")  # once: another test may have killed a worker a moment before
    assert server.metric("consent_check_decisions_total") == 0
    assert server.metric("grpc_server_started_total", grpc_method="Check") == 0
