import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import Histogram

from iyscheck import wire
from iyscheck.consent import Channel, MessageClass, RecipientType
from iyscheck.errors import SettingsError, StoreKeysError, StoreMissingError, StoreUnreadableError
from iyscheck.keys import StoreKey
from iyscheck.question import Context, Question
from iyscheck.server.fronts.health import FRESH, Health
from iyscheck.server.log import open_log
from iyscheck.server.settings import Settings
from iyscheck.v1.consent_check_pb2_grpc import ConsentCheckServiceStub
from tests.server.conftest import CONSENTED, Served, Site, make_site, serve
from tests.server.processes.running import eventually

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE = "iyscheck.v1.ConsentCheckService"
NAMES = ("", SERVICE, FRESH)
CONTEXT = Context(brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)
FRAME = wire.frame(CONTEXT, addresses=[CONSENTED])


def question(message_class: MessageClass) -> Question:
    """Ask about somebody who has consented."""
    context = Context(
        brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, message_class=message_class
    )
    return Question(context=context, address=CONSENTED)


class FakeEngine:
    """An engine whose state a test sets."""

    def __init__(self) -> None:
        self.is_fresh = True
        self.lag: float | None = None
        self.failure: Exception | None = None

    def freshness(self) -> object:
        """Open a snapshot, or fail."""
        if self.failure:
            raise self.failure
        return None

    def fresh(self) -> bool:
        """Say what the test set."""
        return self.is_fresh

    def lag_s(self) -> float | None:
        """Say what the test set."""
        return self.lag

    def sweep_readers(self) -> int:
        """Nothing to free."""
        return 0


def told(health: Health, service: str) -> Any:  # noqa: ANN401 - a number of the protocol
    """Ask the servicer without a socket."""
    context: Any = None
    return health.servicer.Check(health_pb2.HealthCheckRequest(service=service), context).status


class TestComponents:
    """The empty name and the service are the process and its store, a third name also the freshness of its data."""

    @pytest.mark.parametrize("failure", [StoreUnreadableError("gone"), ValueError("unforeseen")])
    def test_refresh(self, failure: Exception) -> None:
        """Stale data closes the name of freshness only, an unreadable store all, and what mends opens again."""
        engine = FakeEngine()
        log = io.StringIO()
        health = Health(engine, Histogram("t", "t", registry=None), open_log("debug", log))

        seen = []
        for fresh, error in ((True, None), (False, None), (True, failure), (True, None)):
            engine.is_fresh, engine.failure = fresh, error
            health.refresh()
            seen.append((told(health, ""), told(health, SERVICE), told(health, FRESH)))

        assert seen == [
            (SERVING, SERVING, SERVING),
            (SERVING, SERVING, NOT_SERVING),
            (NOT_SERVING, NOT_SERVING, NOT_SERVING),
            (SERVING, SERVING, SERVING),
        ]
        assert "gone" not in log.getvalue()
        assert "unforeseen" not in log.getvalue()

    def test_beside(self) -> None:
        """What else the thread does may fail: that is logged, and health goes on, as does the rest."""
        log, done = io.StringIO(), threading.Event()
        health = Health(FakeEngine(), Histogram("t", "t", registry=None), open_log("debug", log))
        health.beside += [lambda: int("none"), done.set]
        health.start()

        assert done.wait(20)
        health.stop()
        assert '"late_calls_not_ended"' in log.getvalue()

    def test_drain(self) -> None:
        """Once draining, nothing makes it serve again."""
        health = Health(FakeEngine(), Histogram("t", "t", registry=None), open_log("error", io.StringIO()))
        health.start()

        health.drain()
        health.refresh()

        assert {told(health, name) for name in NAMES} == {NOT_SERVING}
        assert health.serving() == dict.fromkeys(NAMES, False)

    def test_serving(self) -> None:
        """Whoever operates the server is told of each name what was told last."""
        health = Health(FakeEngine(), Histogram("t", "t", registry=None), open_log("error", io.StringIO()))
        before = health.serving()
        health.refresh()

        assert before == {}
        assert health.serving() == {name: told(health, name) == SERVING for name in NAMES}


class TestOnTheWire:
    """Health is asked and watched through gRPC."""

    def test_check(self, served: Served) -> None:
        """A readable, fresh store serves under all names; another name is NOT_FOUND."""
        stub: Any = health_pb2_grpc.HealthStub(served.channel)

        statuses = [stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5).status for name in NAMES]

        assert statuses == [SERVING] * 3
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="other"), timeout=5)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND

    def test_stale(self, site: Site) -> None:
        """With stale data answers can be given, as one-time passwords are: only freshness is NOT_SERVING."""
        time.sleep(1.1)
        with serve(site, freshness_limit=1, metrics_listen="127.0.0.1:0") as served:
            stub: Any = health_pb2_grpc.HealthStub(served.channel)

            statuses = [stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5).status for name in NAMES]
            code = served.stub.Check(wire.check_request(question(MessageClass.SECURITY_CODE)), timeout=5)
            offer = served.stub.Check(wire.check_request(question(MessageClass.COMMERCIAL)), timeout=5)

            assert statuses == [SERVING, SERVING, NOT_SERVING]
            assert [served.metric("consent_serving", service=name) for name in NAMES] == [1, 1, 0]
            assert (code.permitted, offer.permitted) == (True, False)

    def test_moved_away(self, site: Site) -> None:
        """A store that is no longer at its path is neither healthy nor readable in the metrics, until it is back."""
        with serve(site, metrics_listen="127.0.0.1:0") as served:
            stub: Any = health_pb2_grpc.HealthStub(served.channel)

            def seen() -> tuple[set[int], float, float]:
                asked = [stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5).status for name in NAMES]
                return set(asked), served.metric("consent_store_readable"), served.metric("consent_serving")

            assert seen() == ({SERVING}, 1, 3)
            (site.path / "store").rename(site.path / "elsewhere")
            eventually(lambda: seen() == ({NOT_SERVING}, 0, 0), "both tell that it is gone")
            code = served.stub.Check(wire.check_request(question(MessageClass.SECURITY_CODE)), timeout=5)
            offer = served.stub.Check(wire.check_request(question(MessageClass.COMMERCIAL)), timeout=5)
            (site.path / "elsewhere").rename(site.path / "store")
            eventually(lambda: seen() == ({SERVING}, 1, 3), "both tell that it is back")

        assert code.permitted
        assert not offer.permitted

    def test_ends(self, site: Site) -> None:
        """While a server ends the metrics say, as health does, that it does not serve."""
        with serve(site, metrics_listen="127.0.0.1:0") as served:
            registry = served.server._metrics.registry
            before = [registry.get_sample_value("consent_serving", {"service": name}) for name in NAMES]
            served.server.stop(0)

            assert before == [1, 1, 1]
            assert [registry.get_sample_value("consent_serving", {"service": name}) for name in NAMES] == [0, 0, 0]

    def test_watch(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        """Far more watchers than threads hear of a change, and none keeps the server from ending."""
        with serve(site, max_streams=1, unary_workers=1) as served:
            stub: Any = health_pb2_grpc.HealthStub(served.channel)
            request = health_pb2.HealthCheckRequest(service=FRESH)
            watches = [stub.Watch(request, timeout=20) for _ in range(50)]
            first = [next(watch).status for watch in watches]

            monkeypatch.setattr(served.server.engine, "fresh", lambda: False)
            second = [next(watch).status for watch in watches]
            began = time.monotonic()
            served.server.stop(5)
            took = time.monotonic() - began

            assert first == [SERVING] * 50
            assert second == [NOT_SERVING] * 50
            assert {watch.code() for watch in watches} == {grpc.StatusCode.UNAVAILABLE}
            assert took < 3


@contextmanager
def process(site: Site, *flags: str) -> Iterator[tuple["subprocess.Popen[str]", dict[str, Any]]]:
    """Run `iyscheck serve` and read where it listens; ends it where a test did not."""
    arguments = ["--store", "store", "--store-key", "store.key", "--address-key", "address.key", "--workers=1", *flags]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("IYSCHECK_")}
    root = str(Path(__file__).parents[3])
    code = f"import sys; sys.path.insert(0, {root!r}); from iyscheck.cli.serve import run; run({arguments!r})"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=site.path, env=environment, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        try:
            line: dict[str, Any] = {}
            while line.get("event") != "serving":
                line = json.loads(server.stderr.readline())
            yield server, line
        finally:
            if server.poll() is None:
                server.kill()


class TestProcess:
    """The command as an operator runs it."""

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_drain(self, site: Site, number: signal.Signals) -> None:
        """A signal says NOT_SERVING, lets an open stream finish, and ends with 0."""
        flags = ("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--drain-seconds", "5")
        with process(site, *flags) as (server, line), grpc.insecure_channel(line["listen"]) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=20)
            assert next(watch).status == SERVING

            def frames() -> Iterator[Any]:
                yield FRAME
                assert next(watch).status == NOT_SERVING
                watch.cancel()
                time.sleep(1)  # until the notice is over and only the grace keeps the stream
                yield FRAME

            replies = ConsentCheckServiceStub(channel).StreamCheck(frames(), timeout=20)
            next(replies)
            server.send_signal(number)
            rest = list(replies)

            assert len(rest) == 1
            assert server.wait(10) == 0

    def test_idle_stream(self, site: Site) -> None:
        """A stream that never ends is cut when the drain is over."""
        flags = ("--listen", "127.0.0.1:0", "--metrics-listen", "", "--drain-seconds", "0.3")
        with process(site, *flags) as (server, line), grpc.insecure_channel(line["listen"]) as channel:

            def frames() -> Iterator[Any]:
                yield FRAME
                server.wait(20)

            replies = ConsentCheckServiceStub(channel).StreamCheck(frames(), timeout=20)
            next(replies)
            server.terminate()

            assert server.wait(10) == 0
            with pytest.raises(grpc.RpcError):
                next(replies)

    def test_effective_settings(self, site: Site) -> None:
        """The first log line tells the real ports, position, freshness and every setting."""
        flags = ("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--answer-ttl", "2m")
        with process(site, *flags) as (server, line):
            server.terminate()

            assert not line["listen"].endswith(":0")
            assert line["sequence"] == 5
            assert line["watermark_age_s"] < 600
            assert line["settings"]["answer_ttl"] == 120
            assert line["settings"].keys() == Settings.model_fields.keys()


class TestStart:
    """A server that cannot serve says why in one sentence and does not start."""

    def test_port_in_use(self, site: Site, tmp_path: Path) -> None:
        """A port that is taken is an error of the setting; two servers never share one."""
        with serve(site, metrics_listen="127.0.0.1:0") as served:
            address, metrics = served.server.address, served.server.metrics_address
        other = tmp_path / "other"
        other.mkdir()
        make_site(other)
        with serve(site, listen=address, metrics_listen=metrics):
            for setting in ({"listen": address}, {"metrics_listen": metrics}):
                with pytest.raises(SettingsError) as caught, serve(Site(other), **setting):
                    pass
                assert [caught.value.field] == list(setting)

    def test_no_store(self, site: Site) -> None:
        """A store that is not there is an error."""
        with pytest.raises(StoreMissingError), serve(site, store=site.path / "elsewhere"):
            pass

    def test_wrong_keys(self, site: Site, tmp_path: Path) -> None:
        """Keys of another store are an error, never "no consent"."""
        StoreKey.create(tmp_path / "other.key")

        with pytest.raises(StoreKeysError), serve(site, store_key=tmp_path / "other.key"):
            pass


def test_a_question_through_the_process(site: Site) -> None:
    """The command answers what it is asked."""
    with process(site, "--listen", "127.0.0.1:0", "--metrics-listen", "") as (server, line):
        with grpc.insecure_channel(line["listen"]) as channel:
            request = wire.check_request(Question(context=CONTEXT, address=CONSENTED))
            answer = ConsentCheckServiceStub(channel).Check(request, timeout=5)
        server.terminate()

        assert answer.permitted
        assert server.wait(20) == 0
