"""Putting a batch of consent changes into the records: sort, supersede, write, count.

Columns all the way: only the ties that registration time, status and consent time leave open are decided one by
one, by `change.supersedes`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

import lmdb
import numpy as np
import numpy.typing as npt

from iyscheck.change import STATUS_PRECEDENCE, ConsentColumns
from iyscheck.store import layout

_COUNTED: Final = ("brand", "channel", "recipient_type", "status")


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a batch did to the records; `counts` maps (brand, channel, type, status) to the difference."""

    applied: int
    superseded: int
    counts: dict[tuple[int, int, int, int], int]


def apply(txn: lmdb.Transaction, database: lmdb._Database, columns: ConsentColumns) -> Written:
    """Write those of N changes that win, in key order. Equal and older ones change nothing."""
    if not len(columns):
        return Written(applied=0, superseded=0, counts={})
    winners = newest(columns)
    packed = layout.encode_keys(winners).tobytes()
    keys = [packed[at : at + layout.KEY_BYTES] for at in range(0, len(packed), layout.KEY_BYTES)]
    cursor = txn.cursor(database)
    stored = [cast("bytes | None", txn.get(key, db=database)) for key in keys]
    values = layout.encode_records(keys, winners)
    wins = _wins(keys, values, stored, winners)
    puts = [(keys[at], values[at]) for at in np.flatnonzero(wins)]
    cursor.putmulti(puts, overwrite=True)
    cursor.close()
    return Written(
        applied=len(puts),
        superseded=len(columns) - len(puts),
        counts=_differences(stored, winners, wins),
    )


def newest(columns: ConsentColumns) -> ConsentColumns:
    """Keep of each consent only its greatest change, sorted by key."""
    keys = layout.encode_keys(columns)
    low = np.ascontiguousarray(columns.tag[:, 8:]).view(">u8").ravel()
    high = np.ascontiguousarray(columns.tag[:, :8]).view(">u8").ravel()
    precedence = STATUS_PRECEDENCE[columns.status]
    # Sequence last and descending: of two equal changes the earlier row is the one that is kept.
    order = np.lexsort(
        (
            -columns.sequence,
            columns.transaction_id.astype("U"),
            columns.source.astype("U"),
            columns.consented,
            precedence,
            columns.registered,
            low,
            high,
            columns.recipient_type,
            columns.channel,
            columns.brand,
        )
    )
    ordered = keys[order]
    last = np.ones(len(order), np.bool_)
    last[:-1] = ordered[:-1] != ordered[1:]
    return take(columns, order[last])


def take(columns: ConsentColumns, rows: npt.NDArray[np.intp]) -> ConsentColumns:
    """Return the named rows of the columns."""
    return ConsentColumns(**{name: getattr(columns, name)[rows] for name in ConsentColumns.__slots__})


def _wins(
    keys: Sequence[bytes], values: Sequence[bytes], stored: Sequence[bytes | None], new: ConsentColumns
) -> npt.NDArray[np.bool_]:
    """Say which of the changes supersede what is stored under their key."""
    wins = np.ones(len(keys), np.bool_)
    present = np.array([at for at, value in enumerate(stored) if value is not None], np.intp)
    if not present.size:
        return wins
    old = layout.decode_columns([keys[at] for at in present], [stored[at] or b"" for at in present])
    undecided = np.ones(present.size, np.bool_)
    for ours, theirs in (
        (new.registered[present], old["registered"].astype(np.int64)),
        (STATUS_PRECEDENCE[new.status[present]], STATUS_PRECEDENCE[old["status"]]),
        (new.consented[present], old["consented"].astype(np.int64)),
    ):
        wins[present[undecided & (ours < theirs)]] = False
        undecided &= ours == theirs
    for at in present[undecided]:
        change = layout.decode_record(keys[at], values[at])
        wins[at] = change.precedence > layout.decode_record(keys[at], stored[at] or b"").precedence
    return wins


def _differences(
    stored: Sequence[bytes | None], new: ConsentColumns, wins: npt.NDArray[np.bool_]
) -> dict[tuple[int, int, int, int], int]:
    """Count what the writes add to and take from each brand, channel, type and status."""
    written = np.flatnonzero(wins)
    old_status = np.array([layout.status_of(stored[at]) for at in written.tolist()], np.uint8)
    groups = np.empty(written.size * 2, [(name, "i8") for name in _COUNTED])
    for half, status in ((slice(0, written.size), new.status[written]), (slice(written.size, None), old_status)):
        for name in _COUNTED[:3]:
            groups[name][half] = getattr(new, name)[written]
        groups["status"][half] = status
    signs = np.repeat([1, -1], written.size)
    unique, inverse = np.unique(groups, return_inverse=True)
    sums = np.zeros(unique.size, np.int64)
    np.add.at(sums, inverse, signs)
    return {
        (int(brand), int(channel), int(kind), int(status)): int(total)
        for (brand, channel, kind, status), total in zip(unique.tolist(), sums, strict=True)
        if status and total
    }
