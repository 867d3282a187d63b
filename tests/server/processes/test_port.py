import errno
import socket
import threading

import pytest

from iyscheck.errors import SettingsError
from iyscheck.server.processes.port import Reservation


def listener(port: int = 0, *, shares: int = 0) -> socket.socket:
    """Listen on the loopback as another program does."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shares)
    try:
        made.bind(("127.0.0.1", port))
        made.listen()
    except OSError:
        made.close()
        raise
    return made


def port_of(address: str) -> int:
    """Return the number in `HOST:PORT`."""
    return int(address.rpartition(":")[2])


ADDRESSES_OF_LOCALHOST = ((socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1"))
ALL_ADDRESSES = ("0.0.0.0", "[::]")  # noqa: S104 - tests of just that


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", *ALL_ADDRESSES])
def test_any_port(host: str) -> None:
    """Port 0 becomes one that is free, under the name that was given."""
    with Reservation(f"{host}:0") as taken:
        assert taken.address == f"{host}:{port_of(taken.address)}"
        assert port_of(taken.address) > 0


def test_workers_share() -> None:
    """Workers may listen on a reserved port together; whoever would not share it may not."""
    with Reservation("127.0.0.1:0") as taken:
        port = port_of(taken.address)
        with pytest.raises(OSError, match="in use"):
            listener(port)
        with listener(port, shares=1), listener(port, shares=1), socket.create_connection(("127.0.0.1", port)):
            pass


def test_does_not_listen() -> None:
    """While no worker listens a connection is refused at once, not kept waiting."""
    with Reservation("127.0.0.1:0") as taken, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port_of(taken.address)), timeout=5)


@pytest.mark.parametrize("shares", [0, 1])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", *ALL_ADDRESSES])
def test_taken(host: str, shares: int) -> None:
    """A port on which somebody listens, willing to share it or not, is an error of the setting."""
    with listener(shares=shares) as other:
        with pytest.raises(SettingsError, match="in use") as caught:
            Reservation(f"{host}:{other.getsockname()[1]}")

        assert caught.value.field == "listen"


def test_second_reservation() -> None:
    """Two servers never share a port, even while no worker of the first one listens."""
    with Reservation("127.0.0.1:0") as taken, pytest.raises(SettingsError, match="in use"):
        Reservation(taken.address)


def test_free_again() -> None:
    """The end of a reservation frees the port, although connections of its workers are still closing."""
    with Reservation("127.0.0.1:0") as taken:
        port = port_of(taken.address)
        with listener(port, shares=1) as worker:
            client = socket.create_connection(("127.0.0.1", port))
            accepted, _ = worker.accept()
            accepted.close()  # the side that closes first remembers the connection for a minute
            client.close()

    with Reservation(f"127.0.0.1:{port}") as again:
        assert port_of(again.address) == port


def test_waits() -> None:
    """A port that is taken may become free for as long as its caller has patience, who is told once."""
    told: list[int] = []
    with listener() as other:
        port = other.getsockname()[1]
        soon = threading.Timer(0.2, other.close)

        def tell() -> None:
            told.append(port)
            soon.start()

        with Reservation(f"127.0.0.1:{port}", patience_s=60, waits=tell) as taken:
            assert port_of(taken.address) == port
    soon.join()

    assert told == [port]


def test_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address of version 6 keeps its scope, without which one of a link means nothing."""
    bound: list[object] = []

    class Noting(socket.socket):
        def bind(self, address: object) -> None:
            bound.append(address)
            super().bind(("::1", 0))

    found = [(socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("fe80::1", 0, 0, 7))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(socket, "socket", Noting)

    with Reservation("[fe80::1%seven]:0"):
        assert bound == [("fe80::1", 0, 0, 7)]


def test_any_other_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where any port will do another one is tried if the first is not free on all of a name's addresses."""
    tried: list[int] = []

    def take(self: Reservation, _: object, family: int, __: object) -> bool:
        tried.append(self._port)
        self._port = 1_000 + len(tried)
        if len(tried) == 2:
            raise OSError(errno.EADDRINUSE, "in use")
        return True

    both = [(family, socket.SOCK_STREAM, 0, "", (host, 0)) for family, host in ADDRESSES_OF_LOCALHOST]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    monkeypatch.setattr(Reservation, "take", take)

    assert Reservation("localhost:0", patience_s=60).address == "localhost:1004"
    assert tried == [0, 1_001, 0, 1_003]


@pytest.mark.parametrize("listen", ["192.0.2.1:0", "no-such-host.invalid:0"])
def test_not_ours(listen: str) -> None:
    """An address that this machine does not have is an error of the setting, for which nobody waits."""
    told: list[str] = []
    with pytest.raises(SettingsError) as caught:
        Reservation(listen, patience_s=0.3, waits=lambda: told.append(listen))

    assert told == []

    assert caught.value.field == "listen"


def test_absent_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a name's addresses those that the machine has are enough."""
    both = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, 0)) for host in ("192.0.2.1", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)

    with Reservation("somewhere:0") as taken, listener(port_of(taken.address), shares=1):
        pass


def test_absent_family(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a machine need all kinds of addresses that a name has."""

    class Version4Only(socket.socket):
        def __init__(self, family: int, kind: int) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "not here")
            super().__init__(family, kind)

    both = [(family, socket.SOCK_STREAM, 0, "", (host, 0)) for family, host in ADDRESSES_OF_LOCALHOST]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    monkeypatch.setattr(socket, "socket", Version4Only)

    with Reservation("localhost:0") as taken:
        assert port_of(taken.address) > 0
