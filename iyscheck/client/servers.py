"""Each server behind a target by itself: where it is, what it tells of itself, and whether it says that it is fresh."""

import re
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

from iyscheck.client.health import FRESH, serves
from iyscheck.client.route import Route, Tls, host_of, is_ip
from iyscheck.client.sync import Client
from iyscheck.errors import ServiceError, ServiceUnavailableError, SettingsError
from iyscheck.question import ServerInfo

_AT_ONCE: Final = 16
_SCHEME: Final = re.compile(r"(?i)(?:dns:(?:///)?|ipv[46]:)")
_OTHER: Final = re.compile(r"(?i)(?:unix|unix-abstract|vsock|xds|google-c2p):")
_DNS_SERVER: Final = re.compile(r"(?i)dns://[^/]")
_PORT: Final = "443"
"""What gRPC takes where none is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundServer:
    """A server at `address`: what it tells of itself and whether it is `fresh`, or the `error` of not answering."""

    address: str
    info: ServerInfo | None = None
    fresh: bool = False
    error: ServiceError | None = None


def addresses_of(target: str) -> list[str]:
    """List where the servers of a target are, each once; names are looked up.

    Raises SettingsError for what is no target, and ServiceUnavailableError for a name that has no address.
    """
    address = Route(target).address.strip()
    if _OTHER.match(address):
        return [address]
    if _DNS_SERVER.match(address):
        raise SettingsError(
            "target", "names a server of DNS, which is not asked for each address.", fix="Give dns:///NAME:PORT."
        )
    found: dict[str, None] = {}
    for each in _SCHEME.sub("", address, count=1).split(","):
        server = each.strip()
        found |= dict.fromkeys([server] if is_ip(host_of(server)) else _looked_up(server))
    return list(found)


def _looked_up(server: str) -> list[str]:
    host = host_of(server)
    port = server.rpartition(":")[2] if host != server else _PORT
    try:
        rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ServiceUnavailableError(
            f"The name {host} has no address.", code="UNAVAILABLE", fix="Is it written rightly, and known to DNS here?"
        ) from None
    return [_spelled(str(row[4][0]), int(row[4][1])) for row in rows]


def _spelled(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def each_of(
    target: str, *, tls: Tls | None = None, api_key: str | None = None, insecure: bool = False, timeout_s: float
) -> list[FoundServer]:
    """Ask each server of a target, all at once. Raises what `addresses_of` does; who does not answer is in the list."""
    addresses = addresses_of(target)
    if tls is not None and tls.name is None:
        hosts = {host_of(_SCHEME.sub("", each.strip(), count=1)) for each in target.split(",")}
        name = next(iter(hosts)) if len(hosts) == 1 else None
        tls = replace(tls, name=None if name is None or is_ip(name) else name)
    routes = [Route(address, tls, api_key, insecure=insecure) for address in addresses]
    return _asked(routes, timeout_s)


def _asked(routes: Sequence[Route], timeout_s: float) -> list[FoundServer]:
    with ThreadPoolExecutor(min(len(routes), _AT_ONCE)) as pool:
        return list(pool.map(lambda route: _found(route, timeout_s), routes))


def _found(route: Route, timeout_s: float) -> FoundServer:
    try:
        with Client(route.target, tls=route.tls, api_key=route.api_key, insecure=route.insecure) as client:
            info = client.server_info(timeout_s=timeout_s)
        return FoundServer(address=route.target, info=info, fresh=_is_fresh(route, timeout_s))
    except ServiceError as error:
        return FoundServer(address=route.target, error=error)


def _is_fresh(route: Route, timeout_s: float) -> bool:
    try:
        return serves(route, FRESH, timeout_s=timeout_s)
    except ServiceError as error:
        if error.code in ("NOT_FOUND", "UNIMPLEMENTED"):  # an older one, which knows nothing of freshness
            return False
        raise
