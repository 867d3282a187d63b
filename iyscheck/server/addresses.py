"""Where a server may listen, as text: `HOST:PORT`, or `unix:PATH` for programs of the same machine."""

import ipaddress
import re
from pathlib import Path
from typing import Final

from iyscheck.errors import SettingsError

UNIX: Final = "unix:"
_ABSTRACT: Final = "unix-abstract:"
_HOST_AND_PORT: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+):([0-9]{1,5})")
_MAX_PORT: Final = 65_535
_MOST_PATH_BYTES: Final = 107
_PATH: Final = re.compile(r"[A-Za-z0-9/._~@+=-]+")
"""What gRPC's clients can name without a way to spell it."""


def host_and_port(text: str) -> str:
    """Return `text` if it is `HOST:PORT`. Raises ValueError."""
    found = _HOST_AND_PORT.fullmatch(text)
    if found is None or int(found[2]) > _MAX_PORT:
        raise ValueError("is not HOST:PORT, such as 127.0.0.1:50051")
    return text


def addresses(given: object, field: str = "listen") -> tuple[str, ...]:
    """Read one text or several, each with one address or several between commas. Raises ValueError, SettingsError."""
    texts = [given] if isinstance(given, str) else given or [""]
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise ValueError("is not a text, or several")
    found = tuple(_address(each.strip(), field) for text in texts for each in text.split(","))
    twice = [each for number, each in enumerate(found) if each in found[:number] and not each.endswith(":0")]
    if twice:
        raise SettingsError(field, f"{twice[0]} is there twice.", fix="Name each address once.")
    return found


def is_unix(address: str) -> bool:
    """Whether an address is that of a unix socket."""
    return address.startswith(UNIX)


def socket_path(address: str) -> Path:
    """Return the path of `unix:PATH`."""
    return Path(address.removeprefix(UNIX))


def is_near(address: str) -> bool:
    """Whether only programs of this machine reach an address."""
    if is_unix(address):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _address(text: str, field: str) -> str:
    if text.startswith(_ABSTRACT):
        raise SettingsError(
            field,
            f"{text} is an abstract socket, which has no mode: every user of this machine could connect.",
            fix="Name a file: unix:/run/iyscheck/socket.",
        )
    if not is_unix(text):
        try:
            return host_and_port(text)
        except ValueError:
            raise SettingsError(
                field,
                f"'{text}' is neither HOST:PORT nor unix:PATH.",
                fix="Write for example 127.0.0.1:50051 or unix:/run/iyscheck/socket.",
            ) from None
    path = text.removeprefix(UNIX)
    path = path.removeprefix("//") if path.startswith("///") else path
    if not _PATH.fullmatch(path) or path.startswith("//") or path.rpartition("/")[2] in ("", ".", ".."):
        raise SettingsError(
            field,
            f"{text} does not name a file that every client can name.",
            fix="Use letters a to z, digits and / . _ - only, as in unix:/run/iyscheck/socket.",
        )
    if len(path) > _MOST_PATH_BYTES:
        raise SettingsError(
            field,
            f"the path of {text} has {len(path)} bytes, and the name of a socket may have {_MOST_PATH_BYTES}.",
            fix="Choose a shorter one, as /run/iyscheck/socket.",
        )
    return f"{UNIX}{path}"
