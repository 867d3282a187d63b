"""What may be asked of İYS, as one account. Source: İYS API 3.2.0 of 25 February 2026."""

import os
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Final

from iyscheck.consent import Channel, RecipientType
from loader.iys import decoding
from loader.iys.failures import CLOSED, NO_SUBSCRIPTION
from loader.iys.faults import AuthFailedFault, ForbiddenFault, RefusedFault, TransientFault
from loader.iys.limits import FILE_MODE
from loader.iys.messages import (
    Agreement,
    FeedSource,
    ListedBrand,
    Page,
    PushAddress,
    Subscription,
    SubscriptionState,
    SummaryLine,
)
from loader.iys.tokens import Tokens
from loader.iys.transport import MOST_BYTES, Answer, Request, Transport

MOST_LISTED: Final = 100
"""Brands on a page of an integrator's listing."""
MOST_FILE_BYTES: Final = 8 * 2**30
"""Of a day's file: 40 million movements."""
_CSV: Final = frozenset({"text/csv", "application/csv", "text/plain", "application/octet-stream"})


class Iys:
    """İYS as an account sees it. May be used by several threads. Everything raises kinds of IysFault."""

    def __init__(self, transport: Transport, tokens: Tokens) -> None:
        self._transport = transport
        self._tokens = tokens

    def is_barred(self) -> bool:
        """Say whether the account cannot be used until somebody does something about it."""
        return self._tokens.failed()

    def changes(self, iys_code: int, brand: int, source: FeedSource, *, after: str | None, limit: int) -> Page:
        """Return a page of a brand's changes behind a cursor, or from where İYS's window begins."""
        query = {"source": source.value, "limit": str(limit)}
        if after is not None:
            query["after"] = after
        path = f"{_brand(iys_code, brand)}/consents/changes"
        return decoding.page_of(self._get(path, "changes", query))

    def brands(self, iys_code: int) -> tuple[ListedBrand, ...]:
        """Return all brands of a provider."""
        return decoding.brands_of(self._get(f"/sps/{iys_code}/brands", "brands"), iys_code)

    def providers(self, integrator: int) -> tuple[ListedBrand, ...]:
        """Return all brands that an integrator serves; raises TransientFault where the listing is not complete."""
        found: dict[tuple[int, int], ListedBrand] = {}
        total, offset = 1, 0
        while offset < total:
            query = {"offset": str(offset), "limit": str(MOST_LISTED)}
            page = decoding.listed_of(self._get(f"/integrator/{integrator}/sps", "brands", query))
            if (offset and page.total != total) or (not page.brands and page.total > offset):
                raise TransientFault("İYS's listing of brands changed while it was read.")
            found |= {(brand.iys_code, brand.brand): brand for brand in page.brands}
            total, offset = page.total, offset + len(page.brands)
            if len(found) != offset:
                raise TransientFault("İYS's listing of brands has one twice.")
        if offset != total:
            raise TransientFault("İYS's listing of brands is not complete.")
        return tuple(found.values())

    def subscription(self, iys_code: int) -> Subscription:
        """Return a provider's subscription."""
        return self._subscription(f"/sps/{iys_code}/subscription")

    def integrator_subscription(self, code: int) -> Subscription:
        """Return an integrator's own subscription."""
        return self._subscription(f"/integrator/{code}/subscription")

    def summary(self, iys_code: int, brand: int, day: date, recipient_type: RecipientType) -> tuple[SummaryLine, ...]:
        """Return what İYS counted of a day."""
        path = f"{_brand(iys_code, brand)}/changes/{day}/recipients/{recipient_type.name}"
        return decoding.summary_of(self._get(path, "the counts of a day"), recipient_type)

    def agreement(self, iys_code: int, brand: int, day: date) -> Agreement:
        """Say how far the file of a day is."""
        path = f"{_brand(iys_code, brand)}/agreements/{day}"
        return decoding.agreement_of(self._get(path, "the agreement on a day"), day)

    def agree(self, iys_code: int, brand: int, day: date) -> bool:
        """Agree to a day, which cannot be undone; say whether İYS took note."""
        path = f"{_brand(iys_code, brand)}/agreements/{day}"
        what = "to agree on a day"
        return decoding.agreed_of(self._asked("PUT", path, what, body={"agreementStatus": True}))

    def day_file(self, iys_code: int, brand: int, day: date, into: Path) -> bool:
        """Fetch the file of a day; say whether there is one. It is there whole, or not at all, readable by its owner.

        Raises OSError where it cannot be written.
        """
        part = into.with_name(into.name + ".part")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            with os.fdopen(os.open(part, flags, FILE_MODE), "wb") as file:
                os.fchmod(file.fileno(), FILE_MODE)  # one that was there already may be open to others

                def from_the_beginning() -> Callable[[bytes], object]:
                    file.seek(0)
                    file.truncate()
                    return file.write

                path = f"{_brand(iys_code, brand)}/changes/{day}/file"
                what = "the file of a day"
                answer = self._asked("GET", path, what, most=MOST_FILE_BYTES, into=from_the_beginning)
                if answer.is_empty:
                    return False
                if answer.content_type not in _CSV:
                    raise TransientFault("İYS answered the file of a day with something that is none.")
                file.flush()
                os.fsync(file.fileno())
            part.rename(into)
        finally:
            part.unlink(missing_ok=True)
        return True

    def timestamp(self, iys_code: int, brand: int, day: date) -> bytes | None:
        """Fetch the time stamp of a day's file, as İYS sends it; None where there is none."""
        answer = self._get(f"{_brand(iys_code, brand)}/agreements/{day}/timestamp", "the time stamp of a day")
        return None if answer.is_empty or not answer.body else answer.body

    def register_push(
        self, iys_code: int, brand: int, url: str, channel: Channel, username: str, password: str
    ) -> None:
        """Have a channel's changes by citizens pushed to an address, which has to answer now."""
        connection = {"url": url, "type": channel.name, "username": username, "password": password}
        path = f"{_brand(iys_code, brand)}/push/registration"
        self._asked("POST", path, "the registration of a push", body={"connection": [connection]})

    def pushes(self, iys_code: int, brand: int) -> tuple[PushAddress, ...]:
        """Return where İYS pushes a brand's changes."""
        return decoding.pushes_of(self._get(f"{_brand(iys_code, brand)}/push/registration", "the push addresses"))

    def unregister_push(
        self, iys_code: int, brand: int, url: str, channel: Channel, username: str, password: str
    ) -> None:
        """Have nothing pushed to an address any more."""
        body = {"url": url, "type": channel.name, "username": username, "password": password}
        path = f"{_brand(iys_code, brand)}/push/unregistration"
        self._asked("POST", path, "the end of a push", body=body)

    def _subscription(self, path: str) -> Subscription:
        try:
            return decoding.subscription_of(self._get(path, "the subscription"))
        except (ForbiddenFault, RefusedFault) as fault:
            if fault.code == CLOSED:
                return Subscription(state=SubscriptionState.CLOSED)
            if fault.code in NO_SUBSCRIPTION:
                return Subscription(state=SubscriptionState.ABSENT)
            raise

    def _get(self, path: str, what: str, query: Mapping[str, str] | None = None) -> Answer:
        return self._asked("GET", path, what, query=query)

    def _asked(
        self,
        method: str,
        path: str,
        what: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        most: int = MOST_BYTES,
        into: Callable[[], Callable[[bytes], object]] | None = None,
    ) -> Answer:
        """Ask with a token; where İYS does not take it any more, once again with a new one. `into` begins the body."""
        source = (query or {}).get("source", "")
        request = Request(
            method=method,
            path=path,
            what=what,
            stream=f"{method} {path} {source}",
            query=query or {},
            body=body,
            most=most,
        )
        token = self._tokens.token()
        try:
            return self._transport.send(request, token=token, take=into and into())
        except AuthFailedFault:
            token = self._tokens.refused(token)
        try:
            return self._transport.send(request, token=token, take=into and into())
        except AuthFailedFault:
            self._tokens.bar(token)
            raise


def _brand(iys_code: int, brand: int) -> str:
    return f"/sps/{iys_code}/brands/{brand}"
