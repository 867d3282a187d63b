"""Rows of packed arrays as bytes."""

import numpy as np
import numpy.typing as npt


def copy_bytes(into: npt.NDArray[np.uint8], rows: npt.NDArray[np.uint8]) -> None:
    """Copy rows of bytes, each as one item: many times as fast as byte by byte along the short axis."""
    item = f"V{rows.shape[1]}"
    into.view(item)[:] = np.ascontiguousarray(rows).view(item)


def rows_bytes(rows: npt.NDArray[np.void]) -> list[bytes]:
    """Return each row of a packed array as bytes, in one call; rows of shape (N,)."""
    listed: list[bytes] = np.ascontiguousarray(rows).view(f"V{rows.itemsize}").tolist()
    return listed
