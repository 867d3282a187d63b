"""What a client finds out where nobody has ever answered it, and what that costs whom."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic

import grpc
import pytest

from iyscheck.client import AsyncClient, Client, Tls, silence
from iyscheck.client.failures import Heard
from iyscheck.client.route import Route, is_one_address
from iyscheck.client.silence import Silence
from iyscheck.consent import Channel, RecipientType
from iyscheck.errors import ServiceError
from tests.client.fake_server import serving


class Ended(grpc.RpcError):
    """What gRPC says of a call that found nobody."""

    def __init__(self, details: str, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        self._told = code, details

    def code(self) -> grpc.StatusCode:
        """Give the status."""
        return self._told[0]

    def details(self) -> str:
        """Give the text."""
        return self._told[1]

    def trailing_metadata(self) -> tuple[()]:
        """Nothing, as where no server of ours was."""
        return ()


REFUSED_6 = "last error: UNKNOWN: ipv6:%5B::1%5D:5700: Failed to connect to remote host: Connection refused"
REFUSED_4 = "last error: UNKNOWN: ipv4:127.0.0.1:5700: Failed to connect to remote host: Connection refused"
NO_TLS = "last error: UNKNOWN: ipv4:127.0.0.1:5700: Tls handshake failed: SSL routines:WRONG_VERSION_NUMBER: Invalid"
CLOSED_4 = "last error: UNAVAILABLE: ipv4:127.0.0.1:5700: Socket closed"


@pytest.mark.parametrize(
    ("heard", "told"),
    [
        ([NO_TLS, REFUSED_6], NO_TLS),
        ([REFUSED_6, NO_TLS], NO_TLS),
        ([CLOSED_4, REFUSED_6, REFUSED_6], CLOSED_4),
        ([CLOSED_4, REFUSED_4], REFUSED_4),  # the server has gone meanwhile
        (["Socket closed", REFUSED_4], REFUSED_4),
        ([REFUSED_6, REFUSED_4], REFUSED_4),
    ],
)
def test_heard(heard: list[str], told: str) -> None:
    """The most telling of the latest errors of all addresses counts."""
    hearing = Heard()
    for details in heard:
        hearing.hear(Ended(details))
    found = hearing.told()

    assert found is not None
    assert found.details() == told


@pytest.mark.parametrize("target", ["127.0.0.1:1", "[::1]:1", "unix:/run/x", "ipv4:127.0.0.1:1"])
def test_one_address(target: str) -> None:
    """A number is one address."""
    assert is_one_address(target)


@pytest.mark.parametrize("target", ["localhost:1", "server.example:1", "ipv4:127.0.0.1:1,127.0.0.2:1", "dns:///a:1"])
def test_several_addresses(target: str) -> None:
    """A name may have several."""
    assert not is_one_address(target)


@contextmanager
def closing() -> Iterator[tuple[str, list[int]]]:
    """A server that closes each connection at once, and how many there were."""
    count = [0]
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                count[0] += 1
                connection.recv(65_536)  # all of it, or it is reset
                connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}", count
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_one_look() -> None:
    """Threads that come meanwhile, and whoever comes later, get what one look has found."""
    with closing() as (target, count), ThreadPoolExecutor(8) as pool:
        quiet = Silence(Route(target))
        found = [each.result() for each in [pool.submit(quiet.look) for _ in range(8)]]
        looked = count[0]
        found += [quiet.look(), asyncio.run(quiet.look_by_task())]

        assert [each.code for each in found if each is not None] == ["HANDSHAKE_FAILED"] * 10
        assert count[0] == looked
        quiet.answered = True
        assert quiet.look() is None


def test_silent_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes connections and says nothing is late, and a look at it ends."""
    monkeypatch.setattr(silence, "LOOK_S", 0.2)
    who = {"brand": 1, "channel": Channel.MESAJ, "recipient_type": RecipientType.BIREYSEL, "address": "05321234567"}
    with socket.create_server(("127.0.0.1", 0)) as listening:
        target = f"127.0.0.1:{listening.getsockname()[1]}"
        began = monotonic()
        with Client(target, tls=Tls(), timeout_s=0.1) as client, pytest.raises(ServiceError) as failed:
            client.check(**who)  # type: ignore[arg-type] # as named
    assert failed.value.code == "DEADLINE_EXCEEDED"
    assert "did not answer within 0.1 s" in str(failed.value)
    assert monotonic() - began < 20  # a guard, no measurement


def test_healthy_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A late call of a server that has answered before has no look, nor has a call that was answered."""

    def never(_: Silence) -> None:
        raise AssertionError("it had a look")

    monkeypatch.setattr(Silence, "_looked", never)
    monkeypatch.setattr(Silence, "_looked_by_task", never)
    who = {"brand": 1, "channel": Channel.MESAJ, "recipient_type": RecipientType.BIREYSEL, "address": "05321234567"}

    async def late_by_task(target: str) -> None:
        async with AsyncClient(target) as client:
            await client.server_info()
            await client.check(**who, timeout_s=0.1)  # type: ignore[arg-type] # as named

    with serving() as service:
        service.delay_s = 0.5
        with Client(service.target) as client:
            client.server_info()
            with pytest.raises(ServiceError, match="did not answer within"):
                client.check(**who, timeout_s=0.1)  # type: ignore[arg-type] # as named
        with pytest.raises(ServiceError, match="did not answer within"):
            asyncio.run(late_by_task(service.target))
