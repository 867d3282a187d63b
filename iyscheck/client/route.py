"""How a client reaches its server: where it is, over TLS or not, and what it shows of itself."""

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc
import grpc.aio

from iyscheck.errors import SettingsError

_MOST_BYTES: Final = 1024 * 1024
_SCHEME: Final = re.compile(r"^(?i:dns:(?:///)?|ipv[46]:)")
_LISTS: Final = re.compile(r"(?i:dns:|ipv[46]:.*,)")
"""What may be several servers: a name that is said to be one of DNS, or a list."""
_SCHEMED: Final = re.compile(r"(?i:dns|ipv[46]|unix|unix-abstract|vsock|xds|google-c2p):")
_PATHED: Final = re.compile(r"(?i:unix|unix-abstract):")
_COMMA: Final = re.compile(r"\s*,\s*")
_BETWEEN: Final = re.compile(r"[;\s]")
"""What people put between servers, and no server has."""
_PORT: Final = re.compile(r":[0-9]*")
_WITH_PORT: Final = re.compile(r"(?:[0-9.]+|\[[^\]]+\]):[0-9]+")
_IPV6: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """TLS to a server: files in PEM.

    `ca` holds the certificates of the CA that issued the server's; without it those of the system count. `cert` and
    `key` are a certificate of the client's own and its key, for servers that demand one. `name` is what the server's
    certificate must be issued for, where that is not the host of the target.
    """

    ca: str | os.PathLike[str] | None = None
    cert: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise SettingsError(
                "tls", "a client certificate needs its key, and a key its certificate.", fix="Give both, or neither."
            )

    @property
    def options(self) -> tuple[tuple[str, object], ...]:
        """What else a channel has to know."""
        return () if self.name is None else (("grpc.ssl_target_name_override", self.name),)

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files. Raises SettingsError, which names the one that is not what it should be.

        gRPC says of such a file only that it cannot connect.
        """
        from iyscheck.certificates import certificates_in, chain_in, ensure_pair, key_in
        from iyscheck.keys import read_private

        secret = None
        if self.ca is not None:
            certificates_in("tls.ca", Path(self.ca))
        if self.cert is not None and self.key is not None:
            cert, key = Path(self.cert), Path(self.key)
            leaf = chain_in("tls.cert", cert, "client's")[0]
            ensure_pair("tls.key", key, key_in("tls.key", key, _read("key", key) or b""), cert, leaf)
            secret = read_private("tls.key", key, _MOST_BYTES)  # last: what is no key may well be open to all
        return grpc.ssl_channel_credentials(_read("ca", self.ca), secret, _read("cert", self.cert))


@dataclass(frozen=True, slots=True)
class Route:
    """Where a server is and how it is reached. `metadata` goes with each call; the key in it is in no text of this.

    A key in plain text stays on this machine, unless `insecure` lets it go over a network. `address` is what gRPC is
    given for the target. `several` says that there may be more than one server behind it.
    """

    target: str
    tls: Tls | None = None
    api_key: str | None = field(default=None, repr=False)
    insecure: bool = field(default=False, kw_only=True)
    metadata: tuple[tuple[str, str], ...] | None = field(init=False, repr=False, compare=False)
    address: str = field(init=False, repr=False, compare=False)
    several: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.target.strip():
            raise SettingsError("target", "is empty.", fix="Name the server as HOST:PORT or unix:PATH.")
        object.__setattr__(self, "address", _address_of(self.target))
        object.__setattr__(self, "several", not is_one_address(self.address) and _LISTS.match(self.address) is not None)
        if self.api_key is not None:
            self._ensure_key_may_go(self.api_key)
        shown = None if self.api_key is None else (("authorization", f"Bearer {self.api_key}"),)
        object.__setattr__(self, "metadata", shown)

    def _ensure_key_may_go(self, key: str) -> None:
        from iyscheck.callers.identity import is_key

        if not is_key(key):
            raise SettingsError(
                "api_key",
                "is not of the form iys1_<id>_<key>.",
                fix="Give the key itself, as `iyscheck callers new-key` printed it: no path, no `Bearer`, no line end.",
            )
        if self.tls is None and not self.insecure and not is_near(self.target):
            raise SettingsError(
                "api_key",
                f"would go to {self.target} in plain text, and the network could read it.",
                fix="Encrypt (Tls(ca=...), --tls-ca), or give insecure=True (--insecure) in a network that you trust.",
            )

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Read the files of TLS; None without it. Raises SettingsError."""
        return None if self.tls is None else self.tls.credentials()

    def channel(
        self, options: Sequence[tuple[str, object]], credentials: grpc.ChannelCredentials | None = None
    ) -> grpc.Channel:
        """Open a channel for threads, with these credentials or those of the files now. Raises SettingsError."""
        if self.tls is None:
            return grpc.insecure_channel(self.address, options=options)
        credentials = credentials or self.tls.credentials()
        return grpc.secure_channel(self.address, credentials, options=(*options, *self.tls.options))

    def tasks_channel(
        self, options: Sequence[tuple[str, object]], credentials: grpc.ChannelCredentials | None = None
    ) -> grpc.aio.Channel:
        """Open a channel for asyncio in the same way. Raises SettingsError."""
        if self.tls is None:
            return grpc.aio.insecure_channel(self.address, options=options)
        credentials = credentials or self.tls.credentials()
        return grpc.aio.secure_channel(self.address, credentials, options=(*options, *self.tls.options))


def is_near(target: str) -> bool:
    """Whether a target is surely on this machine, in any form that gRPC takes. No name is looked up."""
    if target.lower().startswith(("unix:", "unix-abstract:")):
        return True
    return all(_is_near_host(each.strip()) for each in _SCHEME.sub("", target.strip(), count=1).split(","))


def is_one_address(target: str) -> bool:
    """Whether a target is surely one address, and no name that may have several."""
    if target.lower().startswith(("unix:", "unix-abstract:")):
        return True
    return _ip_of(host_of(_SCHEME.sub("", target.strip(), count=1))) is not None


def _address_of(target: str) -> str:
    """Spell a target as gRPC takes it: a list of IP addresses needs its scheme. Raises SettingsError."""
    if _BETWEEN.search(_COMMA.sub(",", target.strip())) and not _PATHED.match(target.strip()):
        raise SettingsError(
            "target",
            f"is {target.strip()!r}, and no HOST:PORT.",
            fix="Between several IP addresses stand commas: 10.0.0.1:50051,10.0.0.2:50051.",
        )
    if "," not in target or _SCHEMED.match(target.strip()):
        return target
    servers = [each.strip() for each in target.split(",")]
    versions = set()
    for server in servers:
        ip = _ip_of(host_of(server))
        if ip is None:
            raise SettingsError(
                "target",
                f"is a list, and {server or 'one of its places'} is no IP address with a port.",
                fix="Give one name that has the addresses of all servers as dns:///NAME:PORT, "
                "or list IP addresses: 10.0.0.1:50051,10.0.0.2:50051.",
            )
        if not _WITH_PORT.fullmatch(server):
            raise SettingsError("target", f"is a list, and {server} lacks its port.", fix=f"Give {_example(ip)}.")
        versions.add(ip.version)
    if len(versions) > 1:
        raise SettingsError(
            "target",
            "is a list of IPv4 and IPv6 addresses.",
            fix="List addresses of one kind, or give a name that has all of them as dns:///NAME:PORT.",
        )
    return f"ipv{versions.pop()}:{','.join(servers)}"


def _example(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    return f"[{ip}]:50051" if ip.version == _IPV6 else f"{ip}:50051"


def _is_near_host(text: str) -> bool:
    host = host_of(text)
    ip = _ip_of(host)
    return host.lower() == "localhost" or (ip is not None and ip.is_loopback)


def host_of(text: str) -> str:
    """Cut the port off HOST:PORT, and the brackets off an IPv6 address."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        return text if port and not _PORT.fullmatch(port) else host
    return text.partition(":")[0] if text.count(":") == 1 else text


def is_ip(host: str) -> bool:
    """Whether a host is an IP address."""
    return _ip_of(host) is not None


def _ip_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _read(name: str, path: str | os.PathLike[str] | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"tls.{name}", f"{path} cannot be read: {error.strerror}.") from None
