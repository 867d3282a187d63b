"""The few rows that are no consents: brands, and watermarks. They are read one by one."""

import numpy as np

from iyscheck.change import Brand
from iyscheck.consent import CLOCK_TOLERANCE_S, Channel
from loader.reading import faults, times
from loader.reading import vocabulary as names
from loader.reading.columns import NO_TEXT, Columns, whole_number
from loader.reading.faults import Fault
from loader.reading.rows import Row
from loader.reading.vocabulary import Kind


def registrations(columns: Columns, now_s: float) -> tuple[list[Brand], list[tuple[int, int]]]:
    """Read the rows about brands and watermarks one by one, rejecting those that are wrong."""
    brands: list[Brand] = []
    watermarks: list[tuple[int, int]] = []
    about = (columns.kind == Kind.BRAND) | (columns.kind == Kind.WATERMARK)
    for at in np.flatnonzero(about & (columns.fault == 0) & (columns.brand != names.TEST_BRAND)).tolist():
        row, code = columns.rows[at], int(columns.brand[at])
        if columns.kind[at] == Kind.BRAND:
            found: Brand | int | Fault = _brand(row, code, int(columns.registered[at]))
        else:
            found = _complete_until(row, now_s)
        if isinstance(found, Fault):
            columns.faults.append(found)
            columns.fault[at] = len(columns.faults)
        elif isinstance(found, Brand):
            brands.append(found)
        else:
            watermarks.append((code, found))
    return brands, watermarks


def _brand(row: Row, code: int, registered: int) -> Brand | Fault:
    iys_code = whole_number(row.get(names.IYS_CODE), names.CODE_MAX)
    active = row.get(names.ACTIVE)
    channels = _channels(row.get(names.CHANNELS, [*names.CHANNEL_CODES]))
    deadline = row.get(names.LEGACY_DEADLINE)
    if iys_code is None:
        return faults.IYS_CODE_INVALID
    if not isinstance(active, bool):
        return faults.ACTIVE_MISSING if active is None else faults.mistyped(names.ACTIVE)
    if channels is None:
        return faults.CHANNELS_INVALID
    if not (
        deadline is None
        or (isinstance(deadline, int | str) and deadline is not True and deadline in names.DEADLINE_CODES)
    ):
        return faults.DEADLINE_INVALID
    return Brand(
        brand=code,
        iys_code=iys_code,
        active=active,
        channels=channels,
        legacy_deadline=0 if deadline is None else names.DEADLINE_CODES[deadline],
        registered=registered,
    )


def _channels(spelled: object) -> frozenset[Channel] | None:
    """Read a list of channels; None where it is none. Only one that is not there at all stands for every channel."""
    if not isinstance(spelled, list) or not all(isinstance(name, str) for name in spelled):
        return None
    numbers = {names.CHANNEL_CODES.get(names.code(name), 0) for name in spelled}
    return None if 0 in numbers else frozenset(Channel(number) for number in numbers)


def _complete_until(row: Row, now_s: float) -> int | Fault:
    spelled = row.get(names.COMPLETE_UNTIL)
    if spelled is None:
        return faults.UNTIL_MISSING
    try:
        until = times.watermark(spelled if isinstance(spelled, str) else NO_TEXT)
    except ValueError:
        return faults.UNTIL_INVALID
    return faults.UNTIL_AHEAD if until > now_s + CLOCK_TOLERANCE_S else until
