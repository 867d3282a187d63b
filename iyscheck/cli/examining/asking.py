"""What only asking shows: whose the ports are, how a server is, and whether its metrics can be read.

Nothing is asked but the addresses of the settings and the server that was named: never the internet, and no proxy.
"""

import http.client
import ssl
import time
from collections.abc import Iterator
from typing import NamedTuple

from iyscheck.cli.examining.here import Keys
from iyscheck.cli.examining.outcomes import Finding, Outcome
from iyscheck.client.health import FRESH, SERVICE, serves
from iyscheck.client.route import Route, Tls
from iyscheck.client.sync import Client
from iyscheck.engine.standing import fresh_between
from iyscheck.errors import ServiceError, SettingsError, StoreError
from iyscheck.question import ServerInfo
from iyscheck.server.addresses import is_unix
from iyscheck.server.processes.doors import Doors
from iyscheck.server.settings import Settings
from iyscheck.store import layout
from iyscheck.store.snapshot import Store

_NOBODY = "UNAVAILABLE"
_OURS = b"consent_"
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - what is asked instead


class Reach(NamedTuple):
    """How servers are reached. `server` is the one that was named, empty if none was."""

    server: str
    tls: Tls | None
    api_key: str | None
    timeout_s: float
    insecure: bool = False


def reachable(listen: str) -> str:
    """Say where a server that listens so can be asked on this machine."""
    if is_unix(listen):
        return listen
    host, _, port = listen.rpartition(":")
    return f"{_WILDCARDS.get(host, host)}:{port}"


def ports(settings: Settings, reach: Reach) -> Iterator[Finding]:
    """See whether the addresses are free, or taken by an iyscheck server."""
    for listen in settings.listen:
        if (error := _taken(listen)) is None:
            yield Finding(outcome=Outcome.PORT_FREE, facts={"port": listen})
        elif _is_ours(listen, reach):
            yield Finding(outcome=Outcome.PORT_OURS, facts={"port": listen})
        elif settings.serves_tls and (reach.tls is None or reach.tls.ca is None):
            yield Finding(outcome=Outcome.PORT_UNSURE, facts={"port": listen})
        else:
            yield Finding(outcome=Outcome.PORT_TAKEN, facts={"error": error})


def _is_ours(listen: str, reach: Reach) -> bool:
    """Say whether an iyscheck server answers there, by the address itself or by the name that was given for its port.

    A certificate holds for the name only.
    """
    targets = [reachable(listen)]
    if reach.server and reach.server.rpartition(":")[2] == listen.rpartition(":")[2]:
        targets.insert(0, reach.server)
    return any(_answers(_route(target, reach), reach.timeout_s) for target in targets)


def _taken(listen: str) -> str | None:
    """Say why a port cannot be taken; None if it can."""
    try:
        with Doors((listen,), waits=lambda _: None, patience_s=0.0):
            return None
    except SettingsError as error:
        return error.message


def _route(target: str, reach: Reach) -> Route:
    """Say how an address is asked: a unix socket speaks no TLS."""
    return Route(target, None if is_unix(target) else reach.tls, reach.api_key, insecure=reach.insecure)


def _answers(route: Route, timeout_s: float) -> bool:
    """Say whether what listens there is an iyscheck server, whatever it says of its health."""
    try:
        serves(route, SERVICE, timeout_s=timeout_s)
    except ServiceError:
        return False
    return True


def server(settings: Settings, keys: Keys, reach: Reach) -> Iterator[Finding]:
    """Ask a server how it is, and whether it has these keys."""
    target = reach.server or reachable(settings.listen[0])
    route = _route(target, reach)
    try:
        process = serves(route, "", timeout_s=reach.timeout_s)
        fresh = serves(route, FRESH, timeout_s=reach.timeout_s)
    except ServiceError as error:
        absent = not reach.server and error.code == _NOBODY
        outcome = Outcome.SERVER_ABSENT if absent else Outcome.SERVER_UNREACHABLE
        yield Finding(outcome=outcome, facts={"error": error.message if absent else str(error)})
        return
    yield Finding(outcome=Outcome.SERVER_SERVES if process else Outcome.SERVER_NOT_SERVING, facts={"server": target})
    if fresh:
        yield Finding(outcome=Outcome.SERVER_FRESH)
    with Client(target, tls=route.tls, api_key=reach.api_key, insecure=reach.insecure) as client:
        try:
            info = client.server_info(timeout_s=reach.timeout_s)
        except ServiceError as error:
            if not fresh:
                yield Finding(outcome=Outcome.SERVER_NOT_FRESH)
            yield Finding(outcome=Outcome.SERVER_SILENT, facts={"error": str(error)})
            return
    if not fresh:
        yield _why_not_fresh(info)
    pairs = ((keys.store_key_id, info.store_key_id), (keys.address_key_id, info.address_key_id))
    if any(own is not None and own != its for own, its in pairs):
        yield Finding(outcome=Outcome.SERVER_OTHER_KEYS, facts={"server": target})
        return
    log_id = _log_id(settings)
    if log_id is not None and log_id != info.position.log_id:
        yield Finding(outcome=Outcome.SERVER_OTHER_STORE, facts={"server": target})
        return
    facts = {"version": info.server_version, "kernel": info.kernel, "policy_id": info.policy.policy_id}
    yield Finding(outcome=Outcome.SERVER_KEYS_FIT, facts=facts)


def _why_not_fresh(info: ServerInfo) -> Finding:
    """Tell a replica that is behind, and answers, from a server that denies everything commercial."""
    earliest, latest = fresh_between(info.newest_watermark, info.policy)
    standing = info.standing
    is_stale = not earliest <= time.time() <= latest
    if is_stale or standing is None or standing.untrusted or standing.lag_s is None:
        return Finding(outcome=Outcome.SERVER_STALE)
    return Finding(outcome=Outcome.SERVER_BEHIND, facts={"lag": round(standing.lag_s, 1)})


def _log_id(settings: Settings) -> bytes | None:
    """Say which store the settings name; None where it cannot be opened, which is told elsewhere."""
    try:
        with Store.open(settings.store) as opened:
            return opened.meta(layout.META_LOG_ID)
    except StoreError:
        return None


def metrics(settings: Settings, reach: Reach) -> Iterator[Finding]:
    """Read the metrics, or see that nobody serves any."""
    if not settings.metrics_listen:
        yield Finding(outcome=Outcome.METRICS_OFF)
        return
    where = settings.metrics_listen
    error = _metrics_error(reachable(where), settings, reach)
    if error is None:
        yield Finding(outcome=Outcome.METRICS_READ, facts={"port": where})
        return
    taken = _taken(where)
    if _is_ours(settings.listen[0], reach):
        yield Finding(outcome=Outcome.METRICS_NOT_READ, facts={"port": where, "error": error})
    elif taken is None:
        yield Finding(outcome=Outcome.PORT_FREE, facts={"port": where})
    elif settings.serves_tls and (reach.tls is None or reach.tls.ca is None):
        yield Finding(outcome=Outcome.PORT_UNSURE, facts={"port": where})
    else:
        yield Finding(outcome=Outcome.PORT_TAKEN, facts={"error": taken.replace("listen:", "metrics_listen:", 1)})


def _metrics_error(where: str, settings: Settings, reach: Reach) -> str | None:
    """Say why metrics cannot be read; None if they can."""
    connection = _connection(where, settings, reach)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        if answer.status != http.client.OK or _OURS not in answer.read():
            return "what answers there is not iyscheck"
    except ssl.SSLError as error:
        return error.reason or "TLS failed"
    except OSError as error:
        return error.strerror or type(error).__name__
    except http.client.HTTPException as error:
        return type(error).__name__
    finally:
        connection.close()
    return None


def _connection(where: str, settings: Settings, reach: Reach) -> http.client.HTTPConnection:
    host, _, port = where.rpartition(":")
    host = host.strip("[]")
    if not settings.serves_tls:
        return http.client.HTTPConnection(host, int(port), timeout=reach.timeout_s)
    context = ssl.create_default_context(cafile=None if reach.tls is None else reach.tls.ca)
    if reach.tls is not None and reach.tls.cert is not None:
        context.load_cert_chain(reach.tls.cert, reach.tls.key)
    return http.client.HTTPSConnection(host, int(port), timeout=reach.timeout_s, context=context)
