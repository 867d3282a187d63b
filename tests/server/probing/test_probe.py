"""The server asks itself through its own door: what it sees, who answers, and what nobody else gains by it."""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from iyscheck.cli.certs import CLIENT_NAME
from iyscheck.server.fronts import native
from iyscheck.server.log import open_log
from iyscheck.server.probing import asking
from iyscheck.server.probing.asking import OUTCOMES, Asker, Prober
from iyscheck.server.probing.question import TEST_BRAND, Probe, new_probe
from iyscheck.v1 import consent_check_pb2 as v1
from loader.reading.vocabulary import TEST_BRAND as PASSED_OVER
from tests.builders import ADDRESS_KEY, STORE_KEY, StoreBuilder
from tests.server.conftest import Served, Site, serve
from tests.server.gated import FILE
from tests.server.processes.running import eventually

METRICS = {"metrics_listen": "127.0.0.1:0"}
COUNTED = (
    *("grpc_server_started_total", "grpc_server_handled_total", "grpc_server_msg_received_total"),
    *("grpc_server_handling_seconds_count", "consent_check_decisions_total", "consent_caller_recipients_total"),
    *("consent_caller_refusals_total", "grpc_server_msg_sent_total"),
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have servers ask themselves twenty times a second."""
    monkeypatch.setattr(asking, "EVERY_S", 0.05)


@pytest.fixture(name="certs", scope="module")
def _certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of a CA that only this test knows."""
    folder = tmp_path_factory.mktemp("certs") / "certs"
    subprocess.run([sys.executable, "-m", "iyscheck", "certs", "dev", str(folder)], check=True, capture_output=True)
    return folder


def outcomes(served: Served) -> dict[str, float]:
    """Say how often which outcome was counted."""
    return {outcome: served.metric("consent_probes_total", outcome=outcome) for outcome in OUTCOMES}


def answered(served: Served, more: int = 5) -> dict[str, float]:
    """Wait until so many more probes were answered; give all outcomes."""
    before = outcomes(served)["ok"]
    eventually(lambda: outcomes(served)["ok"] >= before + more, lambda: f"{outcomes(served)}\n{served.log.getvalue()}")
    return outcomes(served)


def uncounted(served: Served) -> None:
    """See that no probe is in the counts of what callers do."""
    assert {name: served.metric(name) for name in COUNTED} == dict.fromkeys(COUNTED, 0)


class TestAsking:
    """Through every kind of door, the server is answered, and nothing else is counted."""

    def test_plain(self, site: Site) -> None:
        """Outcomes are there from the start; each probe is in the histogram."""
        with serve(site, **METRICS) as served:
            first = outcomes(served)
            found = answered(served)

            assert list(first) == list(OUTCOMES)
            assert found | {"ok": 0} == dict.fromkeys(OUTCOMES, 0)
            assert served.metric("consent_probe_seconds_count") >= found["ok"]
            uncounted(served)

    def test_every_address(self, site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
        """Each address is asked in turn: a port, a unix socket and the native front."""
        folder = tmp_path_factory.mktemp("s")
        listen = f"127.0.0.1:0,unix:{folder / 'socket'}"
        with serve(site, listen=listen, native_listen="127.0.0.1:0", **METRICS) as served:
            found = answered(served, 9)

            assert found | {"ok": 0} == dict.fromkeys(OUTCOMES, 0)
            uncounted(served)
            (folder / "socket").unlink()
            eventually(lambda: outcomes(served)["unreachable"] >= 2, "nobody misses the socket")
            assert [event["address"] for event in served.events("probe_failed")] == [f"unix:{folder / 'socket'}"]

    @pytest.mark.parametrize("mutual", [False, True], ids=["one-sided", "mutual"])
    def test_tls(self, site: Site, certs: Path, *, mutual: bool) -> None:
        """A server of a CA that nobody knows is trusted by its certificate, and the prober by its own."""
        flags = {"tls_cert": certs / "server.pem", "tls_key": certs / "server.key"}
        flags |= {"tls_client_ca": certs / "ca.pem"} if mutual else {}
        with serve(site, **flags, listen="127.0.0.1:0", metrics_listen="") as served:
            assert "probe" not in served.log.getvalue()
        with reading(site, **flags) as (found, _):
            eventually(lambda: found("ok") >= 5, "nobody answered")
            assert [found(outcome) for outcome in OUTCOMES[1:]] == [0, 0, 0]

    def test_callers(self, site: Site) -> None:
        """Where callers must show who they are the prober shows nothing, is no caller, and takes of no rate."""
        (site.path / "callers.toml").write_text(FILE)
        with serve(site, callers=site.path / "callers.toml", native_listen="127.0.0.1:0", **METRICS) as served:
            answered(served)
            uncounted(served)

    def test_callers_beside_others(self, site: Site) -> None:
        """Others who ask meanwhile are counted as ever, also where checks gather."""
        with serve(site, front="native", **METRICS) as served:
            for _ in range(20):
                served.stub.Check(v1.CheckRequest(question=QUESTION), timeout=5)
            answered(served)

            assert served.metric("grpc_server_started_total") == 20
            assert served.metric("consent_check_decisions_total") == 20

    def test_refused(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that the native front has no room for is an error of the probe, and nobody's call."""
        monkeypatch.setattr(native, "MOST_WAITING", 0)
        with serve(site, native_listen="127.0.0.1:0", **METRICS) as served:
            eventually(lambda: outcomes(served)["error"] >= 2, "it is answered")
            uncounted(served)

    def test_off(self, site: Site) -> None:
        """Where nobody reads the metrics nobody asks."""
        with serve(site) as served:
            assert served.server._prober is None
            assert served.server._probe is None


QUESTION = v1.Question(
    brand_code=1,
    channel=v1.CHANNEL_MESAJ,
    recipient_type=v1.RECIPIENT_TYPE_BIREYSEL,
    address="+905321000001",
)


@contextmanager
def reading(site: Site, **flags: object) -> Iterator[tuple[Any, Served]]:
    """Run a server whose metrics are read from its registry, since they are encrypted."""
    with serve(site, **flags, metrics_listen="127.0.0.1:0") as served:
        registry = served.server._metrics.registry

        def found(outcome: str) -> float:
            return registry.get_sample_value("consent_probes_total", {"outcome": outcome}) or 0

        yield found, served


class TestRenewed:
    """Certificates change while the server runs."""

    def test_renewal(self, site: Site, certs: Path, tmp_path: Path) -> None:
        """A certificate that takes the place of another one fails no probe."""
        other = tmp_path / "other"
        subprocess.run([sys.executable, "-m", "iyscheck", "certs", "dev", str(other)], check=True, capture_output=True)
        mine = tmp_path / "mine"
        shutil.copytree(certs, mine)
        with reading(site, tls_cert=mine / "server.pem", tls_key=mine / "server.key") as (found, served):
            eventually(lambda: found("ok") >= 5, "nobody answered")
            for name in ("server.key", "server.pem"):
                shutil.copy(other / name, mine / name)
            eventually(lambda: served.events("certificate_changed"), "it is not renewed")
            before = found("ok")
            eventually(lambda: found("ok") >= before + 10, "nobody answered by the new one")

            assert [found(outcome) for outcome in OUTCOMES[1:]] == [0, 0, 0]


class TestOutcomes:
    """What a probe comes to."""

    def test_stale(self, site: Site) -> None:
        """Whether data is fresh has nothing to do with it."""
        with serve(site, freshness_limit=1, **METRICS) as served:
            eventually(lambda: served.metric("consent_brands", state="stale") == 1, "it is fresh")
            answered(served)

    def test_fault(self, site: Site) -> None:
        """What callers would be told is a fault is an error, is told once, and is over when it is mended."""
        with serve(site, **METRICS) as served:
            answered(served, 1)
            served.server.engine.check = None  # type: ignore[method-assign,assignment] # fails inside, as a bad disk does
            eventually(lambda: outcomes(served)["error"] >= 3, "no error")
            del served.server.engine.check
            answered(served, 12)

            assert [event["outcome"] for event in served.events("probe_failed")] == ["error"]
            eventually(lambda: len(served.events("probe_answered")) == 1, "it is not told")
            assert not served.events("call_failed")

    def test_nobody(self) -> None:
        """Where nobody listens it is told so, and no time is."""
        with prober(["127.0.0.1:1"]) as (registry, log):
            eventually(lambda: value(registry, "unreachable") >= 2, "somebody answers")

            assert registry.get_sample_value("consent_probe_seconds_count") == 0
            assert len([line for line in log.getvalue().splitlines() if "probe_failed" in line]) == 1

    def test_silent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who takes the connection and says nothing runs out of time, which is in the histogram."""
        import socket

        monkeypatch.setattr(asking, "PATIENCE_S", 0.2)
        with (
            socket.create_server(("127.0.0.1", 0)) as silent,
            prober([f"127.0.0.1:{silent.getsockname()[1]}"]) as (registry, _),
        ):
            eventually(lambda: value(registry, "timeout") >= 2, "somebody answers")

            assert (registry.get_sample_value("consent_probe_seconds_count") or 0) >= 2
            assert registry.get_sample_value("consent_probe_seconds_bucket", {"le": "0.1"}) == 0

    def test_broken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An exception ends no thread: that would end the server."""

        def fail(*_: object, **__: object) -> None:
            raise MemoryError

        monkeypatch.setattr(grpc, "insecure_channel", fail)
        with prober(["127.0.0.1:1"]) as (registry, log):
            eventually(lambda: value(registry, "error") >= 2, "it has ended")

            assert "probe_broken" in log.getvalue()

    def test_wrong_certificate(self, site: Site, certs: Path, tmp_path: Path) -> None:
        """Another server in this one's place is not believed, whatever its CA is."""
        flags = {"tls_cert": certs / "server.pem", "tls_key": certs / "server.key"}
        subprocess.run(
            [sys.executable, "-m", "iyscheck", "certs", "dev", str(tmp_path / "o")], check=True, capture_output=True
        )
        other = Site(site.path).settings(tls_cert=tmp_path / "o" / "server.pem", tls_key=tmp_path / "o" / "server.key")
        from iyscheck.server.app import open_certificates

        with (
            serve(site, **flags) as served,
            prober([served.server.address], served=open_certificates(other)) as (registry, _),
        ):
            eventually(lambda: value(registry, "unreachable") >= 2, "it is believed")
            assert value(registry, "ok") == 0


def value(registry: CollectorRegistry, outcome: str) -> float:
    """Say how often an outcome was counted."""
    return registry.get_sample_value("consent_probes_total", {"outcome": outcome}) or 0


@contextmanager
def prober(addresses: Sequence[str], served: Any = None) -> Iterator[tuple[CollectorRegistry, io.StringIO]]:  # noqa: ANN401 - certificates
    """Run a prober by itself."""
    registry, log = CollectorRegistry(), io.StringIO()
    probe, key = new_probe(ADDRESS_KEY.key_id, with_certificate=False)
    asker = Asker(probe=probe, key=key, served=served)
    running = Prober(addresses, (), asker, open_log("debug", log), registry)
    running.thread.start()
    try:
        yield registry, log
    finally:
        running.stop()


class TestNoBackDoor:
    """What the secret is worth."""

    def test_question(self) -> None:
        """The question is about a brand whose rows no loader takes, is new for each start, and is in no text."""
        one, _ = new_probe(ADDRESS_KEY.key_id, with_certificate=True)
        other, _ = new_probe(ADDRESS_KEY.key_id, with_certificate=True)
        asked = v1.CheckRequest.FromString(one.question)

        assert TEST_BRAND == PASSED_OVER == asked.question.brand_code
        assert one.question != other.question
        assert one.certificate != other.certificate
        assert asked.client_reference not in repr(one)
        assert Probe.of_plain(json.loads(json.dumps(one.plain()))) == one

    @pytest.mark.parametrize("front", ["grpc", "native"])
    def test_nearly(self, site: Site, front: str) -> None:
        """What differs from the question in a single place is a caller's, who must show who it is."""
        (site.path / "callers.toml").write_text(FILE)
        with serve(site, front=front, callers=site.path / "callers.toml", **METRICS) as served:
            probe = served.server._probe
            assert probe is not None
            other_brand = v1.CheckRequest.FromString(probe.question)
            other_brand.question.brand_code = 1
            other_secret = v1.CheckRequest.FromString(probe.question)
            other_secret.client_reference = other_secret.client_reference[:-1] + "_"
            for data in (
                other_brand.SerializeToString(),
                other_secret.SerializeToString(),
                probe.question + b"\x1a\x00",
            ):
                with pytest.raises(grpc.RpcError) as refused:
                    served.call("Check", data)
                assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
            for method in ("BatchCheck", "CheckFrame", "GetServerInfo"):
                with pytest.raises(grpc.RpcError) as refused:
                    served.call(method, probe.question)
                assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED

            reply = v1.CheckResponse.FromString(served.call("Check", probe.question))
            assert not reply.permitted
            assert reply.reason == v1.REASON_BRAND_NOT_REGISTERED
            assert not reply.client_reference

    def test_certificate(self, site: Site, certs: Path) -> None:
        """The prober's certificate opens the handshake only, and that of no other server: each start has its own."""
        flags = {"tls_cert": certs / "server.pem", "tls_key": certs / "server.key", "tls_client_ca": certs / "ca.pem"}
        (site.path / "callers.toml").write_text(FILE)
        with reading(site, callers=site.path / "callers.toml", **flags) as (_, served), ExitStack() as parts:
            probe, own = served.server._probe, served.server._probe_key
            assert probe is not None
            other, key = new_probe(ADDRESS_KEY.key_id, with_certificate=True)

            def ask(certificate: bytes, private: bytes) -> grpc.StatusCode:
                ca = (certs / "ca.pem").read_bytes()
                credentials = grpc.ssl_channel_credentials(ca, private, certificate)
                options = (("grpc.use_local_subchannel_pool", 1),)
                channel = parts.enter_context(grpc.secure_channel(served.server.address, credentials, options=options))
                call: Any = channel.unary_unary("/iyscheck.v1.ConsentCheckService/Check")
                with pytest.raises(grpc.RpcError) as refused:
                    call(v1.CheckRequest(question=QUESTION).SerializeToString(), timeout=5)
                code: grpc.StatusCode = refused.value.code()
                return code

            assert ask(probe.certificate, own) is grpc.StatusCode.UNAUTHENTICATED
            assert ask(other.certificate, key) is grpc.StatusCode.UNAVAILABLE
            assert CLIENT_NAME not in probe.certificate.decode()

    def test_not_told(self, site: Site) -> None:
        """The secret is in no log and no metric."""
        with serve(site, log_level="debug", **METRICS) as served:
            answered(served)
            probe = served.server._probe
            assert probe is not None
            secret = v1.CheckRequest.FromString(probe.question).client_reference.removeprefix("probe-")

            assert len(secret) == 64
            assert secret not in served.scrape() + served.log.getvalue()

    def test_registered(self, tmp_path: Path) -> None:
        """Were the brand registered after all, the probe would be answered all the same."""
        from tests.server.conftest import write_key

        write_key(tmp_path / "address.key", ADDRESS_KEY)
        write_key(tmp_path / "store.key", STORE_KEY)
        with StoreBuilder(tmp_path / "store") as store:
            store.brand(TEST_BRAND, watermark=None).commit()
        with serve(Site(tmp_path), **METRICS) as served:
            answered(served)
