"""A log in a real nats-server: appended, read, and asked where it ends."""

from collections.abc import Iterator

import pytest

from loader.replication.log import NatsLog
from loader.replication.messages import LogEnds, LogMissingError, LogMovedError
from tests.loader.replication.servers import NatsServer, one_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One server for all tests; each has a stream of its own."""
    with one_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
def log(server: NatsServer, request: pytest.FixtureRequest) -> Iterator[NatsLog]:
    """An empty log."""
    log = NatsLog.connect(server.settings(stream=request.node.name.replace("[", "_").replace("]", "")))
    log.create_stream(replicas=1, kept_bytes=1_000_000)
    yield log
    log.close()


def test_what_was_appended_is_there_under_its_number(log: NatsLog) -> None:
    """Numbers go up from one, and each gives the same bytes again."""
    assert [log.append(at, b"%d" % at) for at in range(5)] == [1, 2, 3, 4, 5]
    assert [log.get(number) for number in range(7)] == [None, b"0", b"1", b"2", b"3", b"4", None]


def test_an_empty_log_begins_beyond_its_end(log: NatsLog) -> None:
    """It says so, and who it is."""
    ends = log.ends()
    assert ends == LogEnds(created=ends.created, first=1, last=0, messages=0, bytes=0)
    assert ends.created


def test_ends_say_what_lies_between(log: NatsLog) -> None:
    """First, last and how many."""
    for at in range(3):
        log.append(at, b"m" * 100)
    ends = log.ends()
    assert (ends.first, ends.last, ends.messages) == (1, 3, 3)
    assert ends.bytes > 300


@pytest.mark.parametrize("expected", [0, 1, 3, 99])
def test_a_log_that_ends_elsewhere_takes_nothing(log: NatsLog, expected: int) -> None:
    """It says where it ends."""
    log.append(0, b"a")
    log.append(1, b"b")
    with pytest.raises(LogMovedError) as caught:
        log.append(expected, b"c")
    assert caught.value.last == 2
    assert log.ends().last == 2


def test_a_reader_gives_what_is_there_and_what_comes(log: NatsLog) -> None:
    """In order, from where it was told to begin, whatever is appended meanwhile."""
    for at in range(100):
        log.append(at, b"%d" % at)
    read: list[tuple[int, bytes]] = []
    with log.reading(11) as reader:
        while len(read) < 90:
            read += reader.fetch(10.0)
        assert reader.fetch(0.05) == []
        log.append(100, b"100")
        read += reader.fetch(10.0)
    assert read == [(number, b"%d" % (number - 1)) for number in range(11, 102)]


def test_what_nobody_made_is_missing(server: NatsServer) -> None:
    """Whatever is asked of it."""
    log = NatsLog.connect(server.settings(stream="NOWHERE"))
    try:
        with pytest.raises(LogMissingError):
            log.ends()
        with pytest.raises(LogMissingError):
            log.append(0, b"a")
        with pytest.raises(LogMissingError):
            log.get(1)
        with pytest.raises(LogMissingError), log.reading(1):
            pass
    finally:
        log.close()


def test_making_a_stream_twice_is_making_it_once(log: NatsLog) -> None:
    """What is in it stays."""
    log.append(0, b"a")
    created = log.ends().created
    log.create_stream(replicas=1, kept_bytes=1_000_000)
    assert log.ends().created == created
    assert log.get(1) == b"a"
