"""Questions about single addresses: their status, history and retailers."""

from collections.abc import Iterable
from itertools import count

import msgspec

from tests.iys.accounts import CHANNELS
from tests.iys.answers import Answer, refused, said
from tests.iys.movements import Movement
from tests.iys.operations.paging import part_of
from tests.iys.world import BRAND_PATH, Call, Operation, World

MOST_ADDRESSES = 1000
RECIPIENT_TYPES = ("BIREYSEL", "TACIR")
_REQUESTS = count(1)


class _Consent(msgspec.Struct):
    """Which consent is asked about. İYS's names; empty where the body lacks one."""

    recipient: str = ""
    recipientType: str = ""  # noqa: N815 - as İYS spells it
    type: str = ""


def _asked(call: Call) -> _Consent | Answer:
    try:
        asked = msgspec.json.decode(call.body, type=_Consent)
    except msgspec.MsgspecError:
        return refused(400, "H014")
    for name, value, missing in (
        ("type", asked.type, "H111"),
        ("recipient", asked.recipient, "H114"),
        ("recipientType", asked.recipientType, "H170"),
    ):
        if not value:
            return refused(422, missing, location=(name,))
    if asked.type not in CHANNELS:
        return refused(422, "H117", location=("type",), value=asked.type)
    if asked.recipientType not in RECIPIENT_TYPES:
        return refused(422, "H116", location=("recipientType",), value=asked.recipientType)
    if ("@" in asked.recipient) != (asked.type == "EPOSTA"):
        code = "H120" if asked.type == "EPOSTA" else "H121"
        return refused(422, code, location=("recipient",), value=asked.recipient)
    return asked


def _movements(world: World, call: Call, channel: str, recipient_type: str) -> dict[object, list[Movement]]:
    """Give the movements of each address, oldest first. Unlike the feeds this knows what happened a second ago."""
    found: dict[object, list[Movement]] = {}
    for movement in world.movements.of_brand(call.brand):
        if movement.consent[:2] == (channel, recipient_type) and movement.written_s <= call.now_s:
            found.setdefault(movement.row.get("recipient"), []).append(movement)
    return found


def _status(world: World, call: Call) -> Answer:
    """Tell how one consent stands."""
    if not world.limits.status(call.now_s, world.quirks):
        return refused(429, "H086")
    asked = _asked(call)
    if isinstance(asked, Answer):
        return asked
    moved = _movements(world, call, asked.type, asked.recipientType).get(asked.recipient)
    if not moved:
        return said({}) if world.quirks.no_record == "empty" else refused(int(world.quirks.no_record), "H401")
    row = {name: value for name, value in moved[-1].row.items() if name != "citizenName"}
    retailers = world.accounts.retailers.get((call.brand, *moved[-1].consent), [])
    if retailers:
        row |= {"retailerCode": retailers[0], "retailerTitle": "A retailer", "retailerAccessCount": len(retailers)}
    return said(row)


def _statuses(world: World, call: Call) -> Answer:
    """Tell which of many addresses may be written to."""
    recipients = _recipients(call)
    if isinstance(recipients, Answer):
        return recipients
    channel, recipient_type = call.parameters["type"], call.parameters["recipientType"]
    for index, recipient in enumerate(recipients):
        if ("@" in recipient) != (channel == "EPOSTA"):
            return refused(422, "H464", location=("recipients", index), value=recipient)
    moved = _movements(world, call, channel, recipient_type)
    approved = [r for r in recipients if moved.get(r) and moved[r][-1].row.get("status") == "ONAY"]
    return said({"requestId": f"00000000-0000-4000-8000-{next(_REQUESTS):012}", "list": approved})


def _recipients(call: Call) -> list[str] | Answer:
    try:
        recipients = msgspec.json.decode(call.body, type=dict[str, object]).get("recipients")
    except msgspec.MsgspecError:
        return refused(400, "H014")
    code = ""
    if recipients is None:
        code = "H168"
    elif not isinstance(recipients, list):
        code = "H478"
    elif not 1 <= len(recipients) <= MOST_ADDRESSES:
        code = "H164"
    elif len(set(recipients)) < len(recipients):
        code = "H193"
    if code:
        return refused(422, code, location=("recipients",))
    return msgspec.convert(recipients, list[str])


def _history(world: World, call: Call) -> Answer:
    """List the movements of one consent, the newest consent first."""
    if not world.limits.history(call.now_s, world.quirks):
        return refused(429, "H089")
    asked = _asked(call)
    if isinstance(asked, Answer):
        return asked
    part = part_of(call)
    if isinstance(part, Answer):
        return part
    moved = _movements(world, call, asked.type, asked.recipientType).get(asked.recipient, [])
    moved = sorted(moved, key=lambda movement: str(movement.row.get("consentDate")), reverse=True)
    rows = [{name: value for name, value in m.row.items() if name != "citizenName"} for m in part.of(moved)]
    return said({"list": rows, "pagination": part.told(moved)})


def _retailers(world: World, call: Call) -> Answer:
    """List the retailers that may use one consent."""
    asked = _asked(call)
    if isinstance(asked, Answer):
        return asked
    part = part_of(call)
    if isinstance(part, Answer):
        return part
    consent = (call.brand, asked.type, asked.recipientType, asked.recipient)
    retailers = world.accounts.retailers.get(consent, [])
    rows = [{"retailerCode": code, "title": "A retailer", "name": "Somebody"} for code in part.of(retailers)]
    return said({"pagination": part.told(retailers), "list": rows})


def _operations() -> Iterable[Operation]:
    yield Operation(name="status", method="POST", path=f"{BRAND_PATH}/consents/status", answer=_status)
    path = f"{BRAND_PATH}/consents/{{recipientType}}/status/{{type}}"
    yield Operation(name="statuses", method="POST", path=path, answer=_statuses)
    yield Operation(name="history", method="POST", path=f"{BRAND_PATH}/consents/history", answer=_history)
    # İYS's document spells it one way, its older pages the other.
    for spelling in ("consent", "consents"):
        path = f"{BRAND_PATH}/{spelling}/retailers/access/list"
        yield Operation(name="retailers", method="POST", path=path, answer=_retailers)


OPERATIONS = tuple(_operations())
