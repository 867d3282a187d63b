"""The rows of a chunk as columns while they are judged: what each field says, and the first fault of each row."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from iyscheck.change import TAG_BYTES
from iyscheck.consent import Status
from loader.reading import faults, times
from loader.reading import vocabulary as names
from loader.reading.faults import Fault
from loader.reading.rows import Row
from loader.reading.vocabulary import Kind

NO_TEXT: Final = "\0"
"""Stands for a value that should be a text and is none: nothing that is read as text takes it."""

NO_BRAND: Final = 0
BAD_BRAND: Final = -1
OTHER_BRAND: Final = -2
MISTYPED_BRAND: Final = -3


class Brands(dict[int | str | None, int]):
    """Brand codes as rows spell them → what they mean, computed once each for a chunk."""

    def __init__(self, given: int | None) -> None:
        super().__init__()
        self._given = given

    def __missing__(self, spelled: int | str | None) -> int:
        code = whole_number(spelled, names.BRAND_MAX)
        if spelled is None:
            code = self._given or NO_BRAND
        elif code is None:
            code = BAD_BRAND
        elif self._given not in (None, code) and code != names.TEST_BRAND:
            code = OTHER_BRAND
        self[spelled] = code
        return code


class Codes(dict[str, int]):
    """Codes as rows spell them → their numbers, `other` for what is in no table; each folded once for a chunk."""

    def __init__(self, numbers: Mapping[str, int], *, other: int) -> None:
        super().__init__(numbers)
        self._numbers = numbers
        self._other = other

    def __missing__(self, spelled: str) -> int:
        self[spelled] = self._numbers.get(names.code(spelled), self._other)
        return self[spelled]


class Lists(dict[tuple[int | str, ...], frozenset[int] | None]):
    """Lists of retailers as rows spell them → their codes, None where one is wrong; few lists serve many consents."""

    def __missing__(self, spelled: tuple[int | str, ...]) -> frozenset[int] | None:
        codes = [whole_number(code, names.CODE_MAX) for code in spelled[: names.RETAILERS_MAX + 1]]
        wrong = len(codes) > names.RETAILERS_MAX or None in codes
        self[spelled] = None if wrong else frozenset(code for code in codes if code is not None)
        return self[spelled]

    def of(self, row: Row) -> frozenset[int] | None:
        """Read the list of a row that has one; None where it is no list of retailers."""
        spelled = row.get(names.RETAILER_ACCESS)
        if not isinstance(spelled, list) or not all(type(code) in {int, str} for code in spelled):
            return None
        return self[tuple(spelled)]


def whole_number(spelled: object, largest: int) -> int | None:
    """Read a number from 1 to `largest`, given as such or as ASCII digits; None if it is not one."""
    if isinstance(spelled, str):
        if not (spelled.isascii() and spelled.isdigit()) or len(spelled) > len(str(largest)):
            return None
        spelled = int(spelled)
    return spelled if type(spelled) is int and 1 <= spelled <= largest else None


def texts_of(rows: Sequence[Row], name: str) -> list[str]:
    """Return a field of all rows: empty where it is absent, NO_TEXT where it is something else than a text."""
    found = [row.get(name) for row in rows]
    return [text if type(text) is str else "" if text is None else NO_TEXT for text in found]


@dataclass(slots=True)
class Columns:
    """The columns of a chunk while it is judged; `fault` is 0 or 1 + the place in `faults`."""

    rows: Sequence[Row]
    kind: npt.NDArray[np.uint8]
    brand: npt.NDArray[np.int64]
    channel: npt.NDArray[np.uint8]
    recipient_type: npt.NDArray[np.uint8]
    status: npt.NDArray[np.uint8]
    registered: npt.NDArray[np.int64]
    consented: npt.NDArray[np.int64]
    sources: list[str]
    transactions: list[str]
    tag: npt.NDArray[np.uint8]
    readable: npt.NDArray[np.bool_]
    mended: npt.NDArray[np.bool_]
    listed: npt.NDArray[np.bool_]
    fault: npt.NDArray[np.int64]
    faults: list[Fault] = field(default_factory=list)
    lists: Lists = field(default_factory=Lists)

    @classmethod
    def of(cls, rows: Sequence[Row], *, brand: int | None) -> Self:
        """Lay rows out; `brand` is that of --brand. Tags are not filled in yet."""
        brands = Brands(brand)
        kinds = Codes(names.KIND_CODES | {"": Kind.CONSENT}, other=Kind.UNKNOWN)
        channels = Codes(names.CHANNEL_CODES, other=0)
        types = Codes(names.RECIPIENT_TYPE_CODES, other=0)
        statuses = Codes(names.STATUS_CODES, other=Status.UNKNOWN)
        codes = [row.get(names.BRAND_CODE) for row in rows]
        count = len(rows)
        return cls(
            rows=rows,
            kind=np.array([kinds[text] for text in texts_of(rows, names.KIND)], np.uint8),
            brand=np.array(
                [
                    brands[code]
                    if code is None or (isinstance(code, int | str) and not isinstance(code, bool))
                    else MISTYPED_BRAND
                    for code in codes
                ],
                np.int64,
            ),
            channel=np.array([channels[text] for text in texts_of(rows, names.TYPE)], np.uint8),
            recipient_type=np.array([types[text] for text in texts_of(rows, names.RECIPIENT_TYPE)], np.uint8),
            status=np.array([statuses[text] for text in texts_of(rows, names.STATUS)], np.uint8),
            registered=times.seconds_of([text.strip() for text in texts_of(rows, names.CREATION_DATE)]),
            consented=times.seconds_of([text.strip() for text in texts_of(rows, names.CONSENT_DATE)]),
            sources=texts_of(rows, names.SOURCE),
            transactions=texts_of(rows, names.TRANSACTION_ID),
            tag=np.zeros((count, TAG_BYTES), np.uint8),
            readable=np.zeros(count, np.bool_),
            mended=np.zeros(count, np.bool_),
            listed=np.array([row.get(names.RETAILER_ACCESS) is not None for row in rows], np.bool_),
            fault=np.zeros(count, np.int64),
        )

    def reject(self, broken: npt.NDArray[np.bool_], fault: Fault) -> None:
        """Reject rows that no earlier rule rejected."""
        if broken.any():
            self.faults.append(fault)
            self.fault[broken & (self.fault == 0)] = len(self.faults)

    def among(self, asked: npt.NDArray[np.bool_], is_broken: Callable[[Row], bool]) -> npt.NDArray[np.bool_]:
        """Ask the few rows in question one by one."""
        broken = np.zeros(len(self.rows), np.bool_)
        for at in np.flatnonzero(asked).tolist():
            broken[at] = is_broken(self.rows[at])
        return broken

    def reject_field(self, wrong: npt.NDArray[np.bool_], name: str, invalid: Fault) -> None:
        """Reject rows whose field is absent, of the wrong type or invalid, and say which of these."""
        if wrong.any():
            self.reject(self.among(wrong, lambda row: row.get(name) is None or row[name] == ""), faults.missing(name))
            self.reject(self.among(wrong, lambda row: type(row.get(name)) is not str), faults.mistyped(name))
            self.reject(wrong, invalid)

    def set_right(self, wrong: npt.NDArray[np.bool_], fault: Fault) -> list[int]:
        """Reject the ONAY among rows in which something beside the point is wrong.

        The others are to be loaded as if it were absent: says which these are.
        """
        self.reject(wrong & (self.status == Status.ONAY), fault)
        others = wrong & (self.status != Status.ONAY)
        self.mended |= others
        return np.flatnonzero(others).tolist()
