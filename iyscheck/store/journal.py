"""What one write transaction does to the part of a store that replicas share: told to them, and summed up.

The digest of a store is a sum of hashes, one of each record and each value that is replicated, modulo 2^128. So a
transaction adds what it writes and takes off what it replaces, in whatever order, and two stores that hold the same
have the same digest. It finds faults of programs and machines. Who forges is found by signatures.
"""

from collections.abc import Iterator, Sequence
from operator import add
from typing import Final

import numpy as np
import xxhash

from iyscheck.store import layout
from iyscheck.store.encoded import EncodedChanges
from iyscheck.store.log_batch import Value

NO_BRAND: Final = 0
"""Whose part of the digest is of what belongs to no brand."""
_OF_A_BRAND: Final = frozenset(
    {layout.BRANDS, layout.WATERMARKS, layout.WITHHELD, layout.ACCESS, layout.SPANS, layout.GAPS}
)
"""Databases whose keys begin with a brand code; those of records do, too."""


class Journal:
    """What a transaction changes: `rows` and `values` for the log, `sums` by brand for the digest.

    One that is not `kept` takes nothing down: the store is in no log. `untold` says that records were written that
    are not in `rows`.
    """

    def __init__(self, *, kept: bool) -> None:
        self.kept = kept
        self.untold = False
        self.sums: dict[int, int] = {}
        self._rows: list[EncodedChanges] = []
        self._values: dict[tuple[bytes, bytes], bytes | None] = {}

    @property
    def is_empty(self) -> bool:
        """Say whether nothing that is replicated was changed."""
        return not (self.untold or self._rows or self._values)

    @property
    def rows(self) -> EncodedChanges:
        """The records that were written, in key order."""
        if len(self._rows) > 1:
            raise ValueError("a transaction of the log writes its records at once")
        return self._rows[0] if self._rows else EncodedChanges.join(())

    @property
    def values(self) -> Sequence[Value]:
        """What stands beside the records and was changed, in the order of its first change."""
        return [(name, key, value) for (name, key), value in self._values.items()]

    def put(self, name: bytes, key: bytes, old: bytes | None, new: bytes | None) -> None:
        """Take down that a value of a named database became another; None is none."""
        self._values[name, key] = new
        brand = brand_of(name, key)
        total = self.sums.get(brand, 0)
        if old is not None:
            total -= element(name, key, old)
        if new is not None:
            total += element(name, key, new)
        self.sums[brand] = total % layout.DIGEST_MODULUS

    def wrote(
        self,
        changes: EncodedChanges,
        keys: Sequence[bytes],
        records: Sequence[bytes],
        replaced: Sequence[bytes | None] | None,
        *,
        told: bool = True,
    ) -> None:
        """Take down N records that were written, sorted by key; `told` are those for the log.

        `keys` and `records` are those of the changes, which whoever writes them has made already. `replaced` says what
        each took the place of; None where there was nothing under any of these keys.
        """
        if not len(changes):
            return
        if told:
            self._rows.append(changes)
        self.untold |= not told
        for brand, own in _by_brand(changes):
            total = self.sums.get(brand, 0) + record_sum(keys[own], records[own])
            if replaced is not None:
                gone = zip(keys[own], replaced[own], strict=True)
                total -= sum(map(xxhash.xxh3_128_intdigest, [key + old for key, old in gone if old is not None]))
            self.sums[brand] = total % layout.DIGEST_MODULUS

    def forget_rows(self) -> None:
        """Tell nothing of the records: who follows has to take a copy."""
        self._rows.clear()
        self._values.clear()
        self.untold = True


def element(name: bytes, key: bytes, value: bytes) -> int:
    """Return what a value beside the records adds to the digest."""
    return xxhash.xxh3_128_intdigest(b"\0".join((name, key, value)))


def record_sum(keys: Sequence[bytes], records: Sequence[bytes]) -> int:
    """Return what records add to the digest, not reduced."""
    return sum(map(xxhash.xxh3_128_intdigest, map(add, keys, records)))


def brand_of(name: bytes, key: bytes) -> int:
    """Say of which brand a value is; NO_BRAND for what is of none."""
    return layout.decode_code(key[: layout.CODE_BYTES]) if name in _OF_A_BRAND else NO_BRAND


def _by_brand(changes: EncodedChanges) -> Iterator[tuple[int, slice]]:
    """Cut changes sorted by key into those of each brand."""
    brands = changes.rows["key"]["brand"].astype(np.int64)
    starts = np.flatnonzero(np.append(True, brands[1:] != brands[:-1])).tolist()
    for start, end in zip(starts, [*starts[1:], len(brands)], strict=True):
        yield int(brands[start]), slice(start, end)
