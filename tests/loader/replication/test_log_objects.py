"""Things of many bytes in a real nats-server: whole or not seen, read from any place, and never too many."""

import itertools
from collections.abc import Iterator

import pytest

from loader.replication.log_objects import CHUNK_BYTES, NatsObjects
from loader.replication.messages import LogAwayError, LogMissingError, ObjectMissingError, ObjectsFullError
from tests.loader.replication.servers import NatsServer, one_server, scattered

CONTENT = scattered(1, 5 * CHUNK_BYTES + 12_345)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One server for all tests."""
    with one_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(scope="module")
def shared(server: NatsServer) -> Iterator[NatsObjects]:
    """The place of all tests."""
    objects = NatsObjects.connect(server.settings(connect_timeout_s=1.0), "SNAPS", most_bytes=40 * CHUNK_BYTES)
    objects.create_stream(kept_bytes=60 * CHUNK_BYTES)
    yield objects
    objects.close()


@pytest.fixture
def objects(shared: NatsObjects) -> NatsObjects:
    """The place with nothing in it."""
    for name in shared.names():
        shared.delete(name)
    return shared


def pieces(content: bytes, size: int) -> Iterator[bytes]:
    """Cut bytes as whoever makes them happens to."""
    for begin in range(0, len(content), size):
        yield content[begin : begin + size]


@pytest.mark.parametrize("size", [1_000_000, 100_000, CHUNK_BYTES])
def test_what_was_put_comes_back(objects: NatsObjects, size: int) -> None:
    """However it was cut."""
    assert objects.put("a.manifest", pieces(CONTENT, size)) == len(CONTENT)
    assert b"".join(objects.get("a.manifest")) == CONTENT


@pytest.mark.parametrize(
    "offset",
    [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, 3 * CHUNK_BYTES + 7, len(CONTENT) - 1, len(CONTENT), len(CONTENT) + 9],
)
def test_it_is_read_from_any_place(objects: NatsObjects, offset: int) -> None:
    """To its end, which may be there already."""
    objects.put("a", pieces(CONTENT, 300_000))
    assert b"".join(objects.get("a", offset)) == CONTENT[offset:]


def test_nothing_is_a_thing_too(objects: NatsObjects) -> None:
    """A thing may have no bytes."""
    assert objects.put("empty", iter(())) == 0
    assert list(objects.get("empty")) == []
    assert objects.names() == ["empty"]


def test_names_are_those_of_whole_things(objects: NatsObjects) -> None:
    """Sorted; what is deleted is gone, and others stay."""
    for name in ("b-2", "a_1", "c.d.e"):
        objects.put(name, pieces(CONTENT, 700_000))
    assert objects.names() == ["a_1", "b-2", "c.d.e"]
    objects.delete("b-2")
    assert objects.names() == ["a_1", "c.d.e"]
    with pytest.raises(ObjectMissingError):
        next(objects.get("b-2"))
    assert b"".join(objects.get("a_1")) == CONTENT


def test_half_a_thing_is_never_seen(objects: NatsObjects) -> None:
    """Where its maker fails, no name is there, and no bytes are left."""

    def broken() -> Iterator[bytes]:
        yield CONTENT[: 3 * CHUNK_BYTES]
        assert objects.names() == []
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        objects.put("half", broken())
    assert objects.names() == []
    with pytest.raises(ObjectMissingError):
        next(objects.get("half"))


def test_a_second_thing_of_a_name_takes_the_place_of_the_first(objects: NatsObjects) -> None:
    """Nothing of the first comes."""
    objects.put("a", pieces(CONTENT, 700_000))
    objects.put("a", pieces(CONTENT[::-1], 700_000))
    assert b"".join(objects.get("a")) == CONTENT[::-1]


@pytest.mark.thorough
def test_what_is_deleted_while_it_is_read_is_missing(objects: NatsObjects) -> None:
    """Its reader is told, and gets nothing else for it."""
    objects.put("a", iter([scattered(2, 38 * CHUNK_BYTES)]))
    reading = objects.get("a")
    next(reading)
    objects.delete("a")
    with pytest.raises(ObjectMissingError):
        list(reading)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"{",
        b'{"bytes":5,"chunk":524288,"runs":[[1,1000000000000000]]}',
        b'{"bytes":5,"chunk":1,"runs":[[1,5]]}',
        b'{"bytes":-1,"chunk":524288,"runs":[[1,1]]}',
        b'{"bytes":5,"chunk":524288,"runs":[[0,1]]}',
    ],
)
def test_what_others_wrote_is_no_thing(objects: NatsObjects, said: bytes) -> None:
    """Whatever stands where a maker says that all is there: nobody counts to it, and nobody waits for it."""
    objects.put("a", iter([CONTENT]))
    objects._connection.ask("iys.snapshots.SNAPS.whole.a", said, timeout_s=5)  # as somebody else would
    with pytest.raises(ObjectMissingError):
        list(objects.get("a"))


def test_what_is_too_large_is_refused_with_a_way_out(objects: NatsObjects) -> None:
    """The way out is HTTPS, and no bytes are left."""
    with pytest.raises(ObjectsFullError, match="HTTPS"):
        objects.put("large", iter([CONTENT] * 8))
    assert objects.names() == []


def test_what_finds_no_room_is_refused_with_a_way_out(objects: NatsObjects) -> None:
    """What was there before stays whole."""
    objects.put("first", iter([scattered(2, 35 * CHUNK_BYTES)]))
    with pytest.raises(ObjectsFullError, match="HTTPS"):
        objects.put("second", iter([scattered(3, 35 * CHUNK_BYTES)]))
    assert objects.names() == ["first"]
    assert b"".join(objects.get("first")) == scattered(2, 35 * CHUNK_BYTES)
    objects.delete("first")
    objects.put("second", iter([scattered(3, 35 * CHUNK_BYTES)]))


@pytest.mark.parametrize("name", ["", "a b", "a..b", ".a", "a.", "*", "a.>", "ş", "a/b"])
def test_names_that_mean_more_than_one_are_refused(objects: NatsObjects, name: str) -> None:
    """Before anything is asked."""
    with pytest.raises(ValueError, match=r".*"):
        objects.put(name, iter([b"x"]))
    with pytest.raises(ValueError, match=r".*"):
        objects.delete(name)


def test_a_place_that_nobody_made_is_missing(server: NatsServer) -> None:
    """Whatever is asked of it."""
    objects = NatsObjects.connect(server.settings(), "NOWHERE")
    try:
        with pytest.raises(LogMissingError):
            objects.names()
        with pytest.raises(LogMissingError):
            objects.delete("a")
        with pytest.raises(LogMissingError):
            next(objects.get("a"))
    finally:
        objects.close()


def test_who_puts_makes_a_missing_place_as_large_as_there_is_room(server: NatsServer) -> None:
    """The server has two gigabytes, and a place asks for thirty first: whoever lost one has it again."""
    objects = NatsObjects.connect(server.settings(), "MADE")
    try:
        for _ in range(2):
            assert objects.put("a", iter([CONTENT])) == len(CONTENT)
            assert b"".join(objects.get("a")) == CONTENT
            objects._connection.ask("$JS.API.STREAM.DELETE.MADE", timeout_s=5)  # as a lost disk does
    finally:
        objects.close()


@pytest.mark.thorough
def test_a_server_that_dies_under_a_writer_is_said(server: NatsServer, objects: NatsObjects) -> None:
    """What was half put is not there afterwards, and can be put again."""

    def dying() -> Iterator[bytes]:
        yield CONTENT
        server.kill()
        yield CONTENT
        yield CONTENT

    with pytest.raises(LogAwayError):
        objects.put("a", dying())
    server.start()
    assert objects.names() == []
    objects.put("a", iter([CONTENT]))
    assert b"".join(objects.get("a")) == CONTENT


@pytest.mark.thorough
def test_a_server_that_dies_under_a_reader_is_said(server: NatsServer, objects: NatsObjects) -> None:
    """Who reads goes on from where it was."""
    content = scattered(2, 39 * CHUNK_BYTES)
    objects.put("a", iter([content]))
    had = bytearray()
    reading = objects.get("a")
    had += next(reading)
    server.kill()
    with pytest.raises(LogAwayError):
        had.extend(itertools.chain.from_iterable(reading))
    server.start()
    assert 0 < len(had) < len(content)
    had += b"".join(objects.get("a", len(had)))
    assert had == content
