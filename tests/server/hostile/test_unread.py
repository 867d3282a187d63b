"""Clients that never read what they asked for."""

import time

import pytest

from iyscheck.v1 import consent_check_pb2 as v1
from tests.server.conftest import CONSENTED
from tests.server.hostile.conftest import QUESTION, Attacked
from tests.server.hostile.http2 import CANCEL, DATA, WINDOW_UPDATE, Answer, Connection, data, frame, message
from tests.server.processes.running import eventually

BATCH = v1.BatchCheckRequest(
    questions=[
        v1.Question(
            brand_code=1, channel=v1.CHANNEL_MESAJ, recipient_type=v1.RECIPIENT_TYPE_BIREYSEL, address=CONSENTED
        )
    ]
    * 2_000
).SerializeToString()
FRAME = v1.StreamCheckRequest(
    frame_id=1,
    brand_code=1,
    channel=v1.CHANNEL_MESAJ,
    recipient_type=v1.RECIPIENT_TYPE_BIREYSEL,
    addresses=[CONSENTED],
).SerializeToString()
OK, CANCELLED, RESOURCE_EXHAUSTED = 0, 1, 8


def ended(server: Attacked, why: str) -> float:
    """How many calls were ended for that."""
    return server.metric("consent_calls_ended_total", why=why)


@pytest.mark.parametrize(
    ("method", "asked"),
    [("StreamCheck", FRAME), ("Check", QUESTION), ("BatchCheck", BATCH)],
    ids=["stream", "check", "batch"],
)
def test_not_read(curt: Attacked, method: str, asked: bytes) -> None:
    """A call whose reply is not taken is ended and counted."""
    before = ended(curt, "not_read")
    with curt.unharmed(), Connection(curt.address, window=0) as connection:
        connection.call(1, method)
        connection.send(data(1, message(asked), ends=method != "StreamCheck"))
        answer = connection.answer(1)

    assert (answer.status, answer.content) == (CANCELLED, b"")
    assert ended(curt, "not_read") == before + 1


def test_silent_but_read(curt: Attacked) -> None:
    """A stream that has read all of its replies may then be silent for longer than a reply may wait."""
    with Connection(curt.address) as gateway, Connection(curt.address, window=0) as other:
        gateway.call(1, "StreamCheck")
        gateway.send(data(1, message(FRAME)))
        next(found for found in gateway.arriving() if (found.kind, found.stream) == (DATA, 1))
        other.call(1)
        other.send(data(1, message(QUESTION), ends=True))
        assert other.answer(1).status == CANCELLED  # so long has passed
        gateway.send(data(1, message(FRAME), ends=True))
        assert gateway.answer(1).status == OK


def test_places(curt: Attacked) -> None:
    """Streams that do not read hold their places for so long and no longer."""
    with curt.unharmed(), Connection(curt.address, window=0) as unread:
        for stream in (1, 3):
            unread.call(stream, "StreamCheck")
            unread.send(data(stream, message(FRAME) * 3))
        next(found for found in unread.arriving() if found.stream == 3)
        with Connection(curt.address) as third:
            third.call(1, "StreamCheck")
            assert third.answer(1).status == RESOURCE_EXHAUSTED
            assert [unread.answer(stream).status for stream in (1, 3)] == [CANCELLED, CANCELLED]
            streams = iter(range(3, 103, 2))
            eventually(lambda: _is_let_in(third, next(streams)), "no place is free")  # it is given back a moment later


def test_taken_by_the_byte(curt: Attacked) -> None:
    """Taking a byte now and then is no way around it."""
    with curt.unharmed(), Connection(curt.address, window=0) as connection:
        connection.call(1, "BatchCheck")
        connection.send(data(1, message(BATCH), ends=True))
        answer = connection.answers[1] = Answer()
        for found in connection.arriving():
            if found.stream == 1:
                connection.try_to_send(frame(WINDOW_UPDATE, 1, (1).to_bytes(4, "big")))
            if answer.is_over:
                break

    assert answer.status == CANCELLED or answer.reset == CANCEL


def test_read_late(curt: Attacked) -> None:
    """Who takes a reply before that time is over gets all of it."""
    with Connection(curt.address, window=0) as connection:
        connection.call(1, "BatchCheck")
        connection.send(data(1, message(BATCH), ends=True))
        next(found for found in connection.arriving() if found.stream == 1)  # the headers, so the reply is there
        connection.send(
            frame(WINDOW_UPDATE, 1, (2**24).to_bytes(4, "big")) + frame(WINDOW_UPDATE, 0, (2**24).to_bytes(4, "big"))
        )
        answer = connection.answer(1)

    assert answer.status == 0
    assert len(v1.BatchCheckResponse.FromString(answer.content[5:]).items) == 2_000


def test_too_much_unread(hasty: Attacked) -> None:
    """Replies that nobody takes never hold more memory than their bound: the oldest are given up first."""
    with hasty.unharmed(), Connection(hasty.address, window=0) as connection:
        for stream in range(1, 2 * 30, 2):
            connection.call(stream, "BatchCheck")
            connection.send(data(stream, message(BATCH), ends=True))
        assert connection.answer(1).status == CANCELLED
        assert ended(hasty, "too_much_unread") >= 1
        assert ended(hasty, "not_read") == 0


def _is_let_in(connection: Connection, stream: int) -> bool:
    """Ask on a stream; say whether it got a place."""
    time.sleep(0.05)
    connection.call(stream, "StreamCheck")
    connection.send(data(stream, message(FRAME), ends=True))
    return connection.answer(stream).status == OK
