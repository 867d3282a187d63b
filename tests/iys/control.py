"""The fake driven from another process: `POST /__fake__/NAME` with the arguments as JSON calls the method NAME."""

import urllib.request
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

import msgspec

from tests.iys.accounts import Account, Managed
from tests.iys.answers import Answer, said
from tests.iys.faults import Fault
from tests.iys.movements import Movement

if TYPE_CHECKING:
    from tests.iys.fake import FakeIys

CALLS = frozenset(
    {
        "add_brand",
        "advance",
        "asked",
        "break_push",
        "clear_plans",
        "expire_tokens",
        "forget_requests",
        "give_retailers",
        "integrator",
        "let_go",
        "lock_tokens",
        "move",
        "plan",
        "provider",
        "push_all",
        "remove_brand",
        "reset",
        "rights",
        "set_password",
        "set_quirks",
        "subscription",
        "tell_consents",
        "tell_day",
        "trust",
        "visible_rows",
    }
)
"""Methods of the fake that others may call."""

TYPES: Mapping[str, Any] = {
    "day": date,
    "fault": Fault,
    "manages": list[int | Managed],
    "silent": frozenset[str],
    "unlisted": frozenset[str],
}
"""Arguments that JSON has no form for."""

VALUES = frozenset({"agreed", "broken_limits", "now", "requests", "success", "tokens_locked_until_s"})
"""Properties that others may read."""


def answer(fake: "FakeIys", name: str, body: bytes) -> Answer:
    """Do what another process wants. Whatever goes wrong is told it with 400."""
    try:
        arguments = msgspec.json.decode(body or b"{}", type=dict[str, object])
        return said(_done(fake, name, arguments))
    except Exception as error:  # noqa: BLE001 - a test of another process is told of its mistakes, whatever they are
        return said({"error": f"{type(error).__name__}: {error}"}, 400)


def _done(fake: "FakeIys", name: str, arguments: dict[str, object]) -> object:
    if name in VALUES:
        return _told(getattr(fake, name))
    if name not in CALLS:
        raise ValueError(f"the fake has nothing called {name}")
    typed = {name: msgspec.convert(value, TYPES.get(name, object)) for name, value in arguments.items()}
    return _told(getattr(fake, name)(**typed))


def _told(value: object) -> object:
    """Make what a call gave ready for JSON: accounts without their passwords, movements as their rows."""
    if isinstance(value, Account):
        return value.username
    if isinstance(value, Movement):
        return {"number": value.number, "registered_s": value.registered_s, "row": dict(value.row)}
    if isinstance(value, tuple | list):
        return [_told(one) for one in value]
    return msgspec.to_builtins(value)


class RemoteFake:
    """A fake in another process, driven by its address."""

    def __init__(self, url: str) -> None:
        self.url = url

    def do(self, name: str, **arguments: object) -> object:
        """Call a method of the fake, or read a value of it. Raises urllib.error.HTTPError."""
        request = urllib.request.Request(  # noqa: S310 - an address of this machine
            f"{self.url}/__fake__/{name}", msgspec.json.encode(arguments), method="POST"
        )
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - the same
            answered: object = msgspec.json.decode(response.read())
        return answered
