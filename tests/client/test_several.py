"""Several servers: who is fresh is asked first, everybody where nobody is, and no call is lost on the way between."""

import gc
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import grpc
import pytest
from cryptography import x509

from iyscheck.change import Position
from iyscheck.client import Client, calls
from iyscheck.client.paths import Paths, TaskPaths
from iyscheck.client.route import Route, Tls
from iyscheck.consent import MessageClass, Reason
from iyscheck.errors import ServiceUnavailableError, SettingsError
from iyscheck.v1 import consent_check_pb2 as pb
from tests.client.asking import ADDRESS, KINDS, WHO, Asking
from tests.client.conftest import Ask
from tests.client.fake_server import LOG, Service, abort, envelope, serving
from tests.server.processes.running import eventually
from tests.server.test_tls import issued

OTHER: Final = Position(log_id=LOG, sequence=1)


def check(client: Any) -> Any:  # noqa: ANN401 - either client, and what it gives
    """Ask one question."""
    return client.check(**WHO, address=ADDRESS)


def column(client: Any) -> Any:  # noqa: ANN401 - as above
    """Ask a column of several frames."""
    return client.check_column(**WHO, recipients=[ADDRESS] * 40, frame_size=10)


@pytest.fixture
def servers() -> Iterator[list[Service]]:
    """Three servers, of which the second is not fresh."""
    with ExitStack() as parts:
        made = [parts.enter_context(serving(watched=True)) for _ in range(3)]
        for number, service in enumerate(made):
            service.say_fresh(number != 1)
        yield made


def listed(servers: list[Service]) -> str:
    """Name them all, as a user does."""
    return ",".join(service.target for service in servers)


def counts(servers: list[Service]) -> list[int]:
    """Count what each was asked, and forget it."""
    found = [len(service.requests) for service in servers]
    for service in servers:
        service.requests.clear()
    return found


class TestRoute:
    """Which targets are several servers, and how they are named."""

    @pytest.mark.parametrize(
        ("target", "address"),
        [
            ("10.0.0.1:50051,10.0.0.2:50051", "ipv4:10.0.0.1:50051,10.0.0.2:50051"),
            (" 10.0.0.1:1 , 10.0.0.2:2", "ipv4:10.0.0.1:1,10.0.0.2:2"),
            ("[fd00::1]:50051,[fd00::2]:50051", "ipv6:[fd00::1]:50051,[fd00::2]:50051"),
            ("ipv4:10.0.0.1:1,10.0.0.2:1", "ipv4:10.0.0.1:1,10.0.0.2:1"),
            ("ipv6:[::1]:1,[::2]:1", "ipv6:[::1]:1,[::2]:1"),
            ("dns:///iyscheck.example:50051", "dns:///iyscheck.example:50051"),
            ("DNS:iyscheck.example:50051", "DNS:iyscheck.example:50051"),
        ],
    )
    def test_several(self, target: str, address: str) -> None:
        """Lists of IP addresses, and names that are said to be of DNS."""
        route = Route(target)
        assert (route.address, route.several) == (address, True)

    @pytest.mark.parametrize(
        "target",
        [
            "127.0.0.1:50051",
            "[::1]:1",
            "gw1.example:50051",
            "localhost:1",
            "unix:/run/a,b",
            "ipv4:10.0.0.1:1",
            "dns:1.2.3.4:1",
        ],
    )
    def test_one(self, target: str) -> None:
        """What is one address, or a name without a word on DNS, is asked as it is."""
        route = Route(target)
        assert (route.address, route.several) == (target, False)

    @pytest.mark.parametrize(
        ("target", "says"),
        [
            (
                "10.0.0.1:1,gw2.example:1",
                "gw2.example:1 is no IP address with a port. Give one name .* dns:///NAME:PORT",
            ),
            ("gw1.example:1,gw2.example:1", "dns:///"),
            ("10.0.0.1:1,", "one of its places is no IP address"),
            ("10.0.0.1,10.0.0.2:1", "10.0.0.1 lacks its port. Give 10.0.0.1:50051"),
            ("[::1],[::2]:1", r"\[::1\] lacks its port. Give \[::1\]:50051"),
            ("10.0.0.1:1;10.0.0.2:1", "'10.0.0.1:1;10.0.0.2:1', and no HOST:PORT. .* stand commas"),
            ("dns:///gw1.example:1; gw2.example:1", "no HOST:PORT"),
            ("10.0.0.1:1 10.0.0.2:1", "no HOST:PORT"),
            ("10.0.0.1:1,[::1]:1", "list of IPv4 and IPv6 addresses. List addresses of one kind"),
        ],
    )
    def test_refused(self, target: str, says: str) -> None:
        """A list of anything else is refused, with what to write instead."""
        with pytest.raises(SettingsError, match=says):
            Route(target)


class TestPreference:
    """Where calls go."""

    @pytest.mark.parametrize("call", [check, column], ids=["check", "column"])
    def test_stale_is_left_out(self, ask: Ask, servers: list[Service], call: Callable[[Client], object]) -> None:
        """Nobody asks a server that is not fresh while others are, from the first call on; these take turns."""
        ask(listed(servers), *[call] * 12)
        asked = counts(servers)

        assert asked[1] == 0
        assert min(asked[0], asked[2]) > 0

    def test_names(self, ask: Ask, servers: list[Service]) -> None:
        """A name of DNS is looked up, and its servers are asked in the same way."""
        with serving(watched=True) as fresh:
            fresh.say_fresh(True)
            ask(f"dns:///localhost:{fresh.port}", *[check] * 3)
            assert len(fresh.requests) == 3
        del servers

    def test_everybody_stale(self, ask: Ask, servers: list[Service]) -> None:
        """Where nobody is fresh everybody is asked, all calls are answered, and all take turns."""
        for service in servers:
            service.say_fresh(False)
        answers = ask(listed(servers), *[check] * 12)
        exempt = ask(
            listed(servers),
            lambda client: client.check(**WHO, address=ADDRESS, message_class=MessageClass.SECURITY_CODE),
        )

        assert {answer.reason for answer in answers} == {Reason.CONSENTED}
        assert len(exempt) == 1
        assert min(counts(servers)) > 0

    @pytest.mark.parametrize("watched", [True, False], ids=["unknown", "unimplemented"])
    def test_yesterdays_servers(self, ask: Ask, watched: bool) -> None:  # noqa: FBT001 - pytest's
        """Servers whose health knows nothing of freshness, or that have none, are asked as ever."""
        with serving(watched=watched) as one, serving(watched=watched) as other:
            answers = ask(listed([one, other]), *[check] * 6, column)
            assert len(answers) == 7
            assert min(counts([one, other])) > 0

    def test_yesterdays_client(self, servers: list[Service], monkeypatch: pytest.MonkeyPatch) -> None:
        """A client that prefers nobody asks all of them."""
        monkeypatch.setattr(calls, "FRESH_CHANNEL_OPTIONS", calls.CHANNEL_OPTIONS)
        with Client(listed(servers)) as client:
            for _ in range(9):
                check(client)
        assert min(counts(servers)) > 0

    def test_one_address(self, ask: Ask) -> None:
        """One address is not watched, and is asked whatever it says of itself."""
        with serving(watched=True) as only:
            only.say_fresh(False)
            ask(only.target, check, column)
            assert only.health.watches == 0


class TestSwitching:
    """Servers become fresh and stale under calls."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_no_call_lost(self, servers: list[Service], kind: str) -> None:
        """However often servers change, together or by turns, each call is answered."""
        asking = Asking(listed(servers), kind)
        with asking:
            for number in range(40):
                for place, service in enumerate(servers):
                    service.say_fresh((number + place) % 3 == 0 if number % 4 else bool(number % 8))
                time.sleep(0.01)
            asking.wait_for_more(20)
        assert asking.failed == []

    def test_lost_on_the_way(self, ask: Ask, servers: list[Service], monkeypatch: pytest.MonkeyPatch) -> None:
        """A call that is already on its way when nobody is fresh any more is answered by others, in its own time."""
        for service in servers:
            service.say_fresh(False)

        async def known(_: TaskPaths, __: float = 0) -> bool:
            return True

        monkeypatch.setattr(Paths, "leads_to_fresh", lambda _, __=0: True)
        monkeypatch.setattr(TaskPaths, "known", known)
        assert ask(listed(servers), check)[0].reason is Reason.CONSENTED

    @pytest.mark.parametrize("kind", KINDS)
    def test_becomes_fresh(self, servers: list[Service], kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who becomes fresh is asked again, and who is fresh no more is not; streams move soon."""
        monkeypatch.setattr(calls, "MOVE_S", 0.1)
        with Asking(listed(servers), kind) as asking:
            asking.wait_for_more(5)
            servers[1].say_fresh(True)
            eventually(lambda: servers[1].requests, "the fresh one is not asked")
            servers[0].say_fresh(False)
            servers[2].say_fresh(False)

            def moved() -> bool:
                """Only the second one is asked, for longer than a stream takes to move."""
                counts(servers)
                time.sleep(0.15)
                asked = counts(servers)
                return asked[0] == asked[2] == 0 and asked[1] > 0

            eventually(moved, "the stale ones are still asked")
            servers[1].say_fresh(False)
            asking.wait_for_more(5)
        assert asking.failed == []

    @pytest.mark.parametrize("kind", KINDS)
    def test_only_fresh_one_ends(self, kind: str) -> None:
        """When the only fresh server goes, the others answer in time what was to be asked there."""
        with serving(watched=True) as stale, ExitStack() as parts:
            fresh = parts.enter_context(serving(watched=True))
            fresh.say_fresh(True)
            stale.say_fresh(False)
            with Asking(listed([fresh, stale]), kind, timeout_s=10) as asking:
                asking.wait_for_more(5)
                assert stale.requests == []
                parts.close()
                asking.wait_for_more(20)
            assert asking.failed == []
            assert stale.requests


class TestOtherProcesses:
    """What a client is where its threads are not."""

    def test_forked(self, servers: list[Service], monkeypatch: pytest.MonkeyPatch) -> None:
        """In a forked child nobody watches: all servers are asked, whatever was known before."""
        paths = Paths(Route(listed(servers)))
        assert paths.leads_to_fresh(20)
        monkeypatch.setattr(os, "getpid", lambda: 1)
        assert not paths.leads_to_fresh()
        paths.close()

    def test_gevent(self, servers: list[Service], monkeypatch: pytest.MonkeyPatch) -> None:
        """Where gevent has replaced threads there is one path, to all servers."""
        patched = SimpleNamespace(is_module_patched=lambda _: True)
        monkeypatch.setitem(sys.modules, "gevent.monkey", patched)
        with Client(listed(servers)) as client:
            for _ in range(9):
                check(client)
        assert min(counts(servers)) > 0

    def test_unclosed(self, servers: list[Service]) -> None:
        """What nobody closes goes when nobody has it any more, though a call of it waits for somebody fresh."""
        for service in servers:
            service.say_fresh(False)
        paths = Paths(Route(listed(servers)))
        assert not paths.leads_to_fresh(20)
        here = weakref.ref(paths)
        del paths
        gc.collect()
        assert here() is None


class TestTls:
    """Several servers over TLS."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_moves(self, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Servers of a list prove the name that is given; clients move between them, also without their files."""
        monkeypatch.setattr(calls, "MOVE_S", 0.1)
        certs = issued(tmp_path / "certs", "server", x509.DNSName("iyscheck.example"))
        credentials = grpc.ssl_server_credentials(
            [((certs / "server.key").read_bytes(), (certs / "server.pem").read_bytes())]
        )
        with ExitStack() as parts:
            made = [parts.enter_context(serving(watched=True, credentials=credentials)) for _ in range(2)]
            made[0].say_fresh(True)
            made[1].say_fresh(False)
            tls = Tls(ca=certs / "ca.pem", name="iyscheck.example")
            with Asking(listed(made), kind, tls=tls) as asking:
                asking.wait_for_more(5)
                assert made[1].requests == []
                (certs / "ca.pem").unlink()
                for fresh in (1, 0):
                    made[fresh].say_fresh(True)
                    made[1 - fresh].say_fresh(False)
                    counts(made)
                    eventually(lambda fresh=fresh: made[fresh].requests, "it is not asked")  # type: ignore[misc] # mypy wants a type
                for service in made:
                    service.say_fresh(False)
                counts(made)
                eventually(lambda: all(service.requests for service in made), "they do not take turns")
                asking.wait_for_more(20)
            assert asking.failed == []


class TestPosition:
    """Servers that have come to different positions."""

    def test_another_is_asked(self, ask: Ask, servers: list[Service]) -> None:
        """Who has not come so far yet is passed over, by single calls and columns, and by those that gather."""
        servers[1].say_fresh(True)

        def not_yet(request: pb.CheckRequest, context: Any) -> pb.CheckResponse:  # noqa: ANN401 - of gRPC
            if request.HasField("min_position"):
                abort(context, grpc.StatusCode.UNAVAILABLE, "NOT_YET_AT_POSITION")
            return pb.CheckResponse(reason=1, permitted=True, envelope=envelope())  # type: ignore[arg-type] # a number

        def frames(requests: Iterator[pb.StreamCheckRequest], _: object) -> Iterator[pb.StreamCheckResponse]:
            for request in requests:
                yield pb.StreamCheckResponse(
                    frame_id=request.frame_id,
                    error=pb.ItemError(reason="NOT_YET_AT_POSITION", message="Not yet."),
                )

        for service in servers[:2]:
            service.reply, service.frames = not_yet, frames
        single = ask(
            listed(servers), *[lambda client: client.check(**WHO, address=ADDRESS, min_position=OTHER, timeout_s=5)] * 6
        )
        columns = ask(
            listed(servers),
            *[lambda client: client.check_column(**WHO, recipients=[ADDRESS] * 30, frame_size=10, min_position=OTHER)]
            * 3,
        )

        assert {answer.reason for answer in single} == {Reason.CONSENTED}
        assert [len(found.reasons) for found in columns] == [30] * 3

    @pytest.mark.parametrize("kind", ["batching", "async batching"])
    def test_gathered(self, servers: list[Service], kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Calls that travel together do so, too."""
        servers[1].say_fresh(True)
        met = threading.Event()

        def frames(requests: Iterator[pb.StreamCheckRequest], _: object) -> Iterator[pb.StreamCheckResponse]:
            for request in requests:
                met.set()
                yield pb.StreamCheckResponse(
                    frame_id=request.frame_id,
                    error=pb.ItemError(reason="NOT_YET_AT_POSITION", message="Not yet."),
                )

        for service in servers[:2]:
            service.frames = frames
        monkeypatch.setattr(calls, "MOVE_S", 0.05)
        with Asking(listed(servers), kind, timeout_s=10) as asking:
            eventually(met.is_set, "nobody meets a server that has not come so far")
            asking.wait_for_more(20)
        assert asking.failed == []

    @pytest.mark.thorough
    def test_nobody_has_come_so_far(self, ask: Ask, servers: list[Service]) -> None:
        """Where nobody has come so far, that is what the caller is told."""

        def frames(requests: Iterator[pb.StreamCheckRequest], _: object) -> Iterator[pb.StreamCheckResponse]:
            for request in requests:
                yield pb.StreamCheckResponse(
                    frame_id=request.frame_id,
                    error=pb.ItemError(reason="NOT_YET_AT_POSITION", message="Not yet."),
                )

        for service in servers:
            service.frames = frames
        with pytest.raises(ServiceUnavailableError) as told:
            ask(listed(servers), column)
        assert told.value.code == "NOT_YET_AT_POSITION"
