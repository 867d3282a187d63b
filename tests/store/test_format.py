"""Every byte on disk: FORMAT.md's examples, golden values, round trips, and what is not ours."""

import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iyscheck.change import KNOWN_SOURCES, Brand, ConsentChange, ConsentColumns
from iyscheck.consent import LEGACY_CONSENTS_BEFORE, Channel, RecipientType, Status, states
from iyscheck.errors import StoreCorruptError
from iyscheck.kernel import Kernel
from iyscheck.question import Evidence, evidence_of
from iyscheck.store import layout
from iyscheck.store.encoded import EncodedChanges
from iyscheck.store.index import pages
from iyscheck.store.layout import PRIMARY, LogState, RetailerList, SourceState
from iyscheck.times import local_text
from tests.builders import NOW, REGISTERED, a_brand, a_change
from tests.dice import often
from tests.strategies import brands, consent_changes, retailer_sets

DOCUMENT = Path(layout.__file__).parents[1] / "FORMAT.md"
CHANGE = a_change(brand=600_123, tag=bytes(range(16)), transaction_id="1f" * 32, sequence=42)
UNNUMBERED = replace(CHANGE, source="HS_ŞUBE", transaction_id="short-1", consented=0)
KEY = layout.encode_key(600_123, Channel.MESAJ, RecipientType.BIREYSEL, bytes(range(16)))
ROUND_TRIP = settings(max_examples=often(150), deadline=None)
Decoder = Callable[[bytes, bytes], object]
BIND: dict[str, Decoder] = {
    "record": layout.decode_record,
    "facts": layout.decode_facts,
    "brand": layout.decode_brand,
    "watermark": layout.decode_watermark,
    "hold": layout.decode_hold,
    "access": layout.decode_access,
    "list": layout.decode_list,
    "source": layout.decode_source,
}
"""All decoders of values that carry a check."""


def record(change: ConsentChange) -> bytes:
    """Encode one record."""
    return EncodedChanges.of(ConsentColumns.of([change])).records()[0]


def checked(key: bytes, body: bytes) -> bytes:
    """Write a value with a right check, by FORMAT.md's words."""
    return struct.pack(">I", xxhash.xxh3_64_intdigest(key + body) % 2**32) + body


VALUES = {
    "record": (KEY, record(CHANGE)),
    "record with tail": (KEY, record(UNNUMBERED)),
    "facts": (KEY, record(CHANGE)),
    "facts with tail": (KEY, record(UNNUMBERED)),
    "brand": (layout.encode_code(600_123), layout.encode_brand(a_brand(600_123, legacy_deadline=1))),
    "watermark": (layout.encode_code(600_123), layout.encode_watermark(600_123, NOW)),
    "hold": (layout.source_key("a.jsonl"), layout.encode_hold("a.jsonl", (2, 600_123))),
    "access": (KEY, layout.encode_access(KEY, REGISTERED, layout.list_id(frozenset([1])))),
    "list": (
        layout.list_id(frozenset([1, 55_550_127])),
        layout.encode_list(RetailerList(users=3, retailers=frozenset([55_550_127, 1]))),
    ),
    "source": (layout.source_key("a"), layout.encode_source(SourceState(name="a", rows=3, brands=(1,)))),
}


def documented() -> dict[str, bytes]:
    """Read the hexadecimal examples out of FORMAT.md."""
    found: dict[str, bytes] = {}
    blocks = DOCUMENT.read_text(encoding="utf-8").split("```hex\n")[1:]
    for example_of in "\n\n".join(block.split("\n```")[0] for block in blocks).split("\n\n"):
        title, *lines = example_of.splitlines()
        found[title] = b"".join(bytes.fromhex(line.split("   ")[0]) for line in lines)
    return found


def example_page() -> bytes:
    """Write the documented consent as an index of one page."""
    salt = pages.salts(CHANGE.brand, CHANGE.channel, CHANGE.recipient_type)
    tag = np.frombuffer(CHANGE.tag, np.uint8).reshape(1, 16)
    places = pages.places(tag, np.uint64(salt[0]))
    words = pages.fingerprints(tag, np.uint64(salt[1])) | np.uint64(1)
    memory = pages.blank(1)
    pages.fill(memory, pages.starts_of(pages.shards_of(places, 1)), pages.buckets_of(places), words, Kernel.NUMPY)
    return bytes(pages.sealed(memory, 1, np.array([0]))[0])


class TestDocument:
    """FORMAT.md is what the code writes."""

    def test_example_by_hand(self) -> None:
        """Key and record of the example follow from the document's words alone."""
        key = (600_123).to_bytes(4) + b"\x02\x01" + bytes(range(16))
        body = (
            b"\x01"
            + (KNOWN_SOURCES.index("HS_WEB") + 1).to_bytes(1)
            + (1_748_779_200).to_bytes(4)
            + (1_748_683_800).to_bytes(4)
            + (42).to_bytes(8)
            + b"\x01"
            + b"\x1f" * 32
        )

        assert documented()["key"] == key
        assert documented()["record"] == checked(key, body)

    def test_tail_by_hand(self) -> None:
        """The record with a tail follows from the document's words alone."""
        key = documented()["key"]
        fixed = b"\x01\x00" + (1_748_779_200).to_bytes(4) + bytes(4) + (42).to_bytes(8) + b"\x02" + bytes(32)
        tail = b"\x07short-1\x08" + "HS_ŞUBE".encode()

        assert documented()["record with a tail"] == checked(key, fixed + tail)

    def test_example_by_code(self) -> None:
        """The code writes the documented bytes."""
        page = example_page()

        assert documented() == {
            "key": KEY,
            "record": record(CHANGE),
            "record with a tail": record(UNNUMBERED),
            "page header": page[:48],
            "word at byte 3760": page[3760:3768],
        }

    def test_page_by_hand(self) -> None:
        """The page of the example follows from the document's words alone."""
        numbers = xxhash.xxh3_128_digest((600_123).to_bytes(4) + b"\x02\x01")
        place = int.from_bytes(bytes(range(8))) + int.from_bytes(numbers[:8], "little")
        print_number = int.from_bytes(bytes(range(8, 16)), "little") ^ int.from_bytes(numbers[8:], "little")
        bucket = place % 2**32 * 63 // 2**32
        body = bytearray(4072)
        body[:16] = (0).to_bytes(4, "little") + (1).to_bytes(4, "little") + (1).to_bytes(4, "little") + bytes(4)
        body[40 + 64 * bucket : 48 + 64 * bucket] = b"\x01" + print_number.to_bytes(8, "little")[1:]
        check = xxhash.xxh3_64_intdigest(bytes(body)).to_bytes(8, "little")

        assert (bucket, place) == (58, 0xE3F6C3E7EFAE1F21)
        assert check + bytes(body) == example_page()

    def test_databases(self) -> None:
        """The document's table names every database of the code, in the same order."""
        table = DOCUMENT.read_text(encoding="utf-8").split("## Databases")[1].split("\n- ")[0]

        named = [line.split("`")[1].encode() for line in table.splitlines() if line.startswith("| `")]
        assert tuple(named) == layout.DATABASES

    def test_numpy_rows(self) -> None:
        """The numpy row types have the documented lengths."""
        assert (layout.KEY_DTYPE.itemsize, layout.RECORD_DTYPE.itemsize) == (22, 55)


class TestGolden:
    """Bytes that existing stores hold."""

    @pytest.mark.parametrize(
        ("value", "written"),
        [
            (layout.encode_number(2**40 + 5), "0000010000000005"),
            (
                layout.encode_brand(a_brand(600_123, legacy_deadline=1, channels=[Channel.MESAJ, Channel.EPOSTA])),
                "9481e6b200000000000927c0010c01683c40c0",
            ),
            (layout.encode_watermark(600_123, NOW), "37e9fdb9000000006955b900"),
            (layout.list_id(frozenset([1, 55_550_127])), "c68965bba21e48419a0c42a634521cd4"),
            (VALUES["list"][1], "c9fba6e60000000000000003000000000000000100000000034fa0af"),
            (
                layout.encode_access(KEY, REGISTERED, bytes.fromhex("c68965bba21e48419a0c42a634521cd4")),
                "3b3042a8683c40c0c68965bba21e48419a0c42a634521cd4",
            ),
            (layout.encode_count_key(600_123, 2, 1, 2), "0009283b020102"),
            (layout.source_key("a.jsonl"), "68095ceadeab8bd9d09bdcc037788f96"),
            (VALUES["hold"][1], "5fc961e60000000000000002000000020009283b612e6a736f6e6c"),
            (layout.encode_sum(600_123, 2**127 + 5), "8dcc117e80000000000000000000000000000005"),
            (
                layout.encode_waiting(7, layout.Waiting(created_ms=NOW * 1000, bytes=4_077, messages=1)),
                "b5a9e8940000019b76daa8000000000000000fed0001",
            ),
            (layout.chunk_key(7, 1, 258), "000000000000000700010102"),
            (layout.encode_chunk(layout.chunk_key(7, 1, 0), b"IYSB"), "a10734cb49595342"),
            (
                layout.encode_log_state(LogState(role=PRIMARY, term=1, batch=7, created_ms=NOW * 1000, oldest=3)),
                "48056d357b22726f6c65223a227072696d617279222c227465726d223a312c226261746368223a372c22636861696e223a22414141414141414141414141414141414141414141414141414141414141414141414141414141414141413d222c22646967657374223a22414141414141414141414141414141414141414141413d3d222c22637265617465645f6d73223a313736373232353630303030302c226f6c64657374223a332c2273747265616d5f63726561746564223a22222c2273747265616d5f73657175656e6365223a302c22756e74727573746564223a22222c2273657474696e6773223a22227d",
            ),
        ],
        ids=[
            *("number", "brand", "watermark", "list id", "list", "access", "count key", "source key", "hold"),
            *("sum", "waiting", "chunk key", "chunk", "log state"),
        ],
    )
    def test_bytes(self, value: bytes, written: str) -> None:
        """The encodings never drift."""
        assert value.hex() == written


class TestRoundTrips:
    """What is written is what is read."""

    @pytest.mark.parametrize("kernel", Kernel)
    @ROUND_TRIP
    @given(changes=st.lists(consent_changes, max_size=8))
    def test_records(self, kernel: Kernel, changes: list[ConsentChange]) -> None:
        """Each record of a column reads back as its change, alone and by columns."""
        encoded = EncodedChanges.of(ConsentColumns.of(changes), kernel)

        keys, values = encoded.keys(), encoded.records()

        assert [layout.decode_record(key, value) for key, value in zip(keys, values, strict=True)] == changes
        rows = layout.decode_columns(keys, values)
        assert rows["status"].tolist() == [change.status for change in changes]
        assert rows["registered"].tolist() == [change.registered for change in changes]
        assert rows["consented"].tolist() == [change.consented for change in changes]

    @pytest.mark.parametrize("kernel", Kernel)
    @ROUND_TRIP
    @given(changes=st.lists(consent_changes, max_size=6), times=st.sampled_from([1, 15, 16, 17]))
    def test_repeated_tails(self, kernel: Kernel, changes: list[ConsentChange], times: int) -> None:
        """Records that share a tail, however many, read back as their changes, and so do their columns."""
        repeated = [replace(change, sequence=at) for at in range(times) for change in changes]
        encoded = EncodedChanges.of(ConsentColumns.of(repeated), kernel)

        read = [layout.decode_record(*item) for item in zip(encoded.keys(), encoded.records(), strict=True)]

        columns = encoded.columns()
        assert read == repeated == [columns.change(at) for at in range(len(columns))]

    @ROUND_TRIP
    @given(st.lists(consent_changes, max_size=20))
    def test_citizens(self, changes: list[ConsentChange]) -> None:
        """Whose act a change was is told alike by its columns and, where a deadline may matter, by its bytes."""
        columns = ConsentColumns.of(changes)
        old = columns.consented < LEGACY_CONSENTS_BEFORE

        told = EncodedChanges.of(columns).facts().by_citizen

        assert columns.by_citizen.tolist() == [change.source.startswith("IYS_") for change in changes]
        assert told[old].tolist() == columns.by_citizen[old].tolist()

    @ROUND_TRIP
    @given(consent_changes)
    def test_evidence(self, change: ConsentChange) -> None:
        """What a check reads of a record is its facts as a column has them, and its texts."""
        key = layout.encode_key(change.brand, change.channel, change.recipient_type, change.tag)
        consented, registered = np.array([change.consented], np.int64), np.array([change.registered], np.int64)

        state, facts = layout.decode_facts(key, record(change))

        by_citizen, no_list = np.array([change.source.startswith("IYS_")]), np.zeros(1, np.bool_)
        assert state == states(np.array([change.status], np.uint8), consented, registered, by_citizen, no_list)[0]
        assert evidence_of(facts) == Evidence(
            status=change.status,
            source=change.source,
            consent_time=local_text(change.consented),
            registration_time=local_text(change.registered),
            transaction_id=change.transaction_id,
        )

    @ROUND_TRIP
    @given(
        consent_changes,
        st.text(st.characters(codec="utf-8", max_codepoint=0xFFFF), max_size=64).filter(
            lambda text: len(text.encode()) < 256
        ),
        st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=64),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**64 - 1),
    )
    def test_any_text(
        self, change: ConsentChange, source: str, transaction_id: str, registered: int, sequence: int
    ) -> None:
        """Any source code and transaction id of allowed length survive, known or not."""
        sequence = min(sequence, 2**63 - 1)
        change = replace(change, source=source, transaction_id=transaction_id, registered=registered, sequence=sequence)

        key = layout.encode_key(change.brand, change.channel, change.recipient_type, change.tag)
        assert layout.decode_record(key, record(change)) == change

    @ROUND_TRIP
    @given(consent_changes, st.lists(st.binary(min_size=16, max_size=16), max_size=4))
    def test_keys(self, change: ConsentChange, tags: list[bytes]) -> None:
        """Scalar, column and frame write the same key, and it reads back."""
        where = (change.brand, change.channel, change.recipient_type)
        key = layout.encode_key(*where, change.tag)
        column = np.frombuffer(b"".join(tags), np.uint8).reshape(-1, 16)

        assert layout.encode_keys(ConsentColumns.of([change])).tobytes() == key
        assert layout.decode_key(key) == (*where, change.tag)
        assert layout.column_keys(*where, column) == [layout.encode_key(*where, tag) for tag in tags]

    @ROUND_TRIP
    @given(brands)
    def test_brands(self, brand: Brand) -> None:
        """A brand survives."""
        assert layout.decode_brand(layout.encode_code(brand.brand), layout.encode_brand(brand)) == brand

    @ROUND_TRIP
    @given(retailer_sets, st.integers(1, 2**63))
    def test_lists(self, retailers: frozenset[int], users: int) -> None:
        """A retailer list survives, the empty one too."""
        entry = RetailerList(users=users, retailers=retailers)

        assert layout.decode_list(layout.list_id(retailers), layout.encode_list(entry)) == entry

    @ROUND_TRIP
    @given(st.text(st.characters(codec="utf-8")) | st.just("b\udcff.csv"), st.lists(st.integers(0, 2**32 - 1)))
    def test_sources(self, name: str, codes: list[int]) -> None:
        """A source's state and hold survive under any name, bytes that are no text among them."""
        state = SourceState(name=name, rows=7, brands=tuple(codes), watermarks=((0, NOW),), finished=True)
        key = layout.source_key(name)

        assert layout.decode_source(key, layout.encode_source(state)) == state
        assert layout.decode_hold(key, layout.encode_hold(name, codes)) == (name, tuple(sorted(codes)))


class TestDamage:
    """What no iyscheck wrote is an error of ours, and never a consent."""

    @pytest.mark.parametrize("kind", VALUES)
    def test_each_bit(self, kind: str) -> None:
        """Every single flipped bit of a value is found."""
        key, value = VALUES[kind]
        decode = BIND[kind.removesuffix(" with tail")]
        for bit in range(len(value) * 8):
            flipped = bytearray(value)
            flipped[bit // 8] ^= 1 << bit % 8

            with pytest.raises(StoreCorruptError):
                decode(key, bytes(flipped))

    @pytest.mark.parametrize("kind", VALUES)
    def test_torn(self, kind: str) -> None:
        """A value that is cut off anywhere, zero-filled from anywhere, or too long is found."""
        key, value = VALUES[kind]
        decode = BIND[kind.removesuffix(" with tail")]
        torn = [value[:end] for end in range(len(value))]
        zeroed = [value[:end] + bytes(len(value) - end) for end in range(len(value.rstrip(b"\0")))]
        for damaged in (*torn, *zeroed, value + b"\0", bytes(len(value))):
            with pytest.raises(StoreCorruptError):
                decode(key, damaged)

    @pytest.mark.parametrize("kind", VALUES)
    def test_moved(self, kind: str) -> None:
        """A value under another key is found."""
        key, value = VALUES[kind]
        moved = bytes((*key[:-1], key[-1] ^ 1))

        with pytest.raises(StoreCorruptError):
            BIND[kind.removesuffix(" with tail")](moved, value)

    @pytest.mark.parametrize("kind", BIND)
    @settings(max_examples=often(100), deadline=None)
    @given(st.binary(max_size=30), st.binary(max_size=120))
    def test_noise(self, kind: str, key: bytes, value: bytes) -> None:
        """Random bytes under a random key are found."""
        with pytest.raises(StoreCorruptError):
            BIND[kind](key, value)

    @pytest.mark.parametrize("kind", BIND)
    @settings(max_examples=often(200), deadline=None)
    @given(key=st.binary(max_size=24), body=st.binary(max_size=120))
    @example(key=KEY, body=b"\x01" + bytes(50))
    @example(key=bytes(4), body=bytes(10) + b"\x01\x00\x09" + bytes(2))
    @example(key=b"", body=b"\0" * 7 + b"\2\0\0\0\1")
    @example(key=b"", body=b'{"name":"\\u0400"}')
    def test_right_check(self, kind: str, key: bytes, body: bytes) -> None:
        """Noise with a right check is a value of its type or our error, never another exception."""
        with suppress(StoreCorruptError):
            BIND[kind](key, checked(key, body))

    @pytest.mark.parametrize("status", sorted({0, 4, 5, 255}))
    def test_unknown_status(self, status: int) -> None:
        """A record with a status that is never stored is damage even where its check is right."""
        body = bytes((status,)) + record(CHANGE)[5:]

        with pytest.raises(StoreCorruptError):
            layout.decode_record(KEY, checked(KEY, body))
        with pytest.raises(StoreCorruptError):
            layout.decode_columns([KEY], [checked(KEY, body)])

    @pytest.mark.parametrize(
        ("place", "number"),
        [(1, len(KNOWN_SOURCES) + 1), (1, 255), (18, 3), (18, 255)],
        ids=["source", "last source", "form", "last form"],
    )
    def test_unknown_numbers(self, place: int, number: int) -> None:
        """A source number or transaction form that this format lacks is damage."""
        body = bytearray(record(CHANGE)[4:])
        body[place] = number

        with pytest.raises(StoreCorruptError):
            layout.decode_record(KEY, checked(KEY, bytes(body)))

    @pytest.mark.parametrize("decode", [layout.decode_record, layout.decode_facts])
    @pytest.mark.parametrize("change", [CHANGE, UNNUMBERED], ids=["no tail", "tail"])
    def test_wrong_tail(self, change: ConsentChange, decode: Decoder) -> None:
        """A text too many or too few behind the fixed part is damage, even where the check is right."""
        key = layout.encode_key(change.brand, change.channel, change.recipient_type, change.tag)
        body = record(change)[4:]
        named = bytearray(body[: layout.RECORD_BYTES - 4])
        named[1] = 0  # a source that the tail must name

        for wrong in (body + b"\1x", body + b"\0", body[: layout.RECORD_BYTES - 4] + b"\2x", bytes(named)):
            with pytest.raises(StoreCorruptError):
                decode(key, checked(key, wrong))

    @pytest.mark.parametrize("deadline", [4, 255])
    def test_unknown_deadline(self, deadline: int) -> None:
        """A brand with a legacy deadline that this format lacks is damage."""
        key = layout.encode_code(1)
        body = bytearray(layout.encode_brand(a_brand(1))[4:])
        body[10] = deadline

        with pytest.raises(StoreCorruptError):
            layout.decode_brand(key, checked(key, bytes(body)))

    @pytest.mark.parametrize("active", range(2, 256, 23))
    def test_odd_active(self, active: int) -> None:
        """A brand is active only where its byte is exactly 1."""
        key = layout.encode_code(1)
        body = bytearray(layout.encode_brand(a_brand(1))[4:])
        body[8] = active

        assert not layout.decode_brand(key, checked(key, bytes(body))).active

    @pytest.mark.parametrize("numbers", [(0, 1), (4, 1), (2, 0), (2, 3)])
    def test_unknown_key(self, numbers: tuple[int, int]) -> None:
        """A consent key of an unknown channel or recipient type is damage."""
        with pytest.raises(StoreCorruptError):
            layout.decode_key(struct.pack(">IBB16s", 1, *numbers, bytes(16)))

    @pytest.mark.parametrize(
        "decode", [layout.decode_number, layout.decode_code, layout.decode_count_key, layout.decode_key]
    )
    @settings(max_examples=50, deadline=None)
    @given(st.binary(max_size=40))
    def test_unchecked_values(self, decode: Callable[[bytes], object], value: bytes) -> None:
        """Numbers and keys of a wrong length are found."""
        try:
            decode(value)
        except StoreCorruptError:
            return

        assert len(value) in (4, 7, 8, 22)

    def test_one_damaged_row(self) -> None:
        """One damaged record fails the whole column: nobody in it is answered."""
        change = replace(CHANGE, status=Status.RET)
        damaged = record(change)[:-1] + b"\0"

        with pytest.raises(StoreCorruptError):
            layout.decode_columns([KEY, KEY], [record(CHANGE), damaged])
