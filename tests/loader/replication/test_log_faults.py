"""What a log in NATS may do to who uses it: servers that die, stand still, forget, are emptied or take others' word."""

import asyncio
import concurrent.futures
import contextlib
import gc
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from loader.replication import pulling
from loader.replication.connection import NatsConnection, NoAnswerError
from loader.replication.jetstream import told
from loader.replication.log import NatsLog
from loader.replication.messages import (
    Log,
    LogAwayError,
    LogDeniedError,
    LogEnds,
    LogMissingError,
    LogMovedError,
    NatsSettings,
    Reader,
)
from tests.loader.replication.servers import (
    NatsCluster,
    NatsServer,
    configured,
    free_ports,
    one_server,
    patiently,
    running,
    scattered,
    three_servers,
)

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One server for all tests; each has a stream of its own."""
    with one_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
def settings(server: NatsServer, request: pytest.FixtureRequest) -> NatsSettings:
    """How the test's own stream is found."""
    return server.settings(stream=request.node.name.replace("[", "_").replace("]", ""), connect_timeout_s=1.0)


@pytest.fixture
def log(settings: NatsSettings) -> Iterator[NatsLog]:
    """An empty log."""
    log = NatsLog.connect(settings, timeout_s=2.0)
    log.create_stream(replicas=1, kept_bytes=1_000_000)
    yield log
    log.close()


@pytest.fixture
def operator(settings: NatsSettings) -> Iterator[NatsConnection]:
    """Who may do to the stream whatever NATS has for it."""
    connection = NatsConnection(settings)
    yield connection
    connection.close()


def append(log: Log, first: int, last: int) -> None:
    """Append messages, each of which names its number."""
    for number in range(first, last + 1):
        assert log.append(number - 1, b"message %d" % number) == number


def fetched(reader: Reader, many: int) -> list[tuple[int, bytes]]:
    """Read at least so many messages."""
    read: list[tuple[int, bytes]] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(read) < many:
        assert time.monotonic() < deadline
        read += reader.fetch(1.0)
    return read


def ends(log: Log) -> LogEnds:
    """Say where a log ends once somebody answers."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return log.ends()
        except (LogAwayError, LogMissingError):  # missing while a server reads what it has
            assert time.monotonic() < deadline
            time.sleep(0.05)


def lost(reader: Reader) -> LogAwayError:
    """Read until the reader says that it is of no use any more."""
    deadline = time.monotonic() + PATIENCE_S
    with pytest.raises(LogAwayError) as caught:  # noqa: PT012 (whatever came before the loss comes before it)
        while time.monotonic() < deadline:
            reader.fetch(1.0)
    return caught.value


def test_a_reader_from_beyond_the_end_skips_what_comes_before(log: NatsLog) -> None:
    """A trap, unannounced: it waits for its number, however it comes to be used. So who reads looks at the numbers."""
    append(log, 1, 10)
    with log.reading(13) as reader:
        append(log, 11, 12)
        assert reader.fetch(0.3) == []
        append(log, 13, 13)
        assert fetched(reader, 1) == [(13, b"message 13")]


def test_a_reader_from_before_the_beginning_jumps(log: NatsLog, settings: NatsSettings) -> None:
    """The second trap: what was trimmed is left out without a word."""
    small = NatsLog.connect(settings)
    with contextlib.closing(small):
        append(small, 1, 3)
        big = scattered(1, 300_000)
        for number in range(4, 9):
            small.append(number - 1, big)
    first = log.ends().first
    assert 2 < first < 8
    assert log.get(2) is None
    with log.reading(2) as reader:
        assert reader.fetch(5.0)[0][0] == first


def test_the_id_of_a_message_would_hide_another_one(
    log: NatsLog, settings: NatsSettings, operator: NatsConnection
) -> None:
    """The third: under an id that was used another body is acknowledged and dropped. So messages here have no ids."""
    append(log, 1, 1)
    subject = f"iys.log.{settings.stream}"
    for body in (b"one", b"another"):
        operator.ask(subject, body, timeout_s=5, headers={"Nats-Msg-Id": "x"})
    assert log.ends().last == 2
    assert log.get(2) == b"one"


def test_a_killed_server_ends_readers_and_keeps_messages(server: NatsServer, log: NatsLog) -> None:
    """The reader says so, and a new one goes on."""
    append(log, 1, 5)
    with log.reading(1) as reader:
        assert len(fetched(reader, 5)) == 5
        server.kill()
        assert "connection" in str(lost(reader))
        with pytest.raises(LogAwayError):
            log.append(5, b"message 6")
        server.start()
        assert ends(log).last == 5
        append(log, 6, 6)
        with pytest.raises(LogAwayError):
            reader.fetch(1.0)
    with log.reading(5) as reader:
        assert fetched(reader, 2) == [(5, b"message 5"), (6, b"message 6")]


@pytest.mark.thorough
def test_a_server_that_stands_still_is_away(server: NatsServer, log: NatsLog) -> None:
    """Nothing waits for ever. What was appended meanwhile may be there afterwards, and then the log has moved."""
    append(log, 1, 3)
    with log.reading(1) as reader:
        assert len(fetched(reader, 3)) == 3
        with server.paused():
            with pytest.raises(LogAwayError):
                log.append(3, b"message 4")
            with pytest.raises(LogAwayError):
                log.ends()
            lost(reader)
    last = ends(log).last
    assert last in {3, 4}
    if last == 4:
        with pytest.raises(LogMovedError):
            log.append(3, b"message 4")
        assert log.get(4) == b"message 4"


def test_a_reader_that_nobody_asked_for_a_while_is_as_good(log: NatsLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its silence counts only while it is to deliver: a follower may take its time with what it has."""
    monkeypatch.setattr(pulling, "_SILENT_S", 0.2)
    append(log, 1, pulling._PULL)
    with log.reading(1) as reader:
        read: list[tuple[int, bytes]] = []
        while len(read) < pulling._PULL:
            read += reader.fetch(5.0, most=pulling._PULL)
        append(log, pulling._PULL + 1, pulling._PULL + 1)
        time.sleep(0.4)
        assert [number for number, _ in reader.fetch(5.0)] == [pulling._PULL + 1]


class Deaf:
    """A connection to a stream that has no leader yet when it is first asked."""

    def __init__(self) -> None:
        self.api = "$JS.API"
        self.asked: list[str] = []

    def ask(self, subject: str, payload: bytes = b"", *, timeout_s: float, headers: object = None) -> bytes:
        """Let the first question get lost."""
        del payload, timeout_s, headers
        self.asked.append(subject)
        if len(self.asked) == 1:
            raise NoAnswerError(subject)
        state = {"messages": 3, "bytes": 9, "first_seq": 1, "last_seq": 3}
        return json.dumps({"created": "now", "state": state, "message": {"seq": 3, "data": "bWU="}}).encode()

    def trust(self) -> None:
        """Hear that an answer was of use."""

    def doubt(self) -> None:
        """Hear that there was none of use."""


def test_a_lost_question_is_asked_again_and_a_lost_message_is_not(settings: NatsSettings) -> None:
    """What changes nothing is asked again, since who waits for a leader loses time; what was appended may be there."""
    for ask in (NatsLog.ends, lambda log: log.get(3)):
        connection = Deaf()
        ask(NatsLog(cast("NatsConnection", connection), settings))
        assert len(connection.asked) == 2

    connection = Deaf()
    with pytest.raises(LogAwayError):
        NatsLog(cast("NatsConnection", connection), settings).append(3, b"message 4")
    assert len(connection.asked) == 1


def test_a_stream_that_was_made_anew_is_another_one(
    log: NatsLog, settings: NatsSettings, operator: NatsConnection
) -> None:
    """Its numbers begin again; `created` tells. Its readers end, and it is missing in between."""
    append(log, 1, 5)
    before = log.ends()
    with log.reading(1) as reader:
        assert len(fetched(reader, 5)) == 5
        operator.ask(f"$JS.API.STREAM.DELETE.{settings.stream}", timeout_s=5)
        with pytest.raises(LogMissingError):
            log.ends()
        with pytest.raises(LogMissingError):
            log.append(5, b"message 6")
        log.create_stream(replicas=1, kept_bytes=1_000_000)
        append(log, 1, 6)
        assert "ends the reading" in str(lost(reader))
    after = log.ends()
    assert (after.first, after.last) == (1, 6)
    assert after.created != before.created


def test_what_is_in_the_log_can_be_taken_out_by_nobody(
    log: NatsLog, settings: NatsSettings, operator: NatsConnection
) -> None:
    """Neither one message nor all of them."""
    append(log, 1, 3)
    for request, payload in (("PURGE", b""), ("MSG.DELETE", b'{"seq":2}')):
        answer = json.loads(operator.ask(f"$JS.API.STREAM.{request}.{settings.stream}", payload, timeout_s=5))
        assert answer["error"]
    assert [log.get(number) for number in (1, 2, 3)] == [b"message 1", b"message 2", b"message 3"]


def test_a_lost_tail_is_noticed_by_who_appends(server: NatsServer, log: NatsLog) -> None:
    """An older copy of the disk comes back: the log ends earlier than it said, and the same can be appended again."""
    append(log, 1, 30)
    with server.rolled_back():
        assert ends(log).last == 30
        append(log, 31, 50)
    assert ends(log).last == 30
    with pytest.raises(LogMovedError) as caught:
        log.append(50, b"message 51")
    assert caught.value.last == 30
    append(log, 31, 51)
    with log.reading(1) as reader:
        assert fetched(reader, 51) == [(number, b"message %d" % number) for number in range(1, 52)]


def test_a_flipped_bit_is_never_given_for_the_message(server: NatsServer, log: NatsLog) -> None:
    """What is given is right; what is not right is not there, or nobody answers for it."""
    bodies = {number: scattered(number, 2_000) for number in range(1, 21)}
    for number, body in bodies.items():
        log.append(number - 1, body)
    server.stop()
    server.flip_bit(of=bodies[10])
    server.start()
    ends(log)
    found: dict[int, bytes | None] = {}
    for number in bodies:
        with contextlib.suppress(LogAwayError):
            found[number] = log.get(number)
    assert {number: body for number, body in found.items() if body is not None}.items() <= bodies.items()
    assert 10 not in found or found[10] is None


@pytest.mark.thorough
def test_an_acknowledgement_may_be_lost_and_the_message_not(server: NatsServer, log: NatsLog) -> None:
    """Whoever does not know asks for the message: it is there or not, and never twice."""
    expected = 0
    for delay in range(1, 7):
        process = server.process
        assert process is not None
        timer = threading.Timer(0.02 * delay, process.kill)
        timer.start()
        with contextlib.suppress(LogAwayError):
            while True:
                expected = log.append(expected, b"message %d" % (expected + 1))
        timer.join()
        server.restart()
        last = ends(log).last
        assert last in {expected, expected + 1}
        if last > expected:
            assert log.get(last) == b"message %d" % last
        expected = last
    with log.reading(1) as reader:
        assert fetched(reader, expected) == [(number, b"message %d" % number) for number in range(1, expected + 1)]


def test_a_server_that_is_too_old_is_refused() -> None:
    """It says which version it has, and which it needs."""
    with speaking(b'INFO {"server_id":"X","version":"2.9.10","headers":true,"max_payload":1048576}\r\n') as port:
        log = NatsLog.connect(NatsSettings(servers=(f"nats://127.0.0.1:{port}",), name="test"))
        with contextlib.closing(log), pytest.raises(LogAwayError, match=r"2\.9\.10.*2\.14") as caught:
            log.ends()
    assert "NATS server" in str(caught.value)


def test_a_client_that_was_sent_away_for_good_comes_again() -> None:
    """The client of NATS gives up where a server says so: ours is made anew, for ever."""
    came: list[int] = []
    with speaking(MODERN, b"-ERR 'maximum connections exceeded'\r\n", came) as port:
        connection = NatsConnection(NatsSettings(servers=(f"nats://127.0.0.1:{port}",), name="test"))
        with contextlib.closing(connection):
            deadline = time.monotonic() + PATIENCE_S
            while len(came) < 4:
                assert time.monotonic() < deadline
                time.sleep(0.05)


MODERN = b'INFO {"server_id":"X","version":"2.15.1","headers":true,"max_payload":1048576}\r\n'


@contextlib.contextmanager
def speaking(greeting: bytes, farewell: bytes = b"", came: list[int] | None = None) -> Iterator[int]:
    """Listen, greet each who comes, and answer PING with PONG and a farewell, as a server does."""

    def serve() -> None:
        with contextlib.suppress(OSError):  # the test is over
            while True:
                connection, (_, source) = listener.accept()
                if came is not None:
                    came.append(source)
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.sendall(greeting)
            while said := connection.recv(65_536):
                if b"PING\r\n" in said:
                    connection.sendall(b"PONG\r\n" + farewell)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_nobody_there_is_away_and_named(tmp_path: Path) -> None:
    """Whoever has the wrong address sees it. Nothing is waited for in the making, and letting go is quick."""
    (port,) = free_ports(1)
    log = NatsLog.connect(NatsSettings(servers=(f"nats://127.0.0.1:{port}",), name="test", connect_timeout_s=0.5))
    with contextlib.closing(log):
        with pytest.raises(LogAwayError, match=str(port)):
            log.ends()
        with pytest.raises(LogAwayError), log.reading(1):
            pass
    with pytest.raises(LogAwayError, match="closed"):
        log.ends()


def test_a_server_that_has_no_answer_is_left_for_another_one(tmp_path: Path) -> None:
    """One that lives, and sees none of the others, as behind a parted network, has no answer of use."""
    cut_off, able = configured(tmp_path / "n1"), configured(tmp_path / "n2", "n2")
    lines = cut_off.config.read_text().splitlines(keepends=True)
    cut_off.config.write_text("".join(line for line in lines if not line.startswith("jetstream")))
    settings = cut_off.settings(servers=(cut_off.url, able.url))
    with running(cut_off), contextlib.closing(NatsLog.connect(settings, timeout_s=1.0)) as log:
        with pytest.raises(LogAwayError, match="Nobody listens"):
            log.ends()
        with running(able), contextlib.closing(NatsLog.connect(able.settings())) as other:
            other.create_stream(replicas=1, kept_bytes=1_000_000)
            assert patiently(log.ends).messages == 0


class OneServer:
    """As much of a connection as is asked; `answer` is what it gives, and `heard` what it heard of that."""

    def __init__(self, answer: Exception | bytes) -> None:
        self.heard, self.api = "", "$JS.API"
        self._answer = answer

    def ask(self, *_: object, **__: object) -> bytes:
        """Answer."""
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def trust(self) -> None:
        """Hear that it was of use."""
        self.heard = "of use"

    def doubt(self) -> None:
        """Hear that it was of none."""
        self.heard = "of no use"


@pytest.mark.parametrize(
    ("subject", "answer", "heard"),
    [
        ("$JS.API.STREAM.MSG.GET.S", b"{}", "of use"),
        ("$JS.API.STREAM.INFO.S", b"{}", ""),
        ("$JS.API.STREAM.MSG.GET.S", b'{"error": {"code": 503, "err_code": 10008}}', "of no use"),
        ("$JS.API.STREAM.MSG.GET.S", b'{"error": {"code": 404, "err_code": 10037}}', ""),
        ("$JS.API.STREAM.MSG.GET.S", LogAwayError(), "of no use"),
        ("$JS.API.STREAM.MSG.GET.S", LogDeniedError("s"), ""),
    ],
    ids=["answer", "what-was-known", "cut-off", "no", "silence", "denial"],
)
def test_what_answers_tell_of_a_server(subject: str, answer: Exception | bytes, heard: str) -> None:
    """One that is cut off from the others still tells what it knew of a log; only what its leader must know counts."""
    connection = OneServer(answer)
    with contextlib.suppress(LogAwayError):
        told(connection, subject, b"", timeout_s=1)  # type: ignore[arg-type] # as much of one as is asked
    assert connection.heard == heard


def test_a_close_that_hangs_leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    """The client of NATS may wait for ever to take leave of a server that is gone, over TLS. It is not waited for."""

    async def hang() -> None:
        await asyncio.sleep(3_600)

    connection = NatsConnection(NatsSettings(servers=(f"nats://127.0.0.1:{free_ports(1)[0]}",), name="test"))
    with contextlib.suppress(LogAwayError):
        connection.ask("anything", timeout_s=0.1)
    assert connection._client is not None
    connection._client.close = hang  # type: ignore[method-assign] # as it was seen to
    connection.close()
    del connection
    gc.collect()
    assert "destroyed" not in caplog.text


def test_who_waits_for_a_connection_hears_that_it_was_closed() -> None:
    """It is not left waiting, and gets no other error."""
    connection = NatsConnection(NatsSettings(servers=(f"nats://127.0.0.1:{free_ports(1)[0]}",), name="test"))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = [pool.submit(connection.ask, "anything", timeout_s=60) for _ in range(3)]
        while not all(each.running() for each in waiting):
            time.sleep(0.01)
        time.sleep(0.1)
        connection.close()
        for each in waiting:
            with pytest.raises(LogAwayError, match="was closed"):
                each.result()


@dataclass
class Appender(threading.Thread):
    """Appends for itself as fast as it can, and notes what it knows to be its own."""

    name_: str
    settings: NatsSettings
    stop: threading.Event
    own: dict[int, bytes] = field(default_factory=dict)
    refused: int = 0

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        """Go on until told to stop, through whatever happens."""
        with contextlib.closing(NatsLog.connect(self.settings, timeout_s=2.0)) as log:
            count = 0
            while not self.stop.is_set():
                count += 1
                self._append(log, ends(log).last, f"{self.name_} {count}".encode())

    def _append(self, log: NatsLog, expected: int, body: bytes) -> None:
        """Append one message, and repeat it until its fate is known."""
        while True:
            with contextlib.suppress(LogAwayError, LogMissingError):
                try:
                    self.own[log.append(expected, body)] = body
                except LogMovedError as error:
                    if error.last is not None and error.last <= expected:
                        return  # what it stood on is gone
                    found = log.get(expected + 1)
                    if found == body:
                        self.own[expected + 1] = body
                    elif found is None:
                        continue
                    else:
                        self.refused += 1
                return


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    """Three servers."""
    with three_servers(tmp_path) as cluster:
        yield cluster


@pytest.mark.thorough
@pytest.mark.crash
def test_of_two_who_append_one_wins_each_number(cluster: NatsCluster) -> None:
    """Through deaths of leaders: no number belongs to both, and none that was given is lost."""
    settings = cluster.settings(connect_timeout_s=1.0)
    with contextlib.closing(NatsLog.connect(settings)) as log:
        patiently(lambda: log.create_stream(kept_bytes=500_000_000))
        stop = threading.Event()
        racers = [Appender(name, settings, stop) for name in ("A", "B")]
        for racer in racers:
            racer.start()
        for _ in range(3):
            time.sleep(2)
            leader = cluster.leader(settings.stream)
            leader.kill()
            time.sleep(0.5)
            leader.start(wait=False)
            time.sleep(4)
        stop.set()
        for racer in racers:
            racer.join(PATIENCE_S)
            assert not racer.is_alive()
        last = ends(log).last
        with log.reading(1) as reader:
            held = dict(fetched(reader, last))
    for racer in racers:
        assert racer.own
        assert racer.own.items() <= held.items()
    assert not racers[0].own.keys() & racers[1].own.keys()
    assert sum(racer.refused for racer in racers) > 0
    assert len(held) == last


@pytest.mark.thorough
@pytest.mark.crash
def test_readers_go_on_through_the_death_of_any_server(cluster: NatsCluster) -> None:
    """A reader that is lost is replaced by a new one; what is read is everything once, in order."""
    settings = cluster.settings(connect_timeout_s=1.0)
    with contextlib.closing(NatsLog.connect(settings)) as log, contextlib.closing(NatsLog.connect(settings)) as other:
        patiently(lambda: log.create_stream(kept_bytes=500_000_000))
        read: list[tuple[int, bytes]] = []
        number = 0
        for server in cluster.servers:
            for _ in range(50):
                body = b"message %d" % (number + 1)
                while True:
                    try:
                        number = log.append(number, body)
                        break
                    except LogMovedError:
                        assert log.get(number + 1) == body
                        number += 1
                        break
                    except LogAwayError:
                        time.sleep(0.05)
            server.kill()
            while len(read) < number:
                with contextlib.suppress(LogAwayError, LogMissingError), other.reading(len(read) + 1) as reader:
                    while len(read) < number:
                        read += reader.fetch(1.0)
            server.start()
    assert read == [(at, b"message %d" % at) for at in range(1, number + 1)]
