from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.change import Position
from iyscheck.client.columns import FRAME_HEAD_BYTES, TEXT_HEAD_BYTES, Flight, Piece, cut
from iyscheck.consent import Reason
from iyscheck.errors import QuestionError, ServiceFailedError
from iyscheck.question import ColumnAnswer, Envelope, joined
from tests.dice import often


def envelope(sequence: int, as_of: int | None = 100) -> Envelope:
    """An envelope of the one log of this module."""
    return Envelope(
        position=Position(bytes(16), sequence),
        as_of=as_of,
        valid_until=float(sequence),
        decision_id=f"d{sequence}",
        policy_id="p",
    )


def answer(frame_id: int, piece: Piece) -> ColumnAnswer:
    """Answer each recipient with its own length, so that answers can be told apart."""
    return ColumnAnswer.of(reasons=np.array([len(text) for text in piece], np.uint8), envelope=envelope(frame_id))


class TestCut:
    """Every recipient is in exactly one piece, in order, and every piece is within the limits."""

    @given(
        texts=st.lists(st.text("0123456789", max_size=40), max_size=200),
        size=st.integers(1, 60),
        max_bytes=st.integers(FRAME_HEAD_BYTES, FRAME_HEAD_BYTES + 500),
    )
    @settings(max_examples=often(150), deadline=None)
    def test_texts(self, texts: list[str], size: int, max_bytes: int) -> None:
        """Texts come out once and in order, within size and bytes; only a single text may be larger."""
        pieces = list(cut(iter(texts), size=size, max_bytes=max_bytes, clean=str))

        assert [text for piece in pieces for text in piece] == texts
        for piece in pieces:
            assert 1 <= len(piece) <= size
            carried = sum(len(text) + TEXT_HEAD_BYTES for text in piece)
            assert len(piece) == 1 or FRAME_HEAD_BYTES + carried <= max_bytes

    @given(rows=st.integers(0, 300), size=st.integers(1, 400), max_bytes=st.integers(1, 3_000))
    @settings(max_examples=often(150), deadline=None)
    def test_tokens(self, rows: int, size: int, max_bytes: int) -> None:
        """Rows come out once and in order, within size and bytes; only a single row may be larger."""
        tokens = np.arange(rows * 16, dtype=np.int64).astype(np.uint8).reshape(rows, 16)

        pieces = [np.asarray(piece) for piece in cut(tokens, size=size, max_bytes=max_bytes, clean=str)]

        assert b"".join(piece.tobytes() for piece in pieces) == tokens.tobytes()
        for piece in pieces:
            assert 1 <= len(piece) <= size
            assert len(piece) == 1 or FRAME_HEAD_BYTES + piece.nbytes <= max_bytes

    @pytest.mark.parametrize("bad", [np.zeros((2, 15), np.uint8), np.zeros((2, 16), np.int64), np.zeros(16, np.uint8)])
    def test_wrong_array(self, bad: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
        """An array that is not uint8 of shape (N, 16) is refused."""
        with pytest.raises(QuestionError, match="recipients"):
            list(cut(bad, size=10, max_bytes=10_000, clean=str))

    def test_single_text(self) -> None:
        """A single text is not taken for a column of its characters."""
        with pytest.raises(QuestionError, match="recipients"):
            list(cut("123", size=10, max_bytes=10_000, clean=str))


class TestFlight:
    """Each frame is answered once and in order, whatever breaks."""

    @given(
        texts=st.lists(st.text("x", max_size=9), max_size=60),
        size=st.integers(1, 7),
        window=st.integers(1, 5),
        data=st.data(),
    )
    @settings(max_examples=often(150), deadline=None)
    def test_broken_streams(self, texts: list[str], size: int, window: int, data: st.DataObject) -> None:
        """However often streams break, each recipient gets its own answer once, with at most a window in flight."""
        pieces = cut(texts, size=size, max_bytes=10_000, clean=str)
        flight: Flight[tuple[int, Piece]] = Flight(pieces, lambda frame_id, piece: (frame_id, piece), window=window)
        stream: list[tuple[int, Piece]] = []
        results = []

        while True:
            stream += flight.launch()
            assert len(stream) <= window
            if flight.empty:
                break
            if data.draw(st.booleans(), label="breaks"):
                stream = flight.unanswered()
            frame_id, piece = stream.pop(0)
            flight.expect(frame_id)
            results.append(flight.land(answer(frame_id, piece)))

        assert joined(results).reasons.tolist() == [len(text) for text in texts]
        assert [result.first for result in results] == list(range(0, len(texts), size))

    def test_lazy(self) -> None:
        """A column without end is read only as far as the window."""
        taken = 0

        def endless() -> Iterator[str]:
            nonlocal taken
            while True:
                taken += 1
                yield "1"

        flight: Flight[int] = Flight(
            cut(endless(), size=10, max_bytes=10_000, clean=str), lambda frame_id, _: frame_id, window=3
        )

        launched = list(flight.launch())

        assert launched == [1, 2, 3]
        assert taken == 30

    def test_wrong_turn(self) -> None:
        """A reply to a frame whose turn it is not is an error, and so is one to no frame at all."""
        flight: Flight[int] = Flight(cut(["1", "2"], size=1, max_bytes=999, clean=str), lambda i, _: i, window=2)
        list(flight.launch())

        for frame_id in (2, 0, 3):
            with pytest.raises(ServiceFailedError, match="turn"):
                flight.expect(frame_id)

    def test_bounded_retries(self) -> None:
        """Ten broken streams in a row without an answer are enough; an answer starts the count again."""
        flight: Flight[int] = Flight(cut(["1", "2"], size=1, max_bytes=999, clean=str), lambda i, _: i, window=2)
        list(flight.launch())

        first = [flight.backoff() for _ in range(10)]
        flight.land(answer(1, ["1"]))
        second = flight.backoff()

        assert first == [0.05, 0.1, 0.2, 0.4, 0.5, 0.5, 0.5, 0.5, 0.5, None]
        assert second == 0.05


class TestResult:
    """A column's result is what its frames say."""

    def test_summary(self) -> None:
        """Counts, positions, the oldest data and the earliest end of validity are those of all frames."""
        flight: Flight[int] = Flight(cut(["1", "2"], size=1, max_bytes=999, clean=str), lambda i, _: i, window=2)
        list(flight.launch())
        frames = [
            ColumnAnswer.of(reasons=np.array([1, 73, 20], np.uint8), envelope=envelope(5, as_of=300)),
            ColumnAnswer.of(reasons=np.array([3, 1], np.uint8), envelope=envelope(9, as_of=200)),
        ]

        result = joined([flight.land(frame) for frame in frames])

        assert result.reasons.tolist() == [1, 73, 20, 3, 1]
        assert result.permitted.tolist() == [True, False, False, True, True]
        assert result.counts == {
            Reason.CONSENTED: 2,
            Reason.NO_CONSENT: 1,
            Reason.UNSPECIFIED: 1,
            Reason.EXEMPT_MESSAGE: 1,
        }
        assert (result.first_position, result.last_position) == (Position(bytes(16), 5), Position(bytes(16), 9))
        assert (result.as_of, result.valid_until) == (200, 5.0)
        assert result.decision_ids == ("d5", "d9")

    def test_no_watermark(self) -> None:
        """A frame without a watermark leaves the whole column without one."""
        flight: Flight[int] = Flight(cut(["1", "2"], size=1, max_bytes=999, clean=str), lambda i, _: i, window=2)
        list(flight.launch())
        frames = [ColumnAnswer.of(reasons=np.ones(1, np.uint8), envelope=envelope(1, as_of)) for as_of in (300, None)]

        result = joined([flight.land(frame) for frame in frames])

        assert result.as_of is None

    def test_empty(self) -> None:
        """A column without recipients has no reasons, no positions and no end of validity."""
        result = joined([])

        assert result.reasons.shape == (0,)
        assert result.counts == {}
        assert (result.first_position, result.last_position, result.as_of, result.valid_until) == (None,) * 4
