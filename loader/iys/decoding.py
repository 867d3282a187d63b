"""Bodies of good answers, as messages. What decides is asked for strictly: an error with 200 is no empty page.

Nothing of a body is repeated in a fault.
"""

import codecs
import json
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Final

import msgspec

from iyscheck.consent import Channel, RecipientType
from loader.iys.faults import TransientFault
from loader.iys.messages import (
    Agreement,
    AgreementState,
    FeedSource,
    ListedBrand,
    Page,
    PushAddress,
    Subscription,
    SubscriptionState,
    SummaryLine,
)
from loader.iys.transport import Answer

BRAND_MAX: Final = 2**32 - 1
CODE_MAX: Final = 2**53
_DIGITS_MAX: Final = 20
_INT_DIGITS: Final = 18
"""Longer numbers are no codes and no counts, and some do not fit 64 bits."""
CONNECTED: Final = "Bağlantı Oluşturuldu"
_NAME_OF_A_PERSON: Final = "citizenname"
_HASH_DIGITS: Final = frozenset("0123456789abcdef")
_MAY: Final = frozenset({"write", "read"})
_NO: Final = frozenset({"", "none", "no", "false"})


class Grant(msgspec.Struct, frozen=True):
    """Tokens, and for how many seconds they live."""

    access: str
    refresh: str
    expires_in: float
    refresh_expires_in: float


class ListedPage(msgspec.Struct, frozen=True):
    """A page of an integrator's listing, of so many brands in all."""

    brands: tuple[ListedBrand, ...]
    total: int


def grant_of(answer: Answer) -> Grant:
    """Read new tokens. Raises TransientFault, as all of these."""
    what = "a token"
    body = _object(answer, what)
    access, refresh = body.get("access_token"), body.get("refresh_token", "")
    expires = body.get("expires_in")
    if not isinstance(access, str) or not access.isascii() or not access.isprintable() or not access:
        raise _strange(what)
    if not isinstance(expires, int | float) or isinstance(expires, bool) or expires <= 0:
        raise _strange(what)
    refresh_expires = body.get("refresh_expires_in", 0)
    if not isinstance(refresh, str) or not isinstance(refresh_expires, int | float):
        refresh, refresh_expires = "", 0
    return Grant(access=access, refresh=refresh, expires_in=expires, refresh_expires_in=refresh_expires)


def page_of(answer: Answer) -> Page:
    """Read a page of the changes feed."""
    what = "changes"
    if answer.is_empty:
        return Page(rows=(), after=None, asked=answer.asked)
    body = _object(answer, what)
    rows = body.get("list")
    after = body.get("after")
    if "after" not in body or not isinstance(rows, list) or not isinstance(after, str | None):
        raise _strange(what)
    if after is not None and not after.isascii():
        raise _strange(what)
    if not all(isinstance(row, dict) for row in rows) or (rows and not after):
        raise _strange(what)
    return Page(rows=tuple(map(_nameless, rows)), after=after or None, asked=answer.asked)


def brands_of(answer: Answer, iys_code: int) -> tuple[ListedBrand, ...]:
    """Read all brands of a provider, who may write to all channels of each."""
    what = "brands"
    listed = _list(answer, what)
    return tuple(
        ListedBrand(
            brand=_code(row.get("brandCode"), BRAND_MAX, what),
            iys_code=iys_code,
            name=_text(row.get("name")),
            channels=frozenset(Channel),
            consents=_consents(row.get("stats")),
        )
        for row in _objects(listed, what)
    )


def listed_of(answer: Answer) -> ListedPage:
    """Read a page of the brands that an integrator serves."""
    what = "brands"
    body = _object(answer, what)
    pagination = body.get("pagination")
    total = pagination.get("totalCount") if isinstance(pagination, dict) else None
    listed = body.get("list")
    if not isinstance(listed, list):
        raise _strange(what)
    brands = tuple(
        ListedBrand(
            brand=_code(row.get("brandCode"), BRAND_MAX, what),
            iys_code=_code(row.get("iysCode"), CODE_MAX, what),
            name=_text(row.get("name")),
            channels=frozenset(channel for channel in Channel if _word(row.get(channel.name)) in _MAY),
            reconciles=_word(row.get("agreementControl")) not in _NO,
        )
        for row in _objects(listed, what)
    )
    return ListedPage(brands=brands, total=_whole(total, what))


def subscription_of(answer: Answer) -> Subscription:
    """Read a subscription."""
    what = "the subscription"
    body = _object(answer, what)
    try:
        state = SubscriptionState(_word(body.get("status")).upper())
    except ValueError:
        raise _strange(what) from None
    return Subscription(state=state, expires=_text(body.get("expirationDate")))


def summary_of(answer: Answer, recipient_type: RecipientType) -> tuple[SummaryLine, ...]:
    """Read the counts of a day."""
    what = "the counts of a day"
    if answer.is_empty:
        return ()
    stats = _object(answer, what).get("changeStats")
    lines = []
    for stat in _objects(stats, what):
        channel = _channel(stat.get("type"), what)
        for line in _objects(stat.get("consents"), what):
            try:
                source = FeedSource(_word(line.get("source")).upper())
            except ValueError:
                raise _strange(what) from None
            approval, rejection, pending, total = (
                _whole(line.get(name), what) for name in ("approval", "rejection", "pending", "total")
            )
            lines.append(
                SummaryLine(
                    channel=channel,
                    recipient_type=recipient_type,
                    source=source,
                    approval=approval,
                    rejection=rejection,
                    pending=pending,
                    total=total,
                )
            )
    return tuple(lines)


def agreement_of(answer: Answer, day: date) -> Agreement:
    """Read how far the file of a day is."""
    what = "the agreement on a day"
    if answer.is_empty:
        return Agreement(day=day, state=AgreementState.ABSENT)
    body = _object(answer, what)
    try:
        state = AgreementState(_word(body.get("processStatus")))
    except ValueError:
        raise _strange(what) from None
    digest = _word(body.get("hashValue"))
    return Agreement(
        day=day,
        state=state,
        hash=digest if set(digest) <= _HASH_DIGITS else "",
        method=_text(body.get("hashMethod")),
        agreed=body.get("agreementStatus") is True,
    )


def agreed_of(answer: Answer) -> bool:
    """Say whether İYS took note of an agreement; it spells the name in two ways."""
    if answer.is_empty:
        return False
    body = _object(answer, "the agreement on a day")
    return True in (body.get("agreementCaptured"), body.get("aggrementCaptured"))


def pushes_of(answer: Answer) -> tuple[PushAddress, ...]:
    """Read where İYS pushes to."""
    what = "the push addresses"
    if answer.is_empty:
        return ()
    return tuple(
        PushAddress(
            url=_text(row.get("url")),
            channel=_channel(row.get("type"), what),
            is_good=_text(row.get("status")).strip() == CONNECTED,
            registered=_text(row.get("registerTime")),
        )
        for row in _objects(_list(answer, what), what)
    )


def _json(answer: Answer, what: str) -> object:
    if "json" not in answer.content_type:
        raise TransientFault(f"İYS answered {what} with something that is no JSON.", status=answer.status)
    try:
        # Not by msgspec: half of an emoji, cut off in a name, would make it refuse the page, each time again.
        text = answer.body.removeprefix(codecs.BOM_UTF8).decode()
        body: object = json.loads(text, parse_int=_whole_or_float, parse_constant=_no_number)
        return _whole_text(body) if "\\u" in text else body
    except (ValueError, RecursionError):
        raise TransientFault(f"İYS's answer to {what} cannot be read.", status=answer.status) from None


def _whole_text(value: object) -> object:
    """Put U+FFFD, which is in no address, for halves of characters, which nobody could write down again."""
    match value:
        case str():
            return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        case dict():
            return {_whole_text(key): _whole_text(inner) for key, inner in value.items()}
        case list():
            return [_whole_text(inner) for inner in value]
        case _:
            return value


def _whole_or_float(digits: str) -> int | float:
    return int(digits) if len(digits) <= _INT_DIGITS else float(digits)


def _no_number(name: str) -> object:
    raise ValueError(name)  # NaN and its kin are Python's, not JSON's


def _object(answer: Answer, what: str) -> dict[str, object]:
    body = _json(answer, what)
    if not isinstance(body, dict) or "errors" in body:
        raise _strange(what)
    return body


def _list(answer: Answer, what: str) -> object:
    """Read a list, alone or under `list`: İYS's document has both."""
    body = _json(answer, what)
    return body.get("list") if isinstance(body, dict) and "errors" not in body else body


def _objects(values: object, what: str) -> Sequence[Mapping[str, object]]:
    """Read a list of objects: of one that is none the others might be all, and are not taken for that."""
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise _strange(what)
    return values


def _nameless(row: dict[str, object]) -> dict[str, object]:
    """Drop the name of a person, however its key is written; and what is no plain value, as it might have one in it."""
    return {key: value for key, value in row.items() if not _names_a_person(key) and not isinstance(value, dict | list)}


def _names_a_person(key: str) -> bool:
    letters = filter(str.isalpha, key.casefold().replace("ı", "i"))
    return _NAME_OF_A_PERSON in "".join(letters)


def _code(value: object, most: int, what: str) -> int:
    """Read a code, which is a number or its digits."""
    code = _number(value)
    if code is None or not 1 <= code <= most:
        raise _strange(what)
    return code


def _whole(value: object, what: str) -> int:
    number = _number(value)
    if number is None or number < 0:
        raise _strange(what)
    return number


def _number(value: object) -> int | None:
    """Read a whole number or its digits; None where it is neither."""
    if isinstance(value, str) and value.isascii() and value.strip().isdigit() and len(value) <= _DIGITS_MAX:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _channel(value: object, what: str) -> Channel:
    found = Channel.__members__.get(_word(value).upper())
    if found is None:
        raise _strange(what)
    return found


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _word(value: object) -> str:
    """Read a word without regard to case; a truth value is one, too."""
    return str(value).lower() if isinstance(value, bool) else _text(value).strip().lower()


def _consents(stats: object) -> int | None:
    """Read how many consents İYS says there are; nothing is decided by that."""
    for name in ("consents", "total"):
        if isinstance(stats, list):
            stats = stats[0] if len(stats) == 1 else None
        stats = stats.get(name) if isinstance(stats, dict) else None
    return stats if isinstance(stats, int) and not isinstance(stats, bool) and stats >= 0 else None


def _strange(what: str) -> TransientFault:
    return TransientFault(f"İYS's answer to {what} is none that is known.")
