"""Messages of the log: replicas read exactly what was sealed, and believe nothing else."""

from iyscheck.change import ConsentColumns
from iyscheck.keys import Signers, SigningKey, StreamKey
from iyscheck.store import layout
from iyscheck.store.encoded import EncodedChanges
from iyscheck.store.log_batch import Kind, LogBatch
from loader.replication.codec import BatchOpener, BatchSealer, hash_of, header_of, open_bytes, seal_bytes
from tests.builders import a_change

STREAM_KEY, SIGNING_KEY = StreamKey(bytes(range(64, 96))), SigningKey(bytes(range(96, 128)))
SIGNERS = Signers([SIGNING_KEY.public])


def test_a_batch_comes_back() -> None:
    """What is sealed is opened with the keys of it."""
    changes = EncodedChanges.of(ConsentColumns.of([a_change(tag=bytes(16)), a_change(tag=b"\1" * 16, source="KEY")]))
    batch = LogBatch(
        kind=Kind.CHANGES,
        log_id=b"l" * 16,
        term=1,
        batch=2,
        first=3,
        last=5,
        created_ms=6,
        prev=b"p" * 32,
        digest=b"d" * 16,
        rows=changes,
        values=[(layout.WATERMARKS, bytes(4), None)],
    )

    messages = BatchSealer(STREAM_KEY, SIGNING_KEY).seal(batch)
    opened = BatchOpener(STREAM_KEY, SIGNERS, log_id=b"l" * 16).opened(messages)

    assert opened.rows.records() == changes.records()
    assert opened.values == batch.values
    assert header_of(messages[0]).batch == 2
    assert len(hash_of(messages[0])) == 32


def test_bytes_come_back() -> None:
    """Bytes of a copy are opened with their key and context."""
    assert open_bytes(STREAM_KEY, 1, b"which", seal_bytes(STREAM_KEY, 1, b"which", b"what")) == b"what"
