"""The tables of docs/metrics.md are what the programs show: names, types and labels."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from iyscheck.server.processes.supervisor import WorkersMetrics
from iyscheck.service_manager import ServiceManager
from iyscheck.store.deliveries import Delivery
from iyscheck.store.layout import SourceState
from iyscheck.store.snapshot import Store
from loader.mirror.looking import AccountState
from loader.mirror.running import ENDINGS
from loader.push.metrics import ReceiverMetrics
from loader.replication import publish
from loader.replication.replica_metrics import ReplicaMetrics
from loader.reports.metrics import FeedMetrics
from loader.reports.mirror import MirrorMetrics
from loader.reports.outbox import OutboxMetrics
from loader.reports.push import PushedMetrics
from loader.sources.pull.terms import Doubt
from tests.builders import ADDRESS_KEY, STORE_KEY, StoreBuilder, a_batch
from tests.server.conftest import Site, serve, write_key
from tests.server.gated import FILE

DOCUMENT = (Path(__file__).parent.parent / "docs" / "metrics.md").read_text()
OF_ALL_CALLS = ("grpc_type", "grpc_service", "grpc_method", "front")
ADDED = {"le"}


def tables() -> dict[str, tuple[str, frozenset[str]]]:
    """Read the document: name → type and labels."""
    found: dict[str, tuple[str, frozenset[str]]] = {}
    more = False
    for line in DOCUMENT.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells[:2] == ["name", "type"]:
            more = cells[2] == "more labels"
        elif len(cells) > 2 and re.fullmatch(r"`[a-z_]+`", cells[0]) and cells[1] in ("gauge", "counter", "histogram"):
            labels = re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", cells[2]))
            name = cells[0].strip("`")
            base = OF_ALL_CALLS if more and name.startswith("grpc_") else ()
            assert name not in found, name
            found[name] = cells[1], frozenset((*base, *labels))
    return found


def shown(text: str) -> dict[str, tuple[str, frozenset[str] | None]]:
    """Read a scrape: name → type and labels, None where there is no sample to tell them."""
    found: dict[str, tuple[str, frozenset[str] | None]] = {}
    for family in text_string_to_metric_families(text):
        samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
        labels = frozenset(label for sample in samples for label in sample.labels) - ADDED if samples else None
        name = family.name + "_total" if family.type == "counter" else family.name
        if not name.endswith("_created"):
            found[name] = (family.type, labels)
    return found


@pytest.fixture(name="scrapes", scope="module")
def _scrapes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, frozenset[str] | None]]:
    """What a server with everything, a supervisor and a loader show."""
    site = Site(tmp_path_factory.mktemp("site"))
    write_key(site.path / "address.key", ADDRESS_KEY)
    write_key(site.path / "store.key", STORE_KEY)
    with StoreBuilder(site.path / "store") as store:
        store.brand(1, now=True).commit()
        now = int(time.time())
        delivery = Delivery(feed="daily", now_s=now, local_s=now, every_s=86_400)
        store.writer.apply(a_batch(), SourceState(name="a"), finished=True, delivery=delivery)
    (site.path / "callers.toml").write_text(FILE)
    certs = site.path / "certs"
    subprocess.run([sys.executable, "-m", "iyscheck", "certs", "dev", str(certs)], check=True, capture_output=True)
    flags = {"tls_cert": certs / "server.pem", "tls_key": certs / "server.key", "callers": site.path / "callers.toml"}
    with serve(site, metrics_listen="127.0.0.1:0", metrics_brands="1", **flags) as served:
        found = shown(generate_latest(served.server._metrics.registry).decode())
    registry = CollectorRegistry()
    registry.register(WorkersMetrics())
    feed = FeedMetrics()
    MirrorMetrics(feed.registry, states=AccountState, endings=ENDINGS, doubts=[doubt.value for doubt in Doubt])
    PushedMetrics(feed.registry)
    receiver = CollectorRegistry()
    ReceiverMetrics(receiver, clock=time.time)
    publisher, replica = CollectorRegistry(), ReplicaMetrics(ServiceManager())
    replica.snapshot_age(60.0)
    with Store.open(site.path / "store") as opened:
        OutboxMetrics(publisher, opened, states=list(publish.State))
        for each in (registry, feed.registry, receiver, publisher, replica.registry):
            found |= shown(generate_latest(each).decode())
    return found


def test_names(scrapes: dict[str, tuple[str, frozenset[str] | None]]) -> None:
    """Each metric stands in a table, and nothing else does."""
    assert sorted(tables()) == sorted(scrapes)


def test_types_and_labels(scrapes: dict[str, tuple[str, frozenset[str] | None]]) -> None:
    """A table says of each what it is, and which labels it has."""
    documented = tables()

    assert {name: kind for name, (kind, _) in scrapes.items()} == {name: documented[name][0] for name in scrapes}
    told = {name: labels for name, (_, labels) in scrapes.items() if labels is not None}
    assert told == {name: documented[name][1] for name in told}


def test_new_names(scrapes: dict[str, tuple[str, frozenset[str] | None]]) -> None:
    """What is told to have taken the place of an older name is there."""
    rows = [
        line.split(" | ") for line in DOCUMENT.partition("## Names that changed")[2].splitlines() if line[:3] == "| `"
    ]
    named = {name for row in rows for name in re.findall(r"`[^`]*?((?:consent|grpc)_\w+)", row[1])}

    assert named
    assert named <= set(scrapes)
