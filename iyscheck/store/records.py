"""Putting a batch of consent changes into the records: sort, supersede, write, count.

Columns all the way: only ties of everything but texts that no column can say are decided one by one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import compress
from typing import Final, cast

import lmdb
import numpy as np
import numpy.typing as npt

from iyscheck.change import KNOWN_SOURCES, STATUS_PRECEDENCE, TEXT_TRANSACTION, ConsentColumns
from iyscheck.consent import Status
from iyscheck.kernel import Kernel
from iyscheck.store import layout
from iyscheck.store.encoded import EncodedChanges, Facts
from iyscheck.store.journal import Journal

_SOURCE_RANKS: Final = np.array([0, *(sorted(KNOWN_SOURCES).index(name) + 1 for name in KNOWN_SOURCES)], np.uint8)
"""The order of known sources as texts, indexed by their numbers; all of them are ASCII."""
_STATUSES: Final = (Status.ONAY, Status.RET, Status.UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a batch did to the records.

    `changes` are those that were really written, sorted by key, one for each; `added` bool (N,) says of which there
    was no record before. `counts` maps (brand, channel, type, status) to the difference.
    """

    applied: int
    superseded: int
    counts: dict[tuple[int, int, int, int], int]
    changes: ConsentColumns
    added: npt.NDArray[np.bool_]


NOTHING: Final = Written(applied=0, superseded=0, counts={}, changes=ConsentColumns.of(()), added=np.zeros(0, np.bool_))
"""What a batch without records did."""


def apply(
    txn: lmdb.Transaction,
    database: lmdb._Database,
    columns: ConsentColumns,
    kernel: Kernel = Kernel.NUMPY,
    journal: Journal | None = None,
) -> Written:
    """Write those of N changes that win, in key order, also into the journal. Equal and older ones change nothing."""
    winners = newest(columns)
    compared = _compared(txn, database, layout.column_of_keys(winners), winners)
    wins = compared.wins
    changes = winners if wins.all() else winners.take(wins)
    encoded = EncodedChanges.of(changes, kernel)
    keys, encoded_records = encoded.keys(), encoded.records()
    _put(txn, database, keys, encoded_records)
    if journal is not None and journal.kept:
        journal.wrote(encoded, keys, encoded_records, list(compress(compared.stored, wins.tolist())))
    return _written(changes, compared.old_status[wins], superseded=len(columns) - len(changes))


def follow(txn: lmdb.Transaction, database: lmdb._Database, changes: EncodedChanges, journal: Journal) -> Written:
    """Write changes sorted by key that won in another store, also into the journal.

    Those that do not win here are written, too: what then differs is found by the digest.
    """
    columns = changes.columns().take(np.arange(len(changes)))  # each column by itself in memory
    keys, encoded_records = changes.keys(), changes.records()
    compared = _compared(txn, database, keys, columns)
    _put(txn, database, keys, encoded_records)
    journal.wrote(changes, keys, encoded_records, compared.stored)
    return _written(columns, compared.old_status, superseded=0)


def _written(changes: ConsentColumns, old_status: npt.NDArray[np.uint8], *, superseded: int) -> Written:
    return Written(
        applied=len(changes),
        superseded=superseded,
        counts=_differences(changes, old_status),
        changes=changes,
        added=old_status == Status.NONE,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """Which of N changes win over what is `stored` under their keys, and its status; NONE where nothing is."""

    wins: npt.NDArray[np.bool_]
    old_status: npt.NDArray[np.uint8]
    stored: list[bytes | None]


def _compared(txn: lmdb.Transaction, database: lmdb._Database, keys: list[bytes], new: ConsentColumns) -> _Compared:
    """Compare N changes sorted by key with the records."""
    wins = np.ones(len(new), np.bool_)
    old_status = np.zeros(len(new), np.uint8)
    if not txn.stat(database)["entries"]:
        return _Compared(wins=wins, old_status=old_status, stored=[None] * len(new))
    get = txn.get
    stored = cast("list[bytes | None]", [get(key, db=database) for key in keys])
    present = np.array([at for at, value in enumerate(stored) if value is not None], np.intp)
    if present.size:
        old_keys = [keys[at] for at in present.tolist()]
        old_values = [value for value in stored if value is not None]
        old = layout.decode_columns(old_keys, old_values)
        old_status[present] = old["status"]
        wins[present] = _wins(new if present.size == len(new) else new.take(present), old, old_keys, old_values)
    return _Compared(wins=wins, old_status=old_status, stored=stored)


def append(
    txn: lmdb.Transaction, database: lmdb._Database, changes: EncodedChanges, facts: Facts, journal: Journal
) -> dict[tuple[int, int, int, int], int]:
    """Write changes whose keys rise and lie beyond all stored ones; return their counts, as Written has them.

    They are too many for the log: the journal has their sums. Raises ValueError where they do not rise.
    """
    keys, encoded_records = changes.keys(), changes.records()
    if _put(txn, database, keys, encoded_records, only_beyond=True) != len(changes):
        raise ValueError("the keys of a fill must rise")
    if journal.kept:
        journal.wrote(changes, keys, encoded_records, None, told=False)
    return _differences(facts, np.zeros(len(changes), np.uint8))


def _put(
    txn: lmdb.Transaction,
    database: lmdb._Database,
    keys: list[bytes],
    encoded: list[bytes],
    *,
    only_beyond: bool = False,
) -> int:
    """Write records under keys that rise; return how many were written."""
    with txn.cursor(database) as cursor:
        beyond = not cursor.last() or bool(keys and cast("bytes", cursor.key()) < keys[0])
        if only_beyond and not beyond:
            return 0
        _, written = cursor.putmulti(zip(keys, encoded, strict=True), append=beyond)
        return int(written)


def newest(columns: ConsentColumns) -> ConsentColumns:
    """Keep of each consent only its greatest change, sorted by key."""
    tags = np.ascontiguousarray(columns.tag).view(">u8")[:, 0].astype(np.uint64)
    return columns.take(_order(_prefixes(columns), tags, columns.take))


def newest_encoded(changes: EncodedChanges) -> EncodedChanges:
    """Keep of each consent only its greatest change, sorted by key."""
    return changes.take(_order(changes.prefixes(), changes.tag_words(), lambda rows: changes.take(rows).columns()))


def _order(
    prefixes: npt.NDArray[np.int64],
    tags: npt.NDArray[np.uint64],
    taken: Callable[[npt.NDArray[np.intp]], ConsentColumns],
) -> npt.NDArray[np.intp]:
    """Return which of N changes stay, in key order.

    `prefixes` and the upper halves of their tags decide nearly always; `taken` returns those that need a closer look.
    """
    words = _words(prefixes, tags)
    order = np.argsort(words)
    ordered = words[order]
    same = ordered[1:] == ordered[:-1]
    if not same.any():
        return order
    # Only these need the whole key and the whole precedence; sorting everybody by them would cost more than the rest.
    repeated = np.zeros(len(order), np.bool_)
    repeated[1:] |= same
    repeated[:-1] |= same
    again = taken(order[repeated])
    by_precedence = np.lexsort((*_precedence(again), *_tag_words(again), ordered[repeated]))
    order[repeated] = order[repeated][by_precedence]
    ordered_keys = layout.encode_keys(again)[by_precedence]
    stays = np.ones(len(order), np.bool_)
    stays[np.flatnonzero(repeated)[:-1]] = ordered_keys[1:] != ordered_keys[:-1]
    return order[stays]


def _words(prefixes: npt.NDArray[np.int64], tags: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return the beginning of each key as one number in key order: brand, channel and type by rank, then the tag."""
    known = np.unique(prefixes)
    bits = np.uint64(max(len(known) - 1, 0).bit_length())
    if not bits:
        return tags
    return np.searchsorted(known, prefixes).astype(np.uint64) << (np.uint64(64) - bits) | tags >> bits


def _tag_words(columns: ConsentColumns) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Return the tags as numbers, low and high half: their order is the order of the bytes."""
    words = np.ascontiguousarray(columns.tag).view(">u8").astype(np.uint64)
    return words[:, 1], words[:, 0]


def _prefixes(columns: ConsentColumns | Facts) -> npt.NDArray[np.int64]:
    """Return brand, channel and recipient type as one number in key order."""
    return columns.brand.astype(np.int64) << 16 | columns.channel.astype(np.int64) << 8 | columns.recipient_type


def _precedence(columns: ConsentColumns) -> tuple[npt.NDArray[np.generic], ...]:
    """Return what decides between changes of one consent, the least first, as lexsort wants it."""
    return (
        -columns.sequence,  # of two equal changes the earlier row is kept, as if it had come alone
        *_evidence_precedence(columns),
        columns.consented,
        STATUS_PRECEDENCE[columns.status],
        columns.registered,
    )


def _evidence_precedence(columns: ConsentColumns) -> tuple[npt.NDArray[np.generic], ...]:
    """Return transaction id and source as numbers in the order of their texts, the least first."""
    if columns.source.all() and (columns.transaction_form != TEXT_TRANSACTION).all():
        words = np.ascontiguousarray(columns.transaction).view(">u8").astype(np.uint64)
        # Hexadecimal digits are in the order of their values, and no id (form 0) comes before any.
        return (*words.T[::-1], columns.transaction_form, _SOURCE_RANKS[columns.source])
    evidence = [columns.evidence(row) for row in range(len(columns))]
    return _ranks([transaction_id for _, transaction_id in evidence]), _ranks([source for source, _ in evidence])


def _ranks(texts: list[str]) -> npt.NDArray[np.int64]:
    """Number texts in the order of their UTF-8, which is that of their code points."""
    ranks = {text: rank for rank, text in enumerate(sorted(set(texts)))}
    return np.array([ranks[text] for text in texts], np.int64)


def _wins(
    new: ConsentColumns, old: npt.NDArray[np.void], keys: list[bytes], values: list[bytes]
) -> npt.NDArray[np.bool_]:
    """Say which of N changes supersede what is stored under their keys, `old` being its fixed parts."""
    wins = np.zeros(len(new), np.bool_)
    undecided = np.ones(len(new), np.bool_)
    for ours, theirs in (
        (new.registered, old["registered"].astype(np.int64)),
        (STATUS_PRECEDENCE[new.status], STATUS_PRECEDENCE[old["status"]]),
        (new.consented, old["consented"].astype(np.int64)),
    ):
        wins |= undecided & (ours > theirs)
        undecided &= ours == theirs
    if not undecided.any():
        return wins
    # A replay ties everywhere: what is equal in columns that say everything needs no second look.
    equal = (new.source == old["source"]) & (new.source > 0) & (new.transaction_form == old["transaction_form"])
    equal &= (new.transaction_form != TEXT_TRANSACTION) & (new.transaction == old["transaction"]).all(axis=1)
    for at in np.flatnonzero(undecided & ~equal).tolist():
        wins[at] = new.change(at).precedence > layout.decode_record(keys[at], values[at]).precedence
    return wins


def _differences(
    changes: ConsentColumns | Facts, old_status: npt.NDArray[np.uint8]
) -> dict[tuple[int, int, int, int], int]:
    """Count what changes sorted by key add to and take from each brand, channel, type and status."""
    prefixes = _prefixes(changes)
    starts = np.flatnonzero(np.append(True, prefixes[1:] != prefixes[:-1])[: len(prefixes)])
    if not starts.size:
        return {}
    differences: dict[tuple[int, int, int, int], int] = {}
    for status in _STATUSES:
        gained = (changes.status == status).astype(np.int64) - (old_status == status)
        for prefix, total in zip(prefixes[starts].tolist(), np.add.reduceat(gained, starts).tolist(), strict=True):
            if total:
                differences[prefix >> 16, prefix >> 8 & 0xFF, prefix & 0xFF, int(status)] = total
    return differences
