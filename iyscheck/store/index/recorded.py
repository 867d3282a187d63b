"""What the records say, as entries: a shard's consents are, in each context, one run of neighbouring record keys."""

from collections.abc import Iterator, Sequence
from itertools import islice, takewhile
from typing import Final, cast

import lmdb
import numpy as np
import numpy.typing as npt

from iyscheck.change import TAG_BYTES, ConsentColumns
from iyscheck.consent import states
from iyscheck.store import layout
from iyscheck.store.encoded import Facts
from iyscheck.store.environment import Databases, read
from iyscheck.store.index import pages
from iyscheck.store.index.entries import Entries, context_runs, entries_of, joined, states_of_records

_PREFIX_BYTES: Final = layout.KEY_BYTES - TAG_BYTES
_PLACES: Final = 2**64


class Recorded:
    """Reads entries in a write transaction, whose records have all changes already."""

    def __init__(self, txn: lmdb.Transaction, databases: Databases) -> None:
        self._txn = txn
        self._databases = databases

    def count(self) -> int:
        """Count the records."""
        return int(self._txn.stat(self._databases[layout.RECORDS])["entries"])

    def entries(self, changes: ConsentColumns | Facts) -> Entries:
        """Turn N changes that are written, sorted by key, into entries."""
        has_list = np.zeros(len(changes), np.bool_)
        runs, lengths = context_runs(changes)
        beyond = 0
        for context, length in zip(runs, lengths.tolist(), strict=True):
            first, beyond = beyond, beyond + length
            has_list[first:beyond] = self._have_lists(context, changes.tag[first:beyond])
        return entries_of(
            changes, states(changes.status, changes.consented, changes.registered, changes.by_citizen, has_list)
        )

    def listed_at(self, keys: Sequence[bytes]) -> Iterator[Entries]:
        """Read the consents at keys that have a list of retailers as entries, those that there are."""
        for key in keys:
            value = read(self._txn, key, self._databases[layout.RECORDS])
            if value is not None:
                brand, channel, recipient_type, tag = layout.decode_key(key)
                salt, print_salt = pages.salts(brand, channel, recipient_type)
                tags = np.frombuffer(tag, np.uint8).reshape(1, TAG_BYTES)
                state = states_of_records([key], [value], np.ones(1, np.bool_))
                yield Entries(
                    pages.places(tags, np.uint64(salt)), pages.fingerprints(tags, np.uint64(print_salt)) | state
                )

    def in_shards(self, first: int, end: int, shards: int) -> Entries:
        """Read the consents whose places are in a run of shards, in the order of their places."""
        found = joined([self.in_context(context, first, end, shards) for context in self.contexts()])
        order = np.argsort(found.places, kind="stable")
        return Entries(found.places[order], found.words[order])

    def contexts(self) -> Iterator[bytes]:
        """Walk the contexts that have records, as the beginnings of their keys."""
        with self._txn.cursor(self._databases[layout.RECORDS]) as cursor:
            found = cursor.first()
            while found:
                prefix = bytes(cursor.key())[:_PREFIX_BYTES]
                yield prefix
                found = cursor.set_range(prefix + b"\xff" * (TAG_BYTES + 1))

    def in_context(self, prefix: bytes, first: int, end: int, shards: int) -> Entries:
        """Read the consents of one context whose places are in a run of shards."""
        brand, channel, recipient_type, _ = layout.decode_key(prefix + bytes(TAG_BYTES))
        salt, print_salt = pages.salts(brand, channel, recipient_type)
        keys: list[bytes] = []
        values: list[bytes] = []
        listed: set[bytes] = set()
        for low, high in _runs(pages.first_place(first, shards), pages.first_place(end, shards), salt):
            for key, value in self._between(layout.RECORDS, prefix, low, high):
                keys.append(key)
                values.append(value)
            listed.update(key for key, _ in self._between(layout.ACCESS, prefix, low, high))
        tags = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, layout.KEY_BYTES)[:, _PREFIX_BYTES:]
        has_list = np.array([key in listed for key in keys], np.bool_) if listed else np.zeros(len(keys), np.bool_)
        return Entries(
            pages.places(tags, np.uint64(salt)),
            pages.fingerprints(tags, np.uint64(print_salt)) | states_of_records(keys, values, has_list),
        )

    def _have_lists(self, context: tuple[int, int, int], tags: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        """Say which consents of one context, whose tags rise, have a list of retailers."""
        database = self._databases[layout.ACCESS]
        first, last = (layout.encode_key(*context, tags[at].tobytes()) for at in (0, -1))
        # Where consents lie close together it is quicker to walk the lists between them than to look for each.
        with self._txn.cursor(database) as cursor:
            if not cursor.set_range(first):
                return np.zeros(len(tags), np.bool_)
            walked = takewhile(lambda key: key <= last, cast("Iterator[bytes]", cursor.iternext(values=False)))
            listed = list(islice(walked, len(tags) + 1))
        if len(listed) <= len(tags):
            return _among(tags, np.frombuffer(b"".join(listed), np.uint8).reshape(-1, layout.KEY_BYTES)[:, -TAG_BYTES:])
        get = self._txn.get
        return np.array([get(key, db=database) is not None for key in layout.column_keys(*context, tags)], np.bool_)

    def _between(self, database: bytes, prefix: bytes, low: int, high: int) -> Iterator[tuple[bytes, bytes]]:
        """Walk what a context has from tag half `low` to before `high`."""
        beyond = prefix + (high.to_bytes(8, "big") if high < _PLACES else b"\xff" * (TAG_BYTES + 1))
        with self._txn.cursor(self._databases[database]) as cursor:
            if not cursor.set_range(prefix + low.to_bytes(8, "big")):
                return
            for key, value in cast("Iterator[tuple[bytes, bytes]]", cursor.iternext()):
                if key >= beyond:
                    return
                yield key, value


def _runs(low: int, high: int, salt: int) -> list[tuple[int, int]]:
    """Turn places from `low` to before `high` into the runs of tag halves that have them: one, or two around 0."""
    if high - low == _PLACES:
        return [(0, _PLACES)]
    first, end = (low - salt) % _PLACES, (high - salt) % _PLACES
    if first < end:
        return [(first, end)]
    return [(first, _PLACES), (0, end)] if high > low else []


def _among(tags: npt.NDArray[np.uint8], chosen: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Say of each of N rising tags, uint8 (N, 16), whether it is one of the chosen, uint8 (M, 16)."""
    found = np.zeros(len(tags), np.bool_)
    ours, theirs = (np.ascontiguousarray(some).view(">u8").astype(np.uint64) for some in (tags, chosen))
    at, beyond = (np.searchsorted(ours[:, 0], theirs[:, 0], side) for side in ("left", "right"))
    while (left := at < beyond).any():  # once, but for tags that no cipher made
        at, beyond, theirs = at[left], beyond[left], theirs[left]
        found[at[ours[at, 1] == theirs[:, 1]]] = True
        at = at + 1
    return found
