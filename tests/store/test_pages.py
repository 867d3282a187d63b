"""Pages of the decision index as arrays: a dict is the model, and both kernels do the same, bit for bit."""

import tomllib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.consent import UNREADABLE_STATE
from iyscheck.kernel import Kernel
from iyscheck.store.index import pages
from iyscheck.store.index.pages import Words
from tests.dice import often

GOLDEN = Path(__file__).parents[1] / "golden" / "index_page.hex"
CONTEXT = (600_123, 2, 1)
SALT = pages.salts(*CONTEXT)
PLACE_SALT, PRINT_SALT = np.uint64(SALT[0]), np.uint64(SALT[1])
KERNELS = pytest.mark.parametrize("kernel", Kernel)


def tags_of(numbers: npt.NDArray[np.int64] | range) -> npt.NDArray[np.uint8]:
    """Make tags that look as if a cipher made them, the same for the same numbers."""
    digests = b"".join(xxhash.xxh3_128_digest(int(number).to_bytes(8)) for number in numbers)
    return np.frombuffer(digests, np.uint8).reshape(-1, 16)


def tag_at(place: int, fingerprint: int) -> bytes:
    """Make the tag that has this place and this second half XOR the context's number."""
    first = (place - SALT[0]) % 2**64
    return first.to_bytes(8) + (fingerprint ^ SALT[1]).to_bytes(8, "little")


def located(tags: npt.NDArray[np.uint8], shards: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Words]:
    """Return where tags belong: beginnings of their pages in a working copy, home buckets, fingerprints."""
    places = pages.places(tags, PLACE_SALT)
    starts = pages.starts_of(pages.shards_of(places, shards))
    return starts, pages.buckets_of(places), pages.fingerprints(tags, PRINT_SALT)


UPPERS = (0, 2**31 - 1, 2**31, 2**32 - 1)
LOWERS = (0, 1, 2**31, 2**32 - 2**20, 2**32 - 1)


def crowded_tag(upper: int, lower: int, number: int) -> bytes:
    """Make one of few places and a fingerprint of its own."""
    own = (number * len(UPPERS) + upper) * len(LOWERS) + lower + 1
    return tag_at(UPPERS[upper] << 32 | LOWERS[lower], own << 8)


crowded_tags = st.builds(
    crowded_tag, st.integers(0, len(UPPERS) - 1), st.integers(0, len(LOWERS) - 1), st.integers(0, 40)
)
"""Few places, so that buckets overflow into the next ones, and the last one into the first."""


@st.composite
def rounds(draw: st.DrawFn) -> list[dict[bytes, int]]:
    """Batches of tags and the states to put there, 0 for an erased one."""
    one = st.dictionaries(crowded_tags, st.integers(0, 31), max_size=60)
    return draw(st.lists(one, min_size=1, max_size=4))


def key_of(tag: bytes) -> tuple[int, int]:
    """What the index tells consents apart by: place and fingerprint."""
    row = np.frombuffer(tag, np.uint8).reshape(1, 16)
    return int(pages.places(row, PLACE_SALT)[0]), int(pages.fingerprints(row, PRINT_SALT)[0])


class TestModel:
    """What was put in is found, and nothing else."""

    @KERNELS
    @settings(max_examples=often(120), deadline=None)
    @given(batches=rounds(), shards=st.sampled_from([1, 2, 3]))
    def test_dict(self, kernel: Kernel, batches: list[dict[bytes, int]], shards: int) -> None:
        """After any batches each tag has the state put last, and others have none; crowding changes nothing."""
        memory, model = pages.blank(shards), dict[tuple[int, int], int]()
        for batch in batches:
            named = {key_of(tag): (tag, state) for tag, state in batch.items()}
            if not named:
                continue
            tags = np.frombuffer(b"".join(tag for tag, _ in named.values()), np.uint8).reshape(-1, 16)
            starts, buckets, words = located(tags, shards)
            words |= np.array([state for _, state in named.values()], np.uint64)
            left = pages.put(memory, starts, buckets, words, kernel)
            model.update((key, state) for key, (_, state) in named.items())
            assert left.size == 0
        asked = {tag for batch in batches for tag in batch} | {tag_at(2**62, 10_001 << 8), tag_at(0, 10_002 << 8)}
        tags = np.frombuffer(b"".join(sorted(asked)), np.uint8).reshape(-1, 16)

        found = pages.look_up(memory, pages.starts_of(np.arange(shards)), tags, SALT, kernel)

        assert found.tolist() == [model.get(key_of(tag.tobytes()), 0) for tag in tags]

    @KERNELS
    @pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
    def test_many(self, kernel: Kernel, load: float) -> None:
        """At any load all of many are found with their states, in whole pages and in those that were not taken."""
        shards, count = 40, int(40 * pages.CAPACITY * load)
        tags, states = tags_of(range(count)), np.arange(count, dtype=np.uint64) % 31 + 1
        memory = pages.blank(shards)
        starts, buckets, words = located(tags, shards)
        assert pages.fill(memory, starts, buckets, words | states, kernel).size == 0
        table = pages.starts_of(np.arange(shards))

        found = pages.look_up(memory, table, tags, SALT, kernel)
        table[::3] = pages.NOT_TAKEN
        without = pages.look_up(memory, table, tags, SALT, kernel)
        strangers = pages.look_up(
            memory, pages.starts_of(np.arange(shards)), tags_of(range(10**6, 10**6 + count)), SALT, kernel
        )

        missing = pages.shards_of(pages.places(tags, PLACE_SALT), shards) % 3 == 0
        assert (found == states).all()
        assert (without[missing] == pages.UNANSWERED).all()
        assert (without[~missing] == states[~missing]).all()
        assert not strangers.any()

    @KERNELS
    def test_other_context(self, kernel: Kernel) -> None:
        """The same tags in any other brand, channel or recipient type are not found."""
        tags, memory = tags_of(range(2_000)), pages.blank(8)
        starts, buckets, words = located(tags, 8)
        pages.fill(memory, starts, buckets, words | np.uint64(1), kernel)

        for other in ((600_124, 2, 1), (600_123, 1, 1), (600_123, 2, 2)):
            assert not pages.look_up(memory, pages.starts_of(np.arange(8)), tags, pages.salts(*other), kernel).any()

    @KERNELS
    @pytest.mark.parametrize("low", [0, 1, 255, 256])
    def test_zero_fingerprint(self, kernel: Kernel, low: int) -> None:
        """A consent whose fingerprint would be zero is found like any other, and is no empty word."""
        tags, memory = np.frombuffer(tag_at(5, low), np.uint8).reshape(1, 16), pages.blank(1)
        starts, buckets, words = located(tags, 1)

        pages.put(memory, starts, buckets, words, kernel)
        erased = np.count_nonzero(memory)
        pages.put(memory, starts, buckets, words | np.uint64(2), kernel)

        assert erased == np.count_nonzero(memory) == 1
        assert pages.look_up(memory, pages.starts_of(np.arange(1)), tags, SALT, kernel).tolist() == [2]

    @KERNELS
    def test_overfull(self, kernel: Kernel) -> None:
        """What finds no room is told, and everything else of the page is found."""
        tags = np.frombuffer(
            b"".join(tag_at(5, number << 8) for number in range(1, pages.CAPACITY + 8)), np.uint8
        ).reshape(-1, 16)
        memory = pages.blank(1)
        starts, buckets, words = located(tags, 1)

        left = pages.put(memory, starts, buckets, words | np.uint64(2), kernel)
        found = pages.look_up(memory, pages.starts_of(np.arange(1)), tags, SALT, kernel)

        assert len(left) == 7
        assert np.flatnonzero(found == 0).tolist() == sorted(left.tolist())

    @KERNELS
    def test_erased(self, kernel: Kernel) -> None:
        """An erased entry keeps its word, so that what lies behind it is still found."""
        tags = np.frombuffer(b"".join(tag_at(5, number << 8) for number in range(1, 21)), np.uint8).reshape(-1, 16)
        memory = pages.blank(1)
        starts, buckets, words = located(tags, 1)
        pages.fill(memory, starts, buckets, words | np.uint64(2), kernel)

        pages.put(memory, starts[:8], buckets[:8], words[:8], kernel)

        found = pages.look_up(memory, pages.starts_of(np.arange(1)), tags, SALT, kernel)
        assert found.tolist() == [0] * 8 + [2] * 12
        assert np.count_nonzero(memory) == 20


class TestKernels:
    """Both kernels write the same bytes and read the same answers."""

    @settings(max_examples=often(100), deadline=None)
    @given(batches=rounds(), shards=st.sampled_from([1, 2, 3]), holes=st.integers(1, 3))
    def test_bits(self, batches: list[dict[bytes, int]], shards: int, holes: int) -> None:
        """Any batches leave the same words at the same places, and tables with holes give the same states."""
        copies = {kernel: pages.blank(shards) for kernel in Kernel}
        for batch in batches:
            named = {key_of(tag): (tag, state) for tag, state in batch.items()}
            tags = np.frombuffer(b"".join(tag for tag, _ in named.values()), np.uint8).reshape(-1, 16)
            starts, buckets, words = located(tags, shards)
            words |= np.array([state for _, state in named.values()], np.uint64)
            table = pages.starts_of(np.arange(shards))
            table[::holes] = pages.NOT_TAKEN
            left = {kernel: pages.put(memory, starts, buckets, words, kernel) for kernel, memory in copies.items()}
            read = {kernel: pages.look_up(memory, table, tags, SALT, kernel) for kernel, memory in copies.items()}
            assert left[Kernel.NUMPY].tolist() == left[Kernel.NUMBA].tolist()
            assert read[Kernel.NUMPY].tolist() == read[Kernel.NUMBA].tolist()
        assert copies[Kernel.NUMPY].tobytes() == copies[Kernel.NUMBA].tobytes()

    @pytest.mark.parametrize("kernel", Kernel)
    @settings(max_examples=often(100), deadline=None)
    @given(
        rows=st.lists(st.integers(0, 60), max_size=90),
        nobody=st.integers(0, 60) | st.none(),
        by_state=st.binary(min_size=256, max_size=256),
        hole=st.booleans(),
    )
    def test_meanings(
        self,
        kernel: Kernel,
        rows: list[int],
        nobody: int | None,
        by_state: bytes,
        hole: bool,  # noqa: FBT001 - hypothesis gives it by name
    ) -> None:
        """Each gets the meaning of its own state; nobody's tag, of no address; all are counted, on both kernels."""
        tags, memory, table = tags_of(range(61)), pages.blank(2), pages.starts_of(np.arange(2))
        starts, buckets, words = located(tags, 2)
        states = np.arange(61, dtype=np.uint64) % 31 + 1
        pages.fill(memory, starts[:50], buckets[:50], words[:50] | states[:50], Kernel.NUMPY)
        if hole:
            table[1] = pages.NOT_TAKEN
        expected = []
        for row in rows:
            state = int(states[row]) if row < 50 else 0
            state = 255 if hole and starts[row] == pages.starts_of(np.arange(2))[1] else state
            expected.append(by_state[254 if row == nobody else state])

        found, counts = pages.meanings(
            memory,
            table,
            tags[rows],
            SALT,
            kernel,
            None if nobody is None else tags[nobody].tobytes(),
            np.frombuffer(by_state, np.uint8),
        )

        assert found.tolist() == expected
        assert counts.tolist() == [expected.count(number) for number in range(256)]

    def test_literals(self) -> None:
        """The loops' own copies of the layout's numbers are the layout's numbers."""
        from iyscheck.store.index import loops

        for name in ("HEADER_WORDS", "BUCKETS", "BUCKET_WORDS", "FRAME_WORDS", "UNANSWERED"):
            assert getattr(loops, name) == getattr(pages, name)
        for name in ("STATE_BITS", "FINGERPRINT_BITS", "SMALLEST_FINGERPRINT"):
            assert getattr(loops, name) == getattr(pages, name)
        assert loops.UNREADABLE == UNREADABLE_STATE

    def test_optional(self) -> None:
        """Nothing but the extra `fast` and those who develop need numba."""
        project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]

        assert not any("numba" in requirement for requirement in project["dependencies"])
        assert any("numba" in requirement for requirement in project["optional-dependencies"]["fast"])


def golden_page() -> bytes:
    """Write a page of 400 consents, of which 20 are erased, as numpy does."""
    tags, memory = tags_of(range(400)), pages.blank(1)
    starts, buckets, words = located(tags, 1)
    pages.fill(memory, starts, buckets, words | np.arange(400, dtype=np.uint64) % 31 + 1, Kernel.NUMPY)
    pages.put(memory, starts[:20], buckets[:20], words[:20], Kernel.NUMPY)
    return bytes(pages.sealed(memory, 7, np.array([3]))[0])


class TestBytes:
    """A page on disk."""

    def test_golden(self) -> None:
        """A page of many consents is the recorded one, byte for byte."""
        assert golden_page().hex(" ", 8).split() == GOLDEN.read_text().split()

    @settings(max_examples=often(300), deadline=None)
    @given(at=st.integers(0, pages.INDEX_PAGE_BYTES * 8 - 1))
    def test_flipped_bit(self, at: int) -> None:
        """A page with any one bit flipped is not sound."""
        page = bytearray(golden_page())
        assert pages.sound(bytes(page), 7, 3)

        page[at // 8] ^= 1 << at % 8

        assert not pages.sound(bytes(page), 7, 3)

    @pytest.mark.parametrize(("generation", "shard"), [(7, 2), (6, 3), (3, 7)])
    def test_moved(self, generation: int, shard: int) -> None:
        """A page is not sound as that of another shard or generation."""
        assert not pages.sound(golden_page(), generation, shard)

    @pytest.mark.parametrize("size", [0, 8, 4079, 4081])
    def test_length(self, size: int) -> None:
        """A value of another length is not sound."""
        assert not pages.sound((golden_page() * 2)[:size], 7, 3)

    def test_overfull(self) -> None:
        """That a page is overfull survives the disk, and later changes to it."""
        memory = pages.blank(2)
        pages.mark_overfull(memory, pages.starts_of(np.array([1])))
        values = [bytes(value) for value in pages.sealed(memory, 1, np.arange(2))]

        again = pages.sealed(pages.working_copy(values), 1, np.arange(2))

        assert [pages.overfull(value) for value in values] == [False, True]
        assert [pages.overfull(value) for value in again] == [False, True]

    def test_used_and_live(self) -> None:
        """The header counts erased words too, the live ones are those with a state."""
        page = golden_page()

        assert pages.used_in(page) == 400
        assert pages.live(page) == 380


class TestPlaces:
    """Which shard a consent belongs to."""

    @settings(max_examples=often(300), deadline=None)
    @given(place=st.integers(0, 2**64 - 1), shards=st.sampled_from([1, 2, 3, 16, 61_051, 2**20 + 7, 2**31]))
    def test_first_place(self, place: int, shards: int) -> None:
        """A shard has exactly the places from its first one to before that of the next shard."""
        (shard,) = pages.shards_of(np.array([place], np.uint64), shards).tolist()

        assert 0 <= shard < shards
        assert pages.first_place(shard, shards) <= place < pages.first_place(shard + 1, shards)

    @pytest.mark.parametrize("shards", [1, 7, 61_051])
    def test_ends(self, shards: int) -> None:
        """The first shard begins at 0 and the last one ends at 2^64."""
        assert (pages.first_place(0, shards), pages.first_place(shards, shards)) == (0, 2**64)

    def test_neighbours(self) -> None:
        """The consents of one context in one shard are neighbours among the tags, around the end of them at most."""
        tags = np.sort(tags_of(range(5_000)).view(">u8")[:, 0].astype(np.uint64))
        shards = pages.shards_of(tags + PLACE_SALT, 9)

        assert np.count_nonzero(np.diff(shards)) == 8 + (shards[0] == shards[-1])

    def test_salts(self) -> None:
        """Neighbouring contexts have other numbers in both halves."""
        found = [
            pages.salts(brand, channel, kind) for brand in (1, 2, 2**32 - 1) for channel in (1, 2, 3) for kind in (1, 2)
        ]

        for half in zip(*found, strict=True):
            assert len(set(half)) == len(found)


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> None:
    """Compile before hypothesis looks at the clock."""
    pages.look_up(pages.blank(1), pages.starts_of(np.arange(1)), tags_of(range(1)), SALT, Kernel.NUMBA)
