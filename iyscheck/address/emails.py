"""A column of e-mails: their blocks, by arrays or by a compiled loop."""

import hashlib
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from iyscheck.address.loops import (
    AT,
    DOT,
    FEWEST_BEFORE_LAST_DOT,
    FOLD,
    LETTER,
    LONGEST_EMAIL,
    PLUS,
    SHORTEST_EMAIL,
    SHORTEST_TOP_LABEL,
    fold_emails,
)
from iyscheck.address.single import EMAIL_BIT
from iyscheck.address.texts import TextColumn
from iyscheck.address.white import kinds_of, trimmed, without_marks
from iyscheck.kernel import Kernel
from iyscheck.keys import BLOCK_BYTES

_FOLD: Final = FOLD.tobytes()

_Folded: TypeAlias = tuple[bytes, npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Folded text, and where in it the e-mail of each row begins and ends; both 0 for what is none."""


def email_blocks(column: TextColumn, kernel: Kernel) -> npt.NDArray[np.uint8]:
    """Make the blocks of a column of e-mails, uint8 of shape (N, 16); rows that are not accepted are all zero."""
    folded, starts, ends = _folded(column) if kernel is Kernel.NUMPY else _folded_by_loop(column)
    rows = np.flatnonzero(ends)
    # The only loop over items of a column: nothing at hand hashes a whole column.
    digests = b"".join(
        [
            hashlib.sha256(folded[start:end]).digest()
            for start, end in zip(starts[rows].tolist(), ends[rows].tolist(), strict=True)
        ]
    )
    found = np.zeros((len(column), BLOCK_BYTES), np.uint8)
    found[rows] = np.frombuffer(digests, np.uint8).reshape(-1, hashlib.sha256().digest_size)[:, :BLOCK_BYTES]
    found[rows, 0] |= EMAIL_BIT
    return found


def _folded_by_loop(column: TextColumn) -> _Folded:
    text = np.empty_like(column.data)
    starts, ends = np.empty_like(column.starts), np.empty_like(column.ends)
    fold_emails(column.data, column.starts, column.ends, text, starts, ends)
    return text.tobytes(), starts, ends


def _folded(column: TextColumn) -> _Folded:
    text = column.data.tobytes()
    kinds = kinds_of(text)
    rows = np.flatnonzero(column.ends - column.starts >= SHORTEST_EMAIL)
    starts, ends = trimmed(kinds, column.starts[rows], column.ends[rows])
    starts, ends = without_marks(column.data, kinds, starts, ends)
    fits = _are_emails(kinds, starts, ends)
    found = np.zeros((2, len(column)), np.int64)
    found[:, rows[fits]] = starts[fits], ends[fits]
    return text.translate(_FOLD), found[0], found[1]


def _are_emails(
    kinds: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Tell which texts of a column, trimmed, are e-mails."""
    is_at, is_dot = kinds == AT, kinds == DOT
    dots = np.flatnonzero(is_dot)
    after_joint = np.append(False, (is_at | is_dot)[:-1])
    at = _next(np.flatnonzero(is_at), starts, kinds.size)
    last_dot = np.append(-1, dots)[np.searchsorted(dots, ends)]
    fits: npt.NDArray[np.bool_] = (ends - starts >= SHORTEST_EMAIL) & (ends - starts <= LONGEST_EMAIL)
    fits &= at > starts
    fits &= last_dot - at > FEWEST_BEFORE_LAST_DOT
    fits &= ends - last_dot > SHORTEST_TOP_LABEL
    fits &= kinds[np.minimum(last_dot + 1, kinds.size - 1)] == LETTER
    fits &= _next(np.flatnonzero(kinds < LETTER), starts, kinds.size) >= ends
    # After the at-sign: no other one, no plus, and no dot that ends an empty label.
    not_in_domain = np.flatnonzero(is_at | (kinds == PLUS) | (is_dot & after_joint))
    fits &= _next(not_in_domain, at + 1, kinds.size) >= ends
    return fits


def _next(places: npt.NDArray[np.int64], froms: npt.NDArray[np.int64], none: int) -> npt.NDArray[np.int64]:
    """Find for each row the first of the places (in rising order) from there on, or `none`."""
    return np.append(places, none)[np.searchsorted(places, froms)]
