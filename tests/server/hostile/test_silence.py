"""Clients that say nothing, or say it slowly: connections, handshakes, headers, messages."""

import re
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from iyscheck.server.bounds import Bounds
from tests.server.conftest import Site
from tests.server.hostile.conftest import QUESTION, Attacked, attacked, impatient
from tests.server.hostile.http2 import (
    CANCEL,
    END_HEADERS,
    HEADERS,
    PREFACE,
    Connection,
    block,
    data,
    frame,
    message,
    request,
    settings,
)
from tests.server.processes.running import eventually
from tests.server.test_tls import Setup, made

PAUSE_S = 0.3
MANY = 5_000
KEPT_MEGABYTES = 160
"""A connection takes some 16 KB, which an allocator keeps."""


def dribble(connection: Connection, content: bytes) -> int:
    """Send a byte at a time until the server ends the connection; gives how many it took."""
    over = threading.Event()
    sent = [0]

    def send() -> None:
        for at in range(len(content)):
            if over.wait(PAUSE_S) or not connection.try_to_send(content[at : at + 1]):
                return
            sent[0] += 1

    sender = threading.Thread(target=send)
    sender.start()
    assert connection.ended()
    over.set()
    sender.join()
    return sent[0]


@pytest.mark.parametrize("said", [b"", PREFACE[:10], PREFACE], ids=["nothing", "half a preface", "no SETTINGS"])
def test_half_open(hasty: Attacked, said: bytes) -> None:
    """Connections that do not finish their first words are ended when the time for the handshake is over."""
    with hasty.unharmed():
        open_ones = [Connection(hasty.address, greets=False) for _ in range(20)]
        for each in open_ones:
            each.send(said)
        ended = [each.ended() for each in open_ones]
        for each in open_ones:
            each.socket.close()

    assert all(ended)


def test_slow_preface(hasty: Attacked) -> None:
    """A byte now and then does not make that time longer."""
    with hasty.unharmed(), Connection(hasty.address, greets=False) as connection:
        taken = dribble(connection, PREFACE * 10)

    assert taken < len(PREFACE)


def test_slow_handshake(hostile_site: Site, tmp_path: Path) -> None:
    """The same holds for a handshake of TLS, whether nothing of it comes or a byte now and then."""
    setup = Setup(hostile_site, made(tmp_path / "certs"))
    hello, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(hello, out, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    said = out.read()
    flags = {name: str(path) for name, path in setup.flags().items()}
    with impatient(hostile_site, Bounds(handshake_s=1.0), **flags) as server:
        secure = Attacked(server.address, server.metrics, server.pid, setup.tls())
        with (
            secure.unharmed(),
            Connection(server.address, greets=False) as slow,
            Connection(server.address, greets=False) as silent,
        ):
            taken = dribble(slow, said)
            assert silent.ended()

    assert taken < len(said)


def slow_headers(connection: Connection) -> None:
    """Send the header of a call, which is longer than anybody's patience."""
    dribble(connection, frame(HEADERS, 1, block(request("Check", (b"x-long", b"y" * 200))), flags=END_HEADERS))


def nothing(connection: Connection) -> None:
    """Make no call."""
    assert connection.ended()


@pytest.mark.parametrize("does", [nothing, slow_headers])
def test_idle(hasty: Attacked, does: Callable[[Connection], None]) -> None:
    """A connection without a call is told to go, also one whose header never ends."""
    with hasty.unharmed(), Connection(hasty.address) as connection:
        does(connection)


@pytest.mark.parametrize("half", [b"", message(QUESTION, length=100_000)], ids=["no frame", "half a frame"])
def test_silent_streams(brief: Attacked, half: bytes) -> None:
    """Streams that send no frame, or half of one, end with their connection, and their places are free again."""
    with brief.unharmed():
        before = brief.metric("grpc_server_started_total", grpc_method="StreamCheck")
        open_ones = [Connection(brief.address) for _ in range(2)]
        for each in open_ones:
            each.call(1, "StreamCheck")
            each.send(data(1, half))
        assert [each.ended() for each in open_ones] == [True, True]
        for each in open_ones:
            each.socket.close()
        assert brief.metric("grpc_server_started_total", grpc_method="StreamCheck") == before + 2
        eventually(lambda: streams(brief), "a place for a stream is free")


def streams(server: Attacked) -> bool:
    """Whether a stream can be opened and ends well."""
    with Connection(server.address) as connection:
        connection.call(1, "StreamCheck")
        connection.send(data(1, b"", ends=True))
        return connection.answer(1).status == 0


@pytest.mark.parametrize("greets", [False, True], ids=["silent", "idle"])
def test_many(server: Attacked, greets: bool) -> None:  # noqa: FBT001 - pytest's
    """Five thousand connections hold descriptors and little else, and others are answered."""
    with server.unharmed(KEPT_MEGABYTES) as good:
        open_ones = [Connection(server.address, greets=greets) for _ in range(MANY)]
        seen = good.answered
        eventually(lambda: good.answered > seen + 20, "a good client is answered beside them")
        for each in open_ones:
            each.socket.close()


def test_bound(hostile_site: Site) -> None:
    """Beyond the bound a connection is ended at once. Those that are there go on, and room comes back."""
    with attacked(hostile_site, "--max-connections=20") as server:
        with server.asks() as client:
            assert client.server_info()
            open_ones = [Connection(server.address) for _ in range(19)]
            for each in open_ones:
                each.call(1, "StreamCheck")
            with Connection(server.address) as one_more:
                assert one_more.ended()
            assert client.server_info()
            for each in open_ones:
                each.send(frame(3, 1, CANCEL.to_bytes(4, "big")))
                each.socket.close()
        eventually(lambda: streams(server), "room for a connection came back")


def test_few_descriptors(hostile_site: Site) -> None:
    """A server that may open few files takes fewer connections, says so, and goes on answering."""
    few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))"
    with attacked(hostile_site, before=few) as server, server.unharmed():
        open_ones = [Connection(server.address, greets=False) for _ in range(400)]
        for each in open_ones:
            each.try_to_send(PREFACE + settings())
        for each in open_ones:
            each.socket.close()
    log = "".join(path.read_text() for path in hostile_site.path.glob("server-*.log"))

    assert '"event": "fewer_connections"' in log
    assert "Too many open files" not in log


def test_lifted_descriptors(hostile_site: Site) -> None:
    """A server lifts its limit on open files to what it may have at all."""
    low = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (300, 2_000))"
    with attacked(hostile_site, before=low) as server:
        limits = Path(f"/proc/{server.pid}/limits").read_text()

    assert re.search(r"^Max open files +2000 +2000 ", limits, re.MULTILINE)
