"""One question or more for each reason that the default policy can give."""

from dataclasses import dataclass

import numpy as np

from bench.population.brands import Brand, Cast
from bench.population.consents import Book
from bench.population.people import People
from iyscheck.consent import Channel, MessageClass, Reason, RecipientType


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A question, the reason that the default policy gives after the first feed or any change, and why."""

    brand: int
    channel: Channel
    recipient_type: RecipientType
    message_class: MessageClass
    retailer: int | None
    address: str
    reason: Reason
    story: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """A recipient to whom a wave of changes turns CONSENTED into REFUSED."""

    brand: int
    channel: Channel
    recipient_type: RecipientType
    address: str


class Examples:
    """Finds the questions. They ask about consents that no change ever touches, and about a stranger."""

    def __init__(self, brands: tuple[Brand, ...], book: Book, people: People) -> None:
        self._brands = brands
        self._cast = Cast.of(len(brands))
        self._book = book
        self._people = people

    def all(self) -> tuple[Example, ...]:
        """Return the examples in the order of the rule."""
        return (*self._about_the_question(), *self._about_the_brand(), *self._about_the_record())

    def _about_the_question(self) -> tuple[Example, ...]:
        refused = self._scripted("refused")
        code = MessageClass.SECURITY_CODE
        email = "ayse.yilmaz@example.com"
        return (
            self._ask(refused, Reason.EXEMPT_MESSAGE, "a one-time password to somebody who refused", declared=code),
            self._ask("0532 123 45 6", Reason.INVALID_ADDRESS, "a number with a digit missing"),
            self._ask(email, Reason.INVALID_ADDRESS, "an e-mail on the SMS channel"),
        )

    def _about_the_brand(self) -> tuple[Example, ...]:
        cast, somebody = self._cast, self._scripted("consented")
        parts = (
            (cast.unregistered, Reason.BRAND_NOT_REGISTERED, "a brand code that nobody registered"),
            (cast.inactive, Reason.BRAND_INACTIVE, "a brand that was closed"),
            (cast.unauthorised, Reason.BRAND_INACTIVE, "a brand that may not send SMS"),
            (cast.old_watermark, Reason.DATA_STALE, "a brand whose data is 40 hours old"),
            (cast.no_watermark, Reason.DATA_STALE, "a brand whose data was never said to be complete"),
        )
        return tuple(self._ask(somebody, reason, story, brand=brand) for brand, reason, story in parts)

    def _about_the_record(self) -> tuple[Example, ...]:
        own, flagship = self._cast.own_deadline, self._brands[self._cast.flagship]
        in_list, not_in_list = flagship.retailers[0], flagship.retailers[-1]
        spring_2021 = "too late for a large sender"
        consented, listed, stranger = self._scripted("consented"), self._scripted("with retailers"), self._stranger()
        early, spring = self._scripted("too late"), self._scripted(spring_2021)
        spring_of_own = self._scripted(spring_2021, brand=own)
        merchant, no = RecipientType.TACIR, Reason.RETAILER_NOT_AUTHORISED
        return (
            self._ask(self._scripted("odd status"), Reason.STATUS_UNKNOWN, "a status that İYS has not"),
            self._ask(self._scripted("refused"), Reason.REFUSED, "an individual who refused"),
            self._ask(early, Reason.REGISTERED_TOO_LATE, "a consent of 2019, registered in July 2021"),
            self._ask(spring_of_own, Reason.REGISTERED_TOO_LATE, "one of March 2021, deadline 2020", brand=own),
            self._ask(spring, Reason.CONSENTED, "the same at a brand whose deadline was May 2021"),
            self._ask(listed, no, "a retailer that the access list lacks", retailer=not_in_list),
            self._ask(consented, no, "a retailer where there is no access list", retailer=in_list),
            self._ask(listed, Reason.CONSENTED, "a retailer of the access list", retailer=in_list),
            self._ask(consented, Reason.CONSENTED, "an individual who consented"),
            self._ask(stranger, Reason.MERCHANT_NOT_REFUSED, "a merchant without a record", kind=merchant),
            self._ask(stranger, Reason.NO_CONSENT, "an individual without a record"),
        )

    def _scripted(self, script: str, *, brand: int = 0) -> str:
        number = self._book.scripted(brand, script)
        person = self._book.consents(np.array([number], np.int64)).person
        return self._people.addresses(Channel.MESAJ, person)[0]

    def _stranger(self) -> str:
        return self._people.addresses(Channel.MESAJ, np.array([self._book.people], np.int64))[0]

    def _ask(
        self,
        address: str,
        reason: Reason,
        story: str,
        *,
        brand: int = 0,
        kind: RecipientType = RecipientType.BIREYSEL,
        declared: MessageClass = MessageClass.COMMERCIAL,
        retailer: int | None = None,
    ) -> Example:
        return Example(
            brand=self._brands[brand].code,
            channel=Channel.MESAJ,
            recipient_type=kind,
            message_class=declared,
            retailer=retailer,
            address=address,
            reason=reason,
            story=story,
        )
