"""White space and byte order marks around the texts of a column, by arrays."""

import numpy as np
import numpy.typing as npt

from iyscheck.address.loops import BOM, KINDS, WHITE

_KINDS = KINDS.tobytes()


def kinds_of(text: bytes) -> npt.NDArray[np.uint8]:
    """Return what each byte of a buffer is, as `KINDS` names them."""
    return np.frombuffer(text.translate(_KINDS), np.uint8)  # twice as fast as an index of bytes


def trimmed(
    kinds: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Find where texts, none of them empty, begin and end without white space; one of nothing else ends before."""
    white = kinds == WHITE
    rows = np.flatnonzero(white[starts] | white[ends - 1])
    if not rows.size:
        return starts, ends
    turns = np.flatnonzero(white[1:] != white[:-1]) + 1  # where white space begins or ends
    firsts, beyonds = starts[rows], ends[rows]
    after, before = np.append(turns, kinds.size), np.append(0, turns)
    firsts = np.where(white[firsts], after[np.searchsorted(turns, firsts, "right")], firsts)
    beyonds = np.where(white[beyonds - 1], before[np.searchsorted(turns, beyonds - 1, "right")], beyonds)
    starts, ends = starts.copy(), ends.copy()
    starts[rows], ends[rows] = firsts, beyonds
    return starts, ends


def without_marks(
    data: npt.NDArray[np.uint8],
    kinds: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Leave out one byte order mark at each end of trimmed texts, and the white space that it hid."""
    size = len(BOM)

    def marked(places: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        may: npt.NDArray[np.bool_] = (ends - starts >= size) & (data[np.clip(places, 0, data.size - 1)] == BOM[0])
        for at in np.flatnonzero(may).tolist():  # hardly ever any
            may[at] = data[places[at] : places[at] + size].tobytes() == BOM
        return may

    starts = starts + size * marked(starts)
    ends = np.maximum(starts, ends - size * marked(ends - size))
    rows = np.flatnonzero(ends > starts)
    if rows.size:
        starts[rows], ends[rows] = trimmed(kinds, starts[rows], ends[rows])
    return starts, np.maximum(starts, ends)
