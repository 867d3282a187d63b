"""Changes as the bytes that the store will hold, row by row: so they are sorted, kept on disk, merged and written.

One row is one piece of memory: putting a million of them into another order costs one copy of each, where columns
cost one of each part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from iyscheck.change import TAG_BYTES, TEXT_TRANSACTION, ConsentColumns
from iyscheck.kernel import Kernel
from iyscheck.store import layout

ROW_DTYPE: Final = np.dtype([("key", layout.KEY_DTYPE), ("record", layout.RECORD_DTYPE), ("tail", "<u4")])
_ITEM: Final = np.dtype(f"V{ROW_DTYPE.itemsize}")
"""A row without its parts: numpy copies those one by one, ten times as slowly."""
_PARTS: Final = np.dtype(
    {
        "names": ["key", "record"],
        "formats": [f"V{layout.KEY_BYTES}", f"V{layout.RECORD_BYTES}"],
        "offsets": [0, layout.KEY_BYTES],
        "itemsize": ROW_DTYPE.itemsize,
    }
)
_WORDS: Final = np.dtype(
    {
        "names": ["prefix", "high", "low"],
        "formats": [">u8", ">u8", ">u8"],
        "offsets": [0, layout.KEY_BYTES - TAG_BYTES, layout.KEY_BYTES - TAG_BYTES // 2],
        "itemsize": ROW_DTYPE.itemsize,
    }
)
"""What keys are ordered by, as numbers; `prefix` has the first two bytes of the tag as well."""
_TOGETHER: Final = 16
"""Fewer records of the same tail are checked one by one."""
_PREFIX_SHIFT: Final = np.uint64(16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What counts and index need of N changes: some of the columns of ConsentColumns, and the same.

    `by_citizen` is right where it decides something: for consents of before the legacy deadlines.
    """

    brand: npt.NDArray[np.uint32]
    channel: npt.NDArray[np.uint8]
    recipient_type: npt.NDArray[np.uint8]
    tag: npt.NDArray[np.uint8]
    status: npt.NDArray[np.uint8]
    registered: npt.NDArray[np.int64]
    consented: npt.NDArray[np.int64]
    by_citizen: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        """Count the changes."""
        return len(self.brand)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedChanges:
    """N changes: `rows` (ROW_DTYPE) are key and record without its tail, which `tail` names in `tails`; 0 has none."""

    rows: npt.NDArray[np.void]
    tails: Sequence[bytes] = (b"",)

    def __len__(self) -> int:
        """Count the changes."""
        return len(self.rows)

    @classmethod
    def of(cls, columns: ConsentColumns, kernel: Kernel = Kernel.NUMPY) -> "EncodedChanges":
        """Encode changes."""
        rows = np.empty(len(columns), ROW_DTYPE)
        layout.write_keys(rows["key"], columns)
        layout.write_records(rows["record"], columns)
        rows["tail"] = 0
        rows["record"]["check"] = layout.record_checks(_memory(rows), b"", kernel)
        tails = [b""]
        # Most tails are the same few: only what cannot be said by columns, often just that there is no source.
        kinds = columns.text * 4 + (columns.source == 0) * 2 + (columns.transaction_form == TEXT_TRANSACTION)
        tailed = np.flatnonzero(kinds & 3)
        tailed = tailed[np.argsort(kinds[tailed], kind="stable")]
        for same in np.split(tailed, np.flatnonzero(np.diff(kinds[tailed])) + 1) if tailed.size else ():
            tails.append(layout.encode_tail(columns, int(same[0])))
            rows["tail"][same] = len(tails) - 1
            # Ids that are no hexadecimal digits differ from row to row, so these may be many and small.
            if len(same) >= _TOGETHER:
                checks = layout.record_checks(_memory(rows.view(_ITEM)[same]), tails[-1], kernel)
                rows["record"]["check"][same] = checks
                continue
            for at in same.tolist():
                body = rows["record"][at].tobytes()[layout.CHECKED_FROM :] + tails[-1]
                rows["record"]["check"][at] = layout.record_check(rows["key"][at].tobytes(), body)
        return cls(rows=rows, tails=tails)

    @classmethod
    def join(cls, parts: Sequence["EncodedChanges"]) -> "EncodedChanges":
        """Put changes behind one another."""
        rows = np.concatenate([np.empty(0, _ITEM), *(part.rows.view(_ITEM) for part in parts)]).view(ROW_DTYPE)
        tails, at = [b""], 0
        for part in parts:
            if len(part.tails) > 1:
                own = rows["tail"][at : at + len(part)]
                own[own > 0] += np.uint32(len(tails) - 1)
                tails += part.tails[1:]
            at += len(part)
        return cls(rows=rows, tails=tails)

    def take(self, rows: npt.NDArray[np.intp] | slice) -> "EncodedChanges":
        """Return the named rows, in that order; the tails are shared."""
        return EncodedChanges(rows=self.rows.view(_ITEM)[rows].view(ROW_DTYPE), tails=self.tails)

    def columns(self) -> ConsentColumns:
        """Decode the changes."""
        return layout.columns_of(
            self.rows["key"], self.rows["record"], [self.tails[at] for at in self.rows["tail"].tolist()]
        )

    def facts(self) -> Facts:
        """Decode what counts and index need."""
        keys, records = self.rows["key"], self.rows["record"]
        return Facts(
            brand=keys["brand"].astype(np.uint32),
            channel=np.ascontiguousarray(keys["channel"]),
            recipient_type=np.ascontiguousarray(keys["recipient_type"]),
            tag=np.ascontiguousarray(keys["tag"].view(f"V{TAG_BYTES}")).view(np.uint8),
            status=np.ascontiguousarray(records["status"]),
            registered=records["registered"].astype(np.int64),
            consented=records["consented"].astype(np.int64),
            by_citizen=layout.by_citizen(records, lambda row: self.tails[self.rows["tail"][row]]),
        )

    def prefixes(self) -> npt.NDArray[np.int64]:
        """Return brand, channel and recipient type of each change as one number in key order."""
        return (self.rows.view(_WORDS)["prefix"].astype(np.uint64) >> _PREFIX_SHIFT).astype(np.int64)

    def tag_words(self) -> npt.NDArray[np.uint64]:
        """Return the upper half of each tag as a number."""
        return self.rows.view(_WORDS)["high"].astype(np.uint64)

    def key(self, row: int) -> bytes:
        """Return the key of one change."""
        key: bytes = self.rows["key"][row].tobytes()
        return key

    def keys(self) -> list[bytes]:
        """Return the keys as the store has them."""
        keys: list[bytes] = self.rows.view(_PARTS)["key"].tolist()
        return keys

    def records(self) -> list[bytes]:
        """Return the records as the store has them."""
        records: list[bytes] = self.rows.view(_PARTS)["record"].tolist()
        if len(self.tails) > 1:
            tailed = np.flatnonzero(self.rows["tail"])
            for at, tail in zip(tailed.tolist(), self.rows["tail"][tailed].tolist(), strict=True):
                records[at] += self.tails[tail]
        return records


def _memory(rows: npt.NDArray[np.void]) -> npt.NDArray[np.uint8]:
    """See rows as bytes, uint8 (N, size of a row)."""
    return rows.view(np.uint8).reshape(len(rows), ROW_DTYPE.itemsize)
