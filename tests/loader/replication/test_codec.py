"""Messages of the log: replicas read exactly what was sealed, and believe nothing else."""

import hashlib
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from iyscheck.change import ConsentColumns
from iyscheck.errors import MessageRejectedError, SettingsError
from iyscheck.keys import Signers, SigningKey, StreamKey
from iyscheck.store import layout
from iyscheck.store.encoded import ROW_DTYPE, EncodedChanges
from iyscheck.store.log_batch import Kind, LogBatch
from loader.replication import codec
from loader.replication.codec import (
    HEADER_BYTES,
    MAGIC,
    PART_HEADER_BYTES,
    VALUES,
    VERSION,
    BatchOpener,
    BatchSealer,
    MessageHeader,
    Rejection,
    hash_of,
    header_of,
    open_bytes,
    seal_bytes,
)
from tests.builders import a_change
from tests.dice import often
from tests.strategies import consent_changes

STREAM_SECRET, SIGNING_SECRET = bytes(range(64, 96)), bytes(range(96, 128))
STREAM_KEY, SIGNING_KEY = StreamKey(STREAM_SECRET), SigningKey(SIGNING_SECRET)
STRANGER = SigningKey(bytes(range(128, 160)))
LOG_ID = bytes(range(16))
SEALER = BatchSealer(STREAM_KEY, SIGNING_KEY)
OPENER = BatchOpener(STREAM_KEY, Signers([SIGNING_KEY.public]), log_id=LOG_ID)
GOLDEN = Path(__file__).parents[2] / "golden" / "log_message.hex"
DOCUMENT = Path(codec.__file__).with_name("FORMAT.md")
SLICE_BYTES = 100
"""Of a batch in one message, where a test wants several."""
FEED_FIELD = layout.META_FEED + b"pull"


def encoded(*changes: object) -> EncodedChanges:
    """Encode changes as `a_change` makes them."""
    return EncodedChanges.of(ConsentColumns.of(changes))  # type: ignore[arg-type] # they are a_change's


def a_log_batch(**fields: object) -> LogBatch:
    """Make a batch of which a test names only what it is about."""
    facts: dict[str, object] = {
        "kind": Kind.CHANGES,
        "log_id": LOG_ID,
        "term": 3,
        "batch": 17,
        "first": 1_000,
        "last": 1_042,
        "created_ms": 1_767_225_600_123,
        "prev": bytes(range(32, 64)),
        "digest": bytes(range(16, 32)),
        "rows": encoded(
            a_change(brand=600_123, tag=bytes(range(16)), transaction_id="1f" * 32, sequence=42),
            a_change(
                brand=600_123,
                tag=bytes(range(1, 17)),
                source="HS_ŞUBE",
                transaction_id="short-1",
                sequence=43,
                consented=0,
            ),
        ),
        "values": [(layout.WATERMARKS, layout.encode_code(600_123), b"w" * 12), (layout.HOLDS, b"h" * 16, None)],
    }
    return LogBatch(**(facts | fields))  # type: ignore[arg-type] # each test gives what fits


def parted(sealer: BatchSealer = SEALER, batch: LogBatch | None = None) -> list[bytes]:
    """Seal a batch in parts of SLICE_BYTES."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "SLICE_MAX_BYTES", SLICE_BYTES)
        return sealer.seal(a_log_batch() if batch is None else batch)


def why(work: Callable[..., object], *given: object) -> Rejection:
    """Say why what is done with something is refused."""
    with pytest.raises(MessageRejectedError) as caught:
        work(*given)
    return Rejection(caught.value.why)


def resigned(message: bytes, key: SigningKey = SIGNING_KEY) -> bytes:
    """Sign a message anew, whatever is in it."""
    return message[:-64] + key.sign(message[:-64])


def same(one: LogBatch, other: LogBatch) -> bool:
    """Say whether two batches say the same: rows are compared as the store would hold them."""
    empty = EncodedChanges(rows=np.empty(0, ROW_DTYPE))
    return (
        one.rows.keys() == other.rows.keys()
        and one.rows.records() == other.rows.records()
        and list(one.values) == list(other.values)
        and replace(one, rows=empty, values=[]) == replace(other, rows=empty, values=[])
    )


numbers = st.sampled_from([0, 1, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
values = st.tuples(
    st.sampled_from(sorted(VALUES - {layout.META})), st.binary(min_size=1, max_size=511), st.none() | st.binary()
) | st.tuples(st.just(layout.META), st.binary(max_size=20).map(layout.META_FEED.__add__), st.binary())
batches = st.builds(
    LogBatch,
    kind=st.sampled_from(Kind),
    log_id=st.just(LOG_ID),
    term=st.integers(0, 2**32 - 1),
    batch=numbers,
    first=numbers,
    last=numbers,
    created_ms=numbers,
    prev=st.binary(min_size=32, max_size=32),
    digest=st.binary(min_size=16, max_size=16),
    rows=st.lists(consent_changes, max_size=30).map(lambda changes: EncodedChanges.of(ConsentColumns.of(changes))),
    values=st.lists(values, max_size=10),
)


class TestRoundTrip:
    """What is sealed comes out."""

    @given(batch=batches, sliced=st.sampled_from([1, 7, 100, 2**20]))
    @settings(max_examples=often(300), deadline=None)
    def test_any_batch(self, batch: LogBatch, sliced: int) -> None:
        """Any batch comes back as it was, in however many parts it went."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(codec, "SLICE_MAX_BYTES", sliced)
            messages = SEALER.seal(batch)

        opened = OPENER.opened(messages)

        assert same(opened, batch)
        assert (opened.log_id, opened.term, opened.batch) == (batch.log_id, batch.term, batch.batch)
        assert (opened.first, opened.last, opened.created_ms) == (batch.first, batch.last, batch.created_ms)
        assert (opened.kind, opened.prev, opened.digest) == (batch.kind, batch.prev, batch.digest)

    def test_large(self) -> None:
        """A batch of many rows is several messages, each small enough for NATS, that name each other."""
        many = np.random.default_rng(1).integers(0, 256, (20_000, ROW_DTYPE.itemsize), np.uint8)
        rows = many.reshape(-1).view(ROW_DTYPE)
        rows["tail"] = 0

        messages = SEALER.seal(a_log_batch(rows=EncodedChanges(rows=rows)))
        headers = [header_of(message) for message in messages]

        assert len(messages) == 4
        assert all(len(message) <= 480 * 1024 + HEADER_BYTES + 16 + 64 < 2**20 for message in messages)
        assert [(header.part, header.parts) for header in headers] == [(1, 4), (2, 4), (3, 4), (4, 4)]
        assert [header.prev for header in headers[1:]] == [hash_of(message) for message in messages[:-1]]
        assert headers[0].prev == a_log_batch().prev
        assert OPENER.opened(messages).rows.rows.tobytes() == rows.tobytes()

    def test_tails_of_winners(self) -> None:
        """Texts that no row of the batch names do not travel: winners share those of all that were loaded."""
        all_rows = encoded(*(a_change(tag=bytes([n] * 16), source=f"HS_NEW_{n}") for n in range(50)))
        winners = all_rows.take(np.array([48, 3]))

        messages = SEALER.seal(a_log_batch(rows=winners))
        opened = OPENER.opened(messages)

        assert opened.rows.records() == winners.records()
        assert len(opened.rows.tails) == 3

    def test_rows_can_be_used(self) -> None:
        """Rows that were opened are as good as others: they can be joined, which writes to them."""
        opened = OPENER.opened(SEALER.seal(a_log_batch(rows=encoded(a_change(tag=bytes(16))))))

        assert opened.rows.rows.flags.writeable
        assert len(EncodedChanges.join([opened.rows, opened.rows])) == 2

    def test_same_batch_twice(self) -> None:
        """A batch that is sealed twice is two texts: no nonce is used again, in no part."""
        messages = parted() + parted()

        assert len({header_of(message).nonce for message in messages}) == len(messages) > 4

    def test_reserved(self) -> None:
        """A batch whose bytes would not fit is refused where it is made, and nothing is cut silently."""
        for wrong in ({"log_id": b"short"}, {"prev": b""}, {"digest": bytes(17)}, {"batch": -1}, {"term": 2**32}):
            with pytest.raises(ValueError, match=r"has [0-9]+ bytes|does not fit"):
                SEALER.seal(a_log_batch(**wrong))

    def test_too_large(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A commit that no replica would take is refused at the primary, which says what to do."""
        monkeypatch.setattr(codec, "PAYLOAD_MAX_BYTES", 200)

        with pytest.raises(SettingsError, match="--commit-rows: one commit is more than can be sent"):
            SEALER.seal(a_log_batch())
        monkeypatch.setattr(codec, "SLICE_MAX_BYTES", 1)
        with pytest.raises(SettingsError, match="--commit-rows"):
            SEALER.sealed_payload(a_log_batch(), bytes(2**16))


class TestGolden:
    """Bytes that replicas of other versions rely on."""

    @staticmethod
    def golden() -> bytes:
        """Read the recorded message."""
        return bytes.fromhex(GOLDEN.read_text())

    def test_read(self) -> None:
        """The recorded message says what it always said."""
        assert same(OPENER.opened([self.golden()]), a_log_batch())

    def test_written(self) -> None:
        """What is written today is the recorded message, if zstd compresses as it did."""
        golden = self.golden()
        clear = golden[:HEADER_BYTES]
        compressed = AESGCM(STREAM_SECRET).decrypt(header_of(golden).nonce, golden[HEADER_BYTES:-64], clear)
        sealer = BatchSealer(STREAM_KEY, SIGNING_KEY, nonces=lambda: header_of(golden).nonce)

        assert sealer.sealed_payload(a_log_batch(), compressed) == [golden]
        assert zstandard.ZstdDecompressor().decompress(compressed) == sealer._payload(a_log_batch())

    def test_by_the_words_of_the_document(self) -> None:
        """The recorded message is what FORMAT.md says, made and looked at without our code."""
        golden = self.golden()
        header = struct.unpack(">4sBBBB8s16sIQHHQQQ32s12s", golden[:116])
        key_id = hashlib.sha256(b"iyscheck key\x01" + STREAM_SECRET).digest()[:8]
        public = Ed25519PrivateKey.from_private_bytes(SIGNING_SECRET).public_key().public_bytes_raw()
        Ed25519PublicKey.from_public_bytes(public).verify(golden[-64:], golden[:-64])
        plain = AESGCM(STREAM_SECRET).decrypt(header[-1], golden[116:-64], golden[:116])
        payload = zstandard.ZstdDecompressor().decompress(plain)
        size = int.from_bytes(payload[:4])
        head = msgspec.msgpack.decode(payload[4 : 4 + size])
        batch = a_log_batch()
        rows = np.frombuffer(payload[4 + size :], np.uint8).reshape(81, 2)

        assert header == (
            *(b"IYSB", 1, 1, 0, 0, key_id, LOG_ID, 3, 17, 1, 1, 1_000, 1_042, 1_767_225_600_123, batch.prev),
            header[-1],
        )
        assert head == {
            "digest": batch.digest,
            "rows": 2,
            "tails": [b"", bytes.fromhex("0773686f72742d310848535fc59e554245")],
            "values": [list(value) for value in batch.values],
        }
        assert [bytes(rows[:77, 0]), bytes(rows[:77, 1])] == [
            key + record[:55] for key, record in zip(batch.rows.keys(), batch.rows.records(), strict=True)
        ]
        assert [bytes(rows[77:, 0]), bytes(rows[77:, 1])] == [bytes(4), b"\1\0\0\0"]

    @pytest.mark.parametrize("name", ["message", "payload"])
    def test_document(self, name: str) -> None:
        """The example in FORMAT.md is the recorded message, and what is in it."""
        shown = re.search(rf"```hex\n{name}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)

        assert shown is not None
        text = bytes.fromhex("".join(line.partition("  ")[0] for line in shown[1].splitlines()))
        assert text == (self.golden() if name == "message" else SEALER._payload(a_log_batch()))


class TestForged:
    """Nobody can change a message, or make one, but who holds the signing key."""

    def test_every_bit(self) -> None:
        """Each bit of each part matters: a batch with any of them flipped is refused."""
        messages = parted()
        assert len(messages) > 2
        assert same(OPENER.opened(messages), a_log_batch())

        for part, message in enumerate(messages):
            for at in range(len(message) * 8):
                flipped = bytearray(message)
                flipped[at // 8] ^= 1 << at % 8
                whole = [*messages[:part], bytes(flipped), *messages[part + 1 :]]
                expected = Rejection.MAGIC if at < 32 else Rejection.SIGNER
                assert why(OPENER.opened, whole) is expected

    def test_every_length(self) -> None:
        """A message that ends early, or has more behind it, is refused."""
        message = SEALER.seal(a_log_batch())[0]

        for size in range(len(message)):
            expected = Rejection.TRUNCATED if 0 < size < 196 else Rejection.SIGNER if size else Rejection.MAGIC
            assert why(OPENER.opened, [message[:size]]) is expected
        assert why(OPENER.opened, [message + b"\0"]) is Rejection.SIGNER

    def test_holder_of_the_stream_key(self) -> None:
        """A replica that was stolen has the stream key, and can forge nothing: other replicas know who signs."""
        forged = BatchSealer(STREAM_KEY, STRANGER).seal(a_log_batch(values=[]))

        assert why(OPENER.opened, forged) is Rejection.SIGNER
        assert why(OPENER.opened, [resigned(message, STRANGER) for message in parted()]) is Rejection.SIGNER
        assert why(OPENER.verified, forged[0]) is Rejection.SIGNER

    def test_nobody_believed(self) -> None:
        """Where no signer is named, nothing is believed."""
        nobody = BatchOpener(STREAM_KEY, Signers([]))

        assert why(nobody.opened, SEALER.seal(a_log_batch())) is Rejection.SIGNER

    def test_several_signers(self) -> None:
        """Each of the signers that a replica knows is believed: before a key changes both are named."""
        both = BatchOpener(STREAM_KEY, Signers([STRANGER.public, SIGNING_KEY.public]))

        for key in (SIGNING_KEY, STRANGER):
            assert same(both.opened(BatchSealer(STREAM_KEY, key).seal(a_log_batch())), a_log_batch())

    def test_other_stream_key(self) -> None:
        """What is sealed with another key is told from what is damaged, as long as it is signed."""
        other = BatchSealer(StreamKey(bytes(32)), SIGNING_KEY).seal(a_log_batch())[0]
        claimed = other[:8] + STREAM_KEY.key_id + other[16:]

        assert why(OPENER.opened, [other]) is Rejection.KEY
        assert why(OPENER.opened, [resigned(claimed)]) is Rejection.CIPHERTEXT

    def test_other_log(self) -> None:
        """A batch of another log is none of ours, though the same primary signed it."""
        message = SEALER.seal(a_log_batch(log_id=b"o" * 16))

        assert why(OPENER.opened, message) is Rejection.LOG
        assert BatchOpener(STREAM_KEY, Signers([SIGNING_KEY.public])).opened(message).log_id == b"o" * 16

    def test_version_is_of_a_store_format(self) -> None:
        """Who changes the store's format decides here whether what travels changes, too: then VERSION does."""
        assert (VERSION, layout.FORMAT_VERSION) == (1, 4)

    @pytest.mark.parametrize(
        ("at", "value"), [(4, VERSION + 1), (5, 4), (5, 99), (6, 1), (7, 1)], ids=["version", "4", "99", "flag", "0"]
    )
    def test_newer(self, at: int, value: int) -> None:
        """What a newer iyscheck makes is not guessed at: it is said that this replica has to be upgraded."""
        message = bytearray(SEALER.seal(a_log_batch())[0])
        message[at] = value

        with pytest.raises(MessageRejectedError, match=r"made by a newer iyscheck.*Upgrade this replica") as caught:
            OPENER.opened([resigned(bytes(message))])

        assert caught.value.why == "version"

    def test_parts(self) -> None:
        """All parts of one batch are needed, each once and in order, and none of another sealing of the same batch."""
        one, two, *rest = parted()
        other = parted()
        wrong: Sequence[Sequence[bytes]] = (
            [],
            [one],
            [two, one, *rest],
            [one, *rest],
            [one, two, *rest[:-1]],
            [one, two, *rest, rest[-1]],
            [one, one, *rest],
            [one, other[1], *rest],
            [other[0], two, *rest],
            [one, two, *other[2:]],
        )

        for messages in wrong:
            assert why(OPENER.opened, messages) is Rejection.PARTS
        assert same(OPENER.opened([one, two, *rest]), a_log_batch())

    @pytest.mark.parametrize(
        "fields", [{"term": 4}, {"batch": 18}, {"first": 1}, {"last": 9}, {"created_ms": 1}, {"kind": Kind.TERM}]
    )
    def test_parts_of_different_batches(self, fields: dict[str, object]) -> None:
        """Parts that differ in what is said of their batch are not one, even if they name each other."""
        *others, last = parted()
        header = header_of(last)
        clear = replace(header, **fields).pack()  # type: ignore[arg-type] # each test gives what fits
        compressed = STREAM_KEY.open(header.nonce, last[HEADER_BYTES:-64], last[:HEADER_BYTES])
        assert compressed is not None
        other = resigned(clear + STREAM_KEY.seal(header.nonce, compressed, clear) + bytes(64))

        assert why(OPENER.opened, [*others, other]) is Rejection.PARTS

    @given(message=st.binary(max_size=400) | st.binary(max_size=400).map((MAGIC + bytes([VERSION])).__add__))
    @example(message=b"")
    @example(message=MAGIC)
    @settings(max_examples=often(1000), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_bytes(self, message: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        """Any bytes are refused by our error, and none of them is decrypted."""
        monkeypatch.setattr(StreamKey, "open", _never)

        for work in (OPENER.verified, lambda text: OPENER.opened([text])):
            assert why(work, message) in {*(Rejection.MAGIC, Rejection.VERSION, Rejection.TRUNCATED, Rejection.SIGNER)}

    def test_nothing_is_decrypted_before(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of a batch with one part that nobody signed not one is decrypted."""
        messages = parted()
        monkeypatch.setattr(StreamKey, "open", _never)

        assert why(OPENER.opened, [*messages[:-1], resigned(messages[-1], STRANGER)]) is Rejection.SIGNER
        with pytest.raises(AssertionError, match="decrypted"):
            OPENER.opened(messages)


def _never(*_: object) -> bytes:
    raise AssertionError("it was decrypted")


def sealed(payload: bytes, *, compress: bool = True) -> list[bytes]:
    """Seal and sign what is no payload that we would make."""
    return SEALER.sealed_payload(a_log_batch(), zstandard.compress(payload) if compress else payload)


def payload_of(head: object, rows: bytes = b"") -> bytes:
    """Write a payload of any head."""
    text = msgspec.msgpack.encode(head)
    return len(text).to_bytes(4) + text + rows


HEAD: dict[str, object] = {"digest": bytes(16), "rows": 0, "tails": [b""], "values": []}
LARGE_FRAME = bytes.fromhex("28b52ffd e0 0000000001000000".replace(" ", "")) + bytes(3)
"""A frame of zstd that says it is 4 GiB, decompressed."""


class TestPayload:
    """What is in a message is looked at, even though only a primary can have sealed it."""

    @pytest.mark.parametrize(
        "head",
        [
            None,
            [],
            {},
            HEAD | {"digest": bytes(15)},
            HEAD | {"digest": "text"},
            HEAD | {"rows": -1},
            HEAD | {"rows": 1},
            HEAD | {"rows": 2**63},
            HEAD | {"rows": 0.0},
            HEAD | {"tails": []},
            HEAD | {"tails": [b"x"]},
            HEAD | {"tails": [b"", None]},
            HEAD | {"more": 1},
            HEAD | {"values": [[b"watermarks", b"key"]]},
            HEAD | {"values": [[b"watermarks", b"key", 5]]},
            HEAD | {"values": [[b"watermarks", b"", b"value"]]},
            HEAD | {"values": [[b"watermarks", b"k" * 512, b"value"]]},
            *(
                HEAD | {"values": [[database, layout.META_FEED + b"x", b"value"]]}
                for database in (
                    b"",
                    b"nothing",
                    layout.RECORDS,
                    layout.COUNTS,
                    layout.INDEX,
                    layout.OUTBOX,
                    layout.SUMS,
                )
            ),
            *(
                HEAD | {"values": [[layout.META, field, b"value"]]}
                for field in (layout.META_LOG, layout.META_SEQUENCE, layout.META_LOG_ID, layout.META_FORMAT, b"feed")
            ),
        ],
        ids=str,
    )
    def test_heads(self, head: object) -> None:
        """A head that no primary writes is refused: types, sizes, and whatever a log may not change."""
        assert why(OPENER.opened, sealed(payload_of(head))) is Rejection.PAYLOAD

    def test_least(self) -> None:
        """The head that those above differ from is fine."""
        assert len(OPENER.opened(sealed(payload_of(HEAD))).rows) == 0

    @pytest.mark.parametrize("size", [0, 1, 80, 82, 162])
    def test_rows(self, size: int) -> None:
        """There are as many rows as the head says."""
        payload = payload_of(HEAD | {"rows": 1}, bytes(size))

        assert why(OPENER.opened, sealed(payload)) is Rejection.PAYLOAD
        assert len(OPENER.opened(sealed(payload_of(HEAD | {"rows": 1}, bytes(81)))).rows) == 1

    def test_tail_of_a_row(self) -> None:
        """A row names a tail that is there."""
        payload = payload_of(HEAD | {"rows": 1}, bytes(77) + b"\1\0\0\0")

        assert why(OPENER.opened, sealed(payload)) is Rejection.PAYLOAD

    @pytest.mark.parametrize("size", [0, 1, 3])
    def test_no_head(self, size: int) -> None:
        """A payload without a whole head is refused."""
        assert why(OPENER.opened, sealed(bytes(size))) is Rejection.PAYLOAD
        good = payload_of(HEAD)
        for claimed in (len(good) - 5, len(good) - 3, 2**32 - 1):
            assert why(OPENER.opened, sealed(claimed.to_bytes(4) + good[4:])) is Rejection.PAYLOAD

    def test_decompressed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of a frame that is too large, does not say its size, or has more behind it, nothing is decompressed."""
        payload = payload_of(HEAD)
        unsaid = zstandard.ZstdCompressor(write_content_size=False).compress(payload)
        for frame in (LARGE_FRAME, unsaid, zstandard.compress(payload) + b"\0", b"no zstd", b"\x28"):
            assert why(OPENER.opened, sealed(frame, compress=False)) is Rejection.PAYLOAD

        monkeypatch.setattr(codec, "PAYLOAD_MAX_BYTES", len(payload) - 1)
        assert why(OPENER.opened, sealed(payload)) is Rejection.PAYLOAD

    @given(data=st.data())
    @settings(max_examples=often(600), deadline=None)
    def test_any_payload(self, data: st.DataObject) -> None:
        """Whatever a primary seals, a replica reads it or refuses it, and fails at nothing else."""
        good = SEALER._payload(a_log_batch())
        place = data.draw(st.integers(0, len(good)))
        spoilt = good[:place] + data.draw(st.binary(max_size=5)) + good[place + data.draw(st.integers(0, 5)) :]
        payload = data.draw(st.sampled_from([spoilt]) | st.binary(max_size=100))

        for compress in (True, False):
            try:
                OPENER.opened(sealed(payload or b"\0", compress=compress))
            except MessageRejectedError as error:
                assert error.why == Rejection.PAYLOAD  # noqa: PT017 - both ends are fine, another exception is not


class TestSecrecy:
    """Who carries messages learns nothing of whom they are about."""

    def test_no_tag(self) -> None:
        """A copy of everything that NATS ever saw has no tag in it, and no value that lies in the store."""
        tags = [hashlib.sha256(bytes([number])).digest()[:16] for number in range(40)]
        seen = b"".join(
            message
            for tag in tags
            for message in SEALER.seal(a_log_batch(rows=encoded(a_change(tag=tag)), values=[(layout.ACCESS, tag, tag)]))
        )

        assert not any(tag in seen or tag[:6] in seen for tag in tags)
        assert layout.ACCESS not in seen

    def test_planes(self) -> None:
        """Nor are tags there in the order in which a batch has them, byte by byte."""
        tags = [hashlib.sha256(bytes([number])).digest()[:16] for number in range(40)]
        seen = SEALER.seal(a_log_batch(rows=encoded(*(a_change(tag=tag) for tag in tags))))[0]

        assert not any(bytes(column) in seen for column in zip(*tags, strict=True))

    def test_errors(self) -> None:
        """No error shows anything of a message."""
        message = SEALER.seal(a_log_batch())[0]

        for wrong in (message[:150], b"x" + message, resigned(message, STRANGER), message[:-1]):
            with pytest.raises(MessageRejectedError) as caught:
                OPENER.opened([wrong])
            assert not re.search("[0-9a-f]{8}|\\\\x", str(caught.value))


class TestHeader:
    """What everybody sees of a message."""

    def test_size(self) -> None:
        """It has 116 bytes, and tells which batch it is before anything is believed."""
        message = SEALER.seal(a_log_batch())[0]
        header = header_of(message)

        assert HEADER_BYTES == 116
        assert header.pack() == message[:HEADER_BYTES]
        assert header == MessageHeader(
            kind=1,
            stream_key_id=STREAM_KEY.key_id,
            log_id=LOG_ID,
            term=3,
            batch=17,
            part=1,
            parts=1,
            first=1_000,
            last=1_042,
            created_ms=1_767_225_600_123,
            prev=bytes(range(32, 64)),
            nonce=header.nonce,
        )
        assert OPENER.verified(message) == header


class TestBytes:
    """Parts of copies of the store are sealed for their place."""

    @given(plain=st.binary(max_size=300), context=st.binary(max_size=40), kind=st.integers(0, 255))
    @settings(max_examples=often(100), deadline=None)
    def test_round_trip(self, plain: bytes, context: bytes, kind: int) -> None:
        """What is sealed comes out, with the same kind and context."""
        assert open_bytes(STREAM_KEY, kind, context, seal_bytes(STREAM_KEY, kind, context, plain)) == plain

    def test_every_bit(self) -> None:
        """Each bit matters."""
        part = seal_bytes(STREAM_KEY, 1, b"which", b"what")
        assert len(part) == PART_HEADER_BYTES + 4 + 16

        for at in range(len(part) * 8):
            flipped = bytearray(part)
            flipped[at // 8] ^= 1 << at % 8
            place = at // 8
            expected = {
                4: Rejection.VERSION,
                **dict.fromkeys(range(4), Rejection.MAGIC),
                **dict.fromkeys(range(8, 16), Rejection.KEY),
            }.get(place, Rejection.CIPHERTEXT)
            assert why(open_bytes, STREAM_KEY, 1, b"which", bytes(flipped)) is expected

    def test_place(self) -> None:
        """A part opens at its place only, and only with its key."""
        part = seal_bytes(STREAM_KEY, 1, b"which", b"what")

        assert why(open_bytes, STREAM_KEY, 2, b"which", part) is Rejection.CIPHERTEXT
        assert why(open_bytes, STREAM_KEY, 1, b"whic", part) is Rejection.CIPHERTEXT
        assert why(open_bytes, StreamKey(bytes(32)), 1, b"which", part) is Rejection.KEY
        assert why(OPENER.verified, part * 9) is Rejection.MAGIC

    def test_every_length(self) -> None:
        """A part that is cut is refused, and so is what is none."""
        part = seal_bytes(STREAM_KEY, 1, b"which", b"what")

        for size in range(len(part)):
            assert why(open_bytes, STREAM_KEY, 1, b"which", part[:size]) in {
                *(Rejection.MAGIC, Rejection.TRUNCATED, Rejection.CIPHERTEXT)
            }

    @given(text=st.binary(max_size=100) | st.binary(max_size=100).map(b"IYSS\x01".__add__))
    @settings(max_examples=often(300), deadline=None)
    def test_any_bytes(self, text: bytes) -> None:
        """Any bytes are refused by our error."""
        assert why(open_bytes, STREAM_KEY, 1, b"", text) in Rejection
