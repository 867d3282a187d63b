"""Putting a batch of consent changes into the records: sort, supersede, write, count.

Columns all the way: only the ties that registration time, status and consent time leave open are decided one by
one, by `change.supersedes`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import lmdb
import numpy as np
import numpy.typing as npt

from iyscheck.change import STATUS_PRECEDENCE, ConsentColumns
from iyscheck.store import layout


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
    order = np.lexsort((*_tag_words(columns), _prefixes(columns)))
    ordered = layout.encode_keys(columns)[order]
    starts = np.ones(len(order), np.bool_)
    starts[1:] = ordered[1:] != ordered[:-1]
    group = np.cumsum(starts, dtype=np.intp)
    repeated = np.bincount(group)[group] > 1
    if repeated.any():
        # Only these need the whole precedence; sorting everybody's texts would cost more than the rest together.
        at = order[repeated]
        order[repeated] = at[_by_precedence(take(columns, at), group[repeated])]
    return take(columns, order[np.append(starts[1:], True)])


def _tag_words(columns: ConsentColumns) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Return the tags as numbers, low and high half: their order is the order of the bytes."""
    words = np.ascontiguousarray(columns.tag).view(">u8").astype(np.uint64)
    return words[:, 1], words[:, 0]


def _prefixes(columns: ConsentColumns) -> npt.NDArray[np.int64]:
    """Return brand, channel and recipient type as one number in key order."""
    return columns.brand.astype(np.int64) << 16 | columns.channel.astype(np.int64) << 8 | columns.recipient_type


def _by_precedence(columns: ConsentColumns, group: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Order the changes of each group so that the one that stays is the last of its group."""
    return np.lexsort(
        (
            -columns.sequence,  # of two equal changes the earlier row is kept, as if it had come alone
            [text.encode() for text in columns.transaction_id],
            [text.encode() for text in columns.source],
            columns.consented,
            STATUS_PRECEDENCE[columns.status],
            columns.registered,
            group,
        )
    )


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
    prefixes = np.tile(_prefixes(new)[written], 2) << 8
    groups, inverse = np.unique(prefixes | np.concatenate((new.status[written], old_status)), return_inverse=True)
    sums = np.bincount(inverse, weights=np.repeat([1, -1], written.size), minlength=groups.size)
    return {
        (group >> 24, group >> 16 & 0xFF, group >> 8 & 0xFF, group & 0xFF): int(total)
        for group, total in zip(groups.tolist(), sums.tolist(), strict=True)
        if group & 0xFF and total
    }
