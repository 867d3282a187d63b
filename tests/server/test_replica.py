"""A server over a replica: it says how it stands, whether it follows, and sends those elsewhere who ask too early."""

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from iyscheck import wire
from iyscheck.change import Position
from iyscheck.client import Client
from iyscheck.consent import Channel, Reason, RecipientType
from iyscheck.question import Context, Question
from iyscheck.server.fronts.health import FRESH
from iyscheck.store.acknowledged import ACKNOWLEDGED, NOT_THE_PRIMARY
from iyscheck.store.log_writer import LogWriter
from iyscheck.store.snapshot import Store
from tests.builders import ADDRESS_KEY, STORE_KEY, StoreBuilder
from tests.logs import KEY_IDS, PlainSealer, begin, received
from tests.server.conftest import CONSENTED, FRONTS, Served, Site, make_site, serve, write_key

WHO: dict[str, Any] = {"brand": 1, "channel": Channel.MESAJ, "recipient_type": RecipientType.BIREYSEL}
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass(frozen=True)
class Replica:
    """A replica's folder, and where its log stands."""

    site: Site
    position: Position
    batch: int


def replica(folder: Path, *, lag_s: float = 0, untrusted: str = "") -> Replica:
    """Make a replica of a fresh brand whose newest batch was made so long ago."""
    write_key(folder / "address.key", ADDRESS_KEY)
    write_key(folder / "store.key", STORE_KEY)
    begin(folder / "primary")
    with StoreBuilder(folder / "primary", sealer=PlainSealer()) as builder:
        builder.brand(1, now=True).consent(recipient=CONSENTED).commit()
    made_ms = int((time.time() - lag_s) * 1_000)
    with Store.open(folder / "primary") as store, LogWriter.open(folder / "store", **KEY_IDS) as writer:
        batches = [replace(each, batch=replace(each.batch, created_ms=made_ms)) for each in received(store)]
        writer.become_replica(log_id=batches[0].batch.log_id)
        followed = writer.follow(batches, stream_created="s")
        if untrusted:
            writer.distrust(untrusted)
    return Replica(Site(folder), followed.position, followed.state.batch)


def fresh(served: Served) -> Any:  # noqa: ANN401 - a number of the protocol
    """Ask for the name of freshness."""
    stub: Any = health_pb2_grpc.HealthStub(served.channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=FRESH), timeout=20).status


def test_follows(tmp_path: Path) -> None:
    """A replica that is close by is fresh, and tells role, term, batch and lag to callers and to Prometheus."""
    made = replica(tmp_path)
    with serve(made.site, metrics_listen="127.0.0.1:0") as served, Client(served.server.address) as client:
        told = [client.server_info(timeout_s=20).standing]
        overview = client.admin.status(timeout_s=20)
        assert overview.store is not None
        told.append(overview.store.standing)
        assert fresh(served) == SERVING
        assert served.metric("consent_replica_untrusted") == 0
        assert 0 <= served.metric("consent_replica_lag_seconds") < time.time()
        assert client.check(**WHO, address=CONSENTED, timeout_s=20).reason is Reason.CONSENTED

    for standing in told:
        assert standing is not None
        assert (standing.role, standing.term, standing.batch) == ("replica", 1, made.batch)
        assert standing.lag_s is not None
        assert not standing.untrusted


def test_far_behind(tmp_path: Path) -> None:
    """One that is far behind is not fresh, and answers."""
    with serve(replica(tmp_path, lag_s=900).site, metrics_listen="127.0.0.1:0") as served:
        assert fresh(served) == NOT_SERVING
        assert served.metric("consent_replica_lag_seconds") >= 900
        with Client(served.server.address) as client:
            assert client.check(**WHO, address=CONSENTED, timeout_s=20).reason is Reason.CONSENTED


def test_untrusted(tmp_path: Path) -> None:
    """One that is not to be believed is not fresh, says so, and permits nothing commercial."""
    with serve(replica(tmp_path, untrusted="it differs").site, metrics_listen="127.0.0.1:0") as served:
        assert fresh(served) == NOT_SERVING
        assert served.metric("consent_replica_untrusted") == 1
        with Client(served.server.address) as client:
            standing = client.server_info(timeout_s=20).standing
            assert standing is not None
            assert standing.untrusted
            assert client.check(**WHO, address=CONSENTED, timeout_s=20).reason is Reason.DATA_STALE


def test_no_replica(site: Site) -> None:
    """A server over a store in no log says nothing of one, and has no samples."""
    with serve(site, metrics_listen="127.0.0.1:0") as served, Client(served.server.address) as client:
        assert client.server_info(timeout_s=20).standing is None
        assert not [line for line in served.scrape().splitlines() if line.startswith("consent_replica_")]
        assert fresh(served) == SERVING


def becomes(served: Served, status: object) -> None:
    """Wait until freshness is told so."""
    ends_s = time.monotonic() + 60
    while fresh(served) != status:
        assert time.monotonic() < ends_s
        time.sleep(0.05)


def test_primary_no_more(tmp_path: Path) -> None:
    """A server beside a primary whose log has another one is not fresh, and answers; it is again after a promotion."""
    made = replica(tmp_path)
    store = tmp_path / "store"
    shutil.rmtree(store)
    (tmp_path / "primary").rename(store)
    (store / ACKNOWLEDGED).write_bytes((1).to_bytes(8))
    with serve(made.site) as served, Client(served.server.address) as client:
        assert fresh(served) == SERVING
        (store / ACKNOWLEDGED).write_bytes(NOT_THE_PRIMARY.to_bytes(8))
        becomes(served, NOT_SERVING)
        assert client.check(**WHO, address=CONSENTED, timeout_s=20).reason is Reason.CONSENTED
        (store / ACKNOWLEDGED).unlink()
        becomes(served, SERVING)


def later(client: Client) -> Position:
    """Find a position to which nobody has come yet."""
    position = client.server_info(timeout_s=20).position
    return Position(log_id=position.log_id, sequence=position.sequence + 1)


@pytest.mark.parametrize("of_a_log", [True, False], ids=["replica", "alone"])
def test_too_early(tmp_path: Path, of_a_log: bool) -> None:  # noqa: FBT001 - pytest's
    """Who asks a replica for what is not there yet may ask another one by itself; of a store alone there is none."""
    with serve(replica(tmp_path).site if of_a_log else make_site(tmp_path)) as served:
        with Client(served.server.address) as client:
            question = Question(context=Context(**WHO), address=CONSENTED)
            request = wire.check_request(question, min_position=later(client)).SerializeToString()
        with pytest.raises(grpc.RpcError) as told:
            served.call("Check", request)
        trailing: Any = told.value.trailing_metadata()

    assert told.value.code() is grpc.StatusCode.UNAVAILABLE
    assert dict(trailing).get("grpc-retry-pushback-ms") == (None if of_a_log else "-1")


@pytest.mark.thorough
@pytest.mark.parametrize("front", FRONTS)
def test_waits_for_a_part(tmp_path: Path, front: str) -> None:
    """A replica waits less than a store that is alone, so that another one has time; who has one replica learns why."""
    waited = []
    (tmp_path / "replica").mkdir()
    (tmp_path / "alone").mkdir()
    for site in (replica(tmp_path / "replica").site, make_site(tmp_path / "alone")):
        with serve(site, front=front) as served, Client(served.server.address) as client:
            question = Question(context=Context(**WHO), address=CONSENTED)
            request = wire.check_request(question, min_position=later(client)).SerializeToString()
            began = time.monotonic()
            with pytest.raises(grpc.RpcError) as told:
                served.call("Check", request)
            waited.append(time.monotonic() - began)
        assert "not yet at" in str(told.value.details())
    assert waited[0] < waited[1]
