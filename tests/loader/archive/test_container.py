"""Files of the archive: whatever happens to one, it gives back what was put in, or says that it is damaged."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.errors import SourceUnreadableError
from iyscheck.keys import AddressKey
from loader.archive.container import HEADER_BYTES, Content, DamagedError, Seal
from tests.builders import ADDRESS_KEY
from tests.dice import often

contents = st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=4)


def file_of(parts: list[bytes], *, seal: Seal | None = None, is_whole: bool = True) -> bytes:
    """Write a file of the archive."""
    seal = seal or Seal.new(ADDRESS_KEY)
    frames = [seal.sealed(part, number, now_s=1_800_000_000.5) for number, part in enumerate(parts)]
    last = [seal.sealed(b"", len(parts), now_s=1_800_000_001, is_last=True)] if is_whole else []
    return b"".join([seal.header, *frames, *last])


def read(data: bytes, key: AddressKey = ADDRESS_KEY) -> tuple[bytes, bool]:
    """Read a file as far as it goes; say whether to its end."""
    content, found = Content(io.BytesIO(data), key, "x"), b""
    try:
        while piece := content.read(7):
            found += piece
    except EOFError:
        return found, False
    return found, True


class TestContainer:
    """One file."""

    @given(contents)
    @settings(max_examples=often(50), deadline=None)
    def test_round_trip(self, parts: list[bytes]) -> None:
        """A sealed file gives back what was put in, with the times, and shows nothing of it."""
        seal = Seal.new(ADDRESS_KEY)
        data = file_of([part * 3 + b"+905321112233" for part in parts], seal=seal)

        assert read(data) == (b"".join(part * 3 + b"+905321112233" for part in parts), True)
        assert b"5321112233" not in data
        frames = list(seal.frames(io.BytesIO(data[HEADER_BYTES:])))
        assert [frame.written_s for frame in frames] == [1_800_000_000.5] * len(parts) + [1_800_000_001]
        assert frames[-1].end == len(data)

    @given(contents, st.data())
    @settings(max_examples=often(100), deadline=None)
    def test_cut(self, parts: list[bytes], data: st.DataObject) -> None:
        """A file that is cut anywhere, between two frames too, gives whole frames and never passes for whole."""
        whole = file_of(parts)
        cut = whole[: data.draw(st.integers(8, len(whole) - 1))]
        if 8 <= len(cut) < HEADER_BYTES:
            assert read(cut) == (b"", False)
            return

        found, is_whole = read(cut)

        assert not is_whole
        assert found in {b"".join(parts[:number]) for number in range(len(parts) + 1)}

    @given(contents, st.data())
    @settings(max_examples=often(100), deadline=None)
    def test_changed(self, parts: list[bytes], data: st.DataObject) -> None:
        """A file of which any bit is changed, or that goes on behind its end, gives frames before it and says so."""
        whole = bytearray(file_of(parts))
        place = data.draw(st.integers(8 + 8, len(whole)))
        if place == len(whole):
            whole += b"\0"
        else:
            whole[place] ^= 1 << data.draw(st.integers(0, 7))

        found, is_whole = read(bytes(whole))

        assert not is_whole
        assert found in {b"".join(parts[:number]) for number in range(len(parts) + 1)}

    def test_moved(self) -> None:
        """Frames in another order, without one between, or out of another file are not taken."""
        seal, other = Seal.new(ADDRESS_KEY), Seal.new(ADDRESS_KEY)
        first, second = (seal.sealed(b"%d" % n, n, now_s=0) for n in range(2))
        last = seal.sealed(b"", 2, now_s=0, is_last=True)

        assert read(seal.header + first + second + last) == (b"01", True)
        assert read(seal.header + second + first + last) == (b"", False)
        assert read(seal.header + first + last) == (b"0", False)
        assert read(other.header + first + second + last) == (b"", False)

    def test_torn_or_damaged(self) -> None:
        """What was torn while it was written is told from what was damaged later: something follows that."""
        seal = Seal.new(ADDRESS_KEY)
        frames = [seal.sealed(b"%d" % n, n, now_s=0) for n in range(2)]
        spoilt = frames[0][:-1] + bytes([frames[0][-1] ^ 1])

        for data, is_torn in ((frames[0][:-1], True), (spoilt, True), (spoilt + frames[1], False), (b"", True)):
            with pytest.raises(DamagedError) as caught:
                list(seal.frames(io.BytesIO(data)))
            assert caught.value.is_torn is is_torn

    def test_other_key(self) -> None:
        """With another address key the error names the id of the one that is needed, and how to give it."""
        with pytest.raises(SourceUnreadableError, match=ADDRESS_KEY.key_id.hex()) as caught:
            read(file_of([b"a"]), AddressKey(bytes(32)))
        assert "--archive-key" in caught.value.fix
