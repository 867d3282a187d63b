"""The compiled checks of records are those of the library."""

import numpy as np
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.store import digests, layout
from tests.dice import often

FEWEST = digests.SHORTEST
MOST = digests.LONGEST


class TestDigests:
    """xxh3-64 of texts that stand in two pieces."""

    @settings(max_examples=often(300), deadline=None)
    @given(st.data(), st.integers(FEWEST, MOST), st.integers(0, 9), st.integers(0, 9), st.integers(0, 3))
    def test_any_rows(self, data: st.DataObject, size: int, gap: int, surplus: int, count: int) -> None:
        """Any texts of any length, whatever stands between and behind their pieces, have the library's digests."""
        length = size + gap + surplus
        before = data.draw(st.integers(0, size))
        rows = [data.draw(st.binary(min_size=length, max_size=length)) for _ in range(count)]
        found = np.empty(count, np.uint64)

        digests.digests(
            np.frombuffer(b"".join(rows), np.uint8).reshape(count, length), before, before + gap, size + gap, found
        )

        assert found.tolist() == [
            xxhash.xxh3_64_intdigest(row[:before] + row[before + gap : size + gap]) for row in rows
        ]

    def test_most(self) -> None:
        """The store leaves to the library what is longer than the loop can take."""
        assert digests.LONGEST == layout.CHECKED_AT_ONCE_MAX_BYTES

    def test_every_length(self) -> None:
        """Each length has the library's digest."""
        text = np.arange(1, MOST + 1, dtype=np.uint8)
        for size in range(FEWEST, MOST + 1):
            found = np.empty(1, np.uint64)
            digests.digests(text.reshape(1, -1), size, size, size, found)
            assert int(found[0]) == xxhash.xxh3_64_intdigest(text[:size].tobytes())
