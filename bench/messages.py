"""What sealing and opening batches of the log costs: python -m bench.messages.

Rows have what real ones have: random tags and transaction ids, three sources, times that rise, row numbers in sequence.
Each figure is the least of several rounds, on one core.
"""

import random
import timeit
from typing import Final

import typer

from iyscheck.change import ConsentChange, ConsentColumns
from iyscheck.consent import Channel, RecipientType, Status
from iyscheck.keys import KEY_BYTES, Signers, SigningKey, StreamKey
from iyscheck.store.encoded import EncodedChanges
from iyscheck.store.log_batch import Kind, LogBatch
from iyscheck.times import local_seconds
from loader.replication.codec import BatchOpener, BatchSealer

SIZES: Final = (0, 1_000, 5_000, 8_000, 50_000)
_REGISTERED: Final = local_seconds("2026-01-01 12:00:00")
_SOURCES: Final = ("HS_WEB", "HS_MESAJ", "HS_CAGRI_MERKEZI")
_ROUNDS: Final = 7
_ROWS_A_ROUND: Final = 200_000


def batch_of(rows: int) -> LogBatch:
    """Make a batch of that many rows, the same each time."""
    dice = random.Random(rows)
    changes = [
        ConsentChange(
            brand=600_001 + number % 3,
            channel=Channel.MESAJ,
            recipient_type=RecipientType.BIREYSEL,
            tag=dice.randbytes(16),
            status=dice.choice([Status.ONAY, Status.RET]),
            registered=_REGISTERED + number // 5,
            consented=_REGISTERED + number // 5 - dice.randrange(1_000),
            source=dice.choice(_SOURCES),
            transaction_id=dice.randbytes(32).hex(),
            sequence=number,
        )
        for number in range(rows)
    ]
    return LogBatch(
        kind=Kind.CHANGES,
        log_id=bytes(16),
        term=1,
        batch=1,
        first=0,
        last=rows,
        created_ms=0,
        prev=bytes(32),
        digest=bytes(16),
        rows=EncodedChanges.of(ConsentColumns.of(changes)),
        values=[],
    )


def main() -> None:
    """Measure, and print a table."""
    stream_key, signing_key = StreamKey(bytes(KEY_BYTES)), SigningKey(bytes(KEY_BYTES))
    sealer, opener = BatchSealer(stream_key, signing_key), BatchOpener(stream_key, Signers([signing_key.public]))
    print("| rows | messages | bytes | bytes a row | seal, ms | open, ms |\n|---|---|---|---|---|---|")
    for rows in SIZES:
        batch = batch_of(rows)
        messages = sealer.seal(batch)
        if opener.opened(messages).rows.records() != batch.rows.records():
            raise SystemExit("what was opened is not what was sealed")
        times = max(_ROWS_A_ROUND // max(rows, 100), 1)
        seal, opened = (
            min(timeit.repeat(work, number=times, repeat=_ROUNDS)) / times * 1_000
            for work in (lambda b=batch: sealer.seal(b), lambda m=messages: opener.opened(m))
        )
        size = sum(map(len, messages))
        print(f"| {rows} | {len(messages)} | {size} | {size / max(rows, 1):.1f} | {seal:.2f} | {opened:.2f} |")


if __name__ == "__main__":
    typer.run(main)
