"""Calls as the tests of the ledger make them: without clients, sockets or time."""

from dataclasses import dataclass, field

from iyscheck.change import Position
from iyscheck.client.batching.ledger import Frame, Key
from iyscheck.consent import Channel, MessageClass, RecipientType


@dataclass(eq=False)
class Caller:
    """Somebody who waits, and every outcome that was given for the call."""

    key: Key
    recipient: str
    deadline: float
    outcomes: list[str] = field(default_factory=list)
    left: bool = False

    def done(self) -> bool:
        """Over, or gone away."""
        return self.left or bool(self.outcomes)


def key_of(number: int) -> Key:
    """Keys that differ in one field each."""
    base: Key = (1, Channel.MESAJ, RecipientType.BIREYSEL, MessageClass.COMMERCIAL, None, None, None)
    others: dict[int, tuple[int, object]] = {
        1: (0, 2),
        2: (1, Channel.ARAMA),
        3: (2, RecipientType.TACIR),
        4: (3, MessageClass.DELIVERY),
        5: (4, 66),
        6: (5, Position(bytes(16), 3)),
        7: (6, bytes(8)),
    }
    if number not in others:
        return base
    place, value = others[number]
    return (*base[:place], value, *base[place + 1 :])  # type: ignore[return-value] # as long as the base


def served(frame: Frame[Caller]) -> list[str]:
    """What a server answers: for each recipient its own question."""
    answers = []
    for call, recipients in frame.parts:
        context = call.context
        shared = (
            context.brand,
            context.channel,
            context.recipient_type,
            context.message_class,
            context.retailer,
            call.min_position,
            call.address_key_id,
        )
        answers += [f"{shared} {recipient!r}" for recipient in recipients]
    return answers
