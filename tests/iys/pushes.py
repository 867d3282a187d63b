"""Push addresses that were registered with the fake, and what was sent to them."""

from dataclasses import dataclass, field

GOOD = "Bağlantı Oluşturuldu"
BAD = "Bağlantı Oluşturulamadı"


@dataclass(slots=True, kw_only=True)
class Registered:
    """An address, for one brand and channel."""

    iys_code: int
    brand: int
    channel: str
    url: str
    username: str
    password: str = field(repr=False)
    is_good: bool = True
    registered: str = ""
    pushed_until: int = 0
    """How many of the movements were looked at for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What was sent to an address: `status` is that of HTTP, 0 where nothing came back in time."""

    url: str
    brand: int
    rows: int
    status: int


@dataclass(slots=True)
class Pushes:
    """All addresses."""

    registered: list[Registered] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)

    def of(self, iys_code: int, brand: int, channel: str | None = None) -> list[Registered]:
        """Give the addresses of a brand."""
        return [
            r for r in self.registered if (r.iys_code, r.brand) == (iys_code, brand) and channel in {None, r.channel}
        ]
