"""What a caller may ask: pure functions over a `Caller`, the same answer whatever the store holds.

A call is held to `ensure_call` before its bytes are read. Each question, and each frame with its one brand, channel
and message class, is held to `ensure_question`.

Exempt messages pass all that a question is held to, for any known caller: a one-time password must not wait for a
brand list. Plaintext too: it has arrived already, nobody is looked up by it, and a sender that lost its address key
can still send the password. The rule of calls stays, because it is about programs, not messages.
"""

from dataclasses import dataclass, field
from typing import Final, Literal, Self, TypeAlias, get_args

from iyscheck.consent import Channel, MessageClass
from iyscheck.errors import (
    AddressesNotAllowedError,
    BrandNotInScopeError,
    CallNotAllowedError,
    ChannelNotInScopeError,
)

CallName: TypeAlias = Literal["check", "batch", "frame", "stream", "info", "explain", "console", "admin"]
"""What a caller can be allowed: plain texts, which are found in a set in a third of the time of an enum's member."""

CALL_NAMES: Final[tuple[CallName, ...]] = get_args(CallName)
DEFAULT_CALLS: Final[frozenset[CallName]] = frozenset({"check", "batch", "frame", "stream", "info"})
"""The calls of whoever asks; the others are had by name only."""

ALL_CHANNELS: Final = frozenset(Channel)
_COMMERCIAL: Final = MessageClass.COMMERCIAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who may ask what, and how much. The name may stand in logs and metrics.

    `brands` None: all. `addresses`: plaintext is answered, too. `rate`: recipients a second; None: no limit.
    `streams`: how many may be open at once; None: as many as the server takes.
    """

    name: str
    brands: frozenset[int] | None
    channels: frozenset[Channel] = ALL_CHANNELS
    calls: frozenset[CallName] = DEFAULT_CALLS
    addresses: bool = False
    rate: int | None = None
    streams: int | None = None
    channel_bits: int = field(init=False, repr=False, compare=False)
    """The channels once more, by their numbers: a set hashes each enum in Python, as long as all the rest takes."""
    recipient_s: float | None = field(init=False, repr=False, compare=False)
    """How much of the caller's time a recipient takes, in seconds; None: none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "channel_bits", sum(1 << channel for channel in self.channels))
        object.__setattr__(self, "recipient_s", None if self.rate is None else 1 / self.rate)

    @classmethod
    def unlimited(cls, name: str) -> Self:
        """Make the caller of a server without a callers file: everything is allowed."""
        return cls(name=name, brands=None, calls=frozenset(CALL_NAMES), addresses=True)


def ensure_call(caller: Caller, call: str) -> None:
    """Hold a call to the caller's scope. Raises CallNotAllowedError."""
    if call not in caller.calls:
        raise CallNotAllowedError(
            f"Caller {caller.name} may not make this call ({call}).",
            fix="Ask the operator to list it under `calls` in the callers file.",
        )


def ensure_question(
    caller: Caller, brand: int, channel: Channel, message_class: MessageClass, *, plaintext: bool
) -> None:
    """Hold one question, or one frame, to the caller's scope; the first rule that is broken is told.

    Raises BrandNotInScopeError, ChannelNotInScopeError, AddressesNotAllowedError.
    """
    if message_class is not _COMMERCIAL and isinstance(message_class, MessageClass):
        return  # a plain number is held to the scope, also one that equals an exempt class
    brands = caller.brands
    if brands is not None and brand not in brands:
        raise BrandNotInScopeError(
            f"Caller {caller.name} may not ask about brand {brand:d}.",
            fix="Ask the operator to list it under `brands` in the callers file.",
        )
    if not caller.channel_bits >> channel & 1:
        raise ChannelNotInScopeError(
            f"Caller {caller.name} may not ask about this channel ({Channel(channel).name}).",
            fix="Ask the operator to list it under `channels` in the callers file.",
        )
    if plaintext and not caller.addresses:
        raise AddressesNotAllowedError(
            f"Caller {caller.name} may not send plaintext addresses.",
            fix="Send tokens: give the client the address key. Or ask the operator for `addresses = true`.",
        )
