"""Daily files, their summaries, hashes, stamps, and the agreement on them."""

import base64
import hashlib
import re
from collections.abc import Iterable
from datetime import date, timedelta
from typing import NamedTuple

import msgspec

from loader.iys.messages import FeedSource
from tests.iys.answers import EMPTY, Answer, refused, said
from tests.iys.days import Told, day_of, file_of, hash_of, ready_s, rows_of
from tests.iys.movements import Movement
from tests.iys.world import BRAND_PATH, Call, Operation, World

DAYS_BACK = 7
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class _Day(NamedTuple):
    """A day that somebody may ask about: its rows, which none are before its file is made, and what is told of it."""

    day: date
    is_ready: bool
    rows: list[Movement]
    told: Told


def _day(world: World, call: Call) -> _Day | Answer:
    """Find the day in the path."""
    text = call.parameters["reportDate"]
    try:
        day = date.fromisoformat(text) if _DATE.fullmatch(text) else None
    except ValueError:
        day = None
    if day is None:
        return refused(422, "H501", location=("reportDate",), value=text)
    today = day_of(call.now_s)
    if not today - timedelta(DAYS_BACK) <= day < today:
        return refused(422, "H502", location=("reportDate",), value=text)
    if not _may_agree(call):
        return refused(403, "H353", odd_code_key=world.quirks.odd_code_key)
    movements = [m for m in world.movements.of_brand(call.brand) if m.row.get("type") in call.channels]
    is_ready = call.now_s >= ready_s(day, world.quirks)
    return _Day(day, is_ready, rows_of(movements, day, world.quirks), world.days.of(call.brand, day))


def _may_agree(call: Call) -> bool:
    """Say whether an account may reconcile a brand: a provider may, an integrator by a right of its own."""
    assert call.account is not None
    if call.account.kind == "provider":
        return True
    return any(m.agreement_control for m in call.account.manages if m.brand == call.brand)


def _summary(world: World, call: Call) -> Answer:
    """Count the movements of a day."""
    day, recipient_type = _day(world, call), call.parameters["recipientType"]
    if isinstance(day, Answer):
        return day
    if recipient_type not in {"BIREYSEL", "TACIR"}:
        return refused(422, "H116", location=("recipientType",), value=recipient_type)
    statuses: dict[tuple[object, ...], object] = {}
    counts = {(channel, source): [0, 0, 0, 0] for channel in sorted(call.channels) for source in FeedSource}
    today = {row.number for row in day.rows}
    for movement in world.movements.of_brand(call.brand):
        before, now = statuses.get(movement.consent), movement.row.get("status")
        statuses[movement.consent] = now
        if movement.number in today and movement.row.get("recipientType") == recipient_type:
            line = counts[str(movement.row.get("type")), movement.source]
            line[0] += now == "ONAY" and before != "ONAY"
            line[1] += now == "RET" and before == "ONAY"
            line[3] += 1
    first = next(iter(counts.values()), [0, 0, 0, 0])
    first[2] += day.told.pending
    first[3] += day.told.pending + day.told.total_extra
    names = ("approval", "rejection", "pending", "total")
    channels = [channel for channel in sorted(call.channels) if channel not in day.told.unlisted]
    return said(
        {
            "changeStats": [
                {
                    "type": channel,
                    "consents": [
                        {"source": source.value} | dict(zip(names, counts[channel, source], strict=True))
                        for source in FeedSource
                    ],
                }
                for channel in channels
            ]
        }
    )


def _agreement(world: World, call: Call) -> Answer:
    """Tell how far the file of a day is, and its hash."""
    day = _day(world, call)
    if isinstance(day, Answer):
        return day
    status = day.told.process_status or ("completed" if day.is_ready else "queued")
    if not day.rows and day.told.process_status is None:
        return EMPTY
    told: dict[str, object] = {
        "processStatus": status,
        "agreementStatus": (call.brand, day.day) in world.days.agreed,
    }
    if status == "completed":
        digest = hash_of(file_of(day.rows, world.quirks), world.quirks)
        digest = digest if day.told.hash_value is None else day.told.hash_value
        told |= ({"hashValue": digest} if digest else {}) | {"hashMethod": world.quirks.hash_said}
    return said(told)


def _agree(world: World, call: Call) -> Answer:
    """Take note that a provider agrees with a day, for good."""
    day = _day(world, call)
    if isinstance(day, Answer):
        return day
    try:
        status = msgspec.json.decode(call.body, type=dict[str, object]).get("agreementStatus")
    except msgspec.MsgspecError:
        return refused(422, "H512", location=("agreementStatus",))
    if status is not True:
        return refused(422, "H512", location=("agreementStatus",), value=str(status).lower())
    if not day.is_ready or not day.rows:
        return EMPTY
    world.days.agreed.add((call.brand, day.day))
    return said({world.quirks.captured_key: True})


def _file(world: World, call: Call) -> Answer:
    """Give the file of a day."""
    day = _day(world, call)
    if isinstance(day, Answer):
        return day
    if not day.is_ready or not day.told.has_file or not (day.rows or day.told.body):
        return EMPTY
    body = file_of(day.rows, world.quirks) if day.told.body is None else day.told.body
    return Answer(200, body, "text/csv")


def _timestamp(world: World, call: Call) -> Answer:
    """Give the time stamp of the file of a day."""
    day = _day(world, call)
    if isinstance(day, Answer):
        return day
    if not day.is_ready or not day.rows:
        return EMPTY
    stamp = day.told.timestamp
    if stamp is None:
        method = world.quirks.hash_method
        digest = hashlib.new(method, file_of(day.rows, world.quirks)).digest()
        stamp = world.stamps.stamp(digest, method, ready_s(day.day, world.quirks))
        if world.quirks.timestamp_form == "base64":
            stamp = base64.encodebytes(stamp)
    return Answer(200, stamp, "text/plain")


def _operations() -> Iterable[Operation]:
    yield Operation(
        name="summary",
        method="GET",
        path=f"{BRAND_PATH}/changes/{{reportDate}}/recipients/{{recipientType}}",
        answer=_summary,
    )
    yield Operation(name="agreement", method="GET", path=f"{BRAND_PATH}/agreements/{{reportDate}}", answer=_agreement)
    yield Operation(name="agree", method="PUT", path=f"{BRAND_PATH}/agreements/{{reportDate}}", answer=_agree)
    yield Operation(name="file", method="GET", path=f"{BRAND_PATH}/changes/{{reportDate}}/file", answer=_file)
    yield Operation(
        name="timestamp", method="GET", path=f"{BRAND_PATH}/agreements/{{reportDate}}/timestamp", answer=_timestamp
    )


OPERATIONS = tuple(_operations())
