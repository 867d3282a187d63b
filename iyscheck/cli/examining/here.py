"""What can be seen without asking a server: keys, store, data, clock, kernel, certificates, callers."""

import ipaddress
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import SystemRandom
from typing import Final

from cryptography import x509

from iyscheck.callers.file import read as read_callers
from iyscheck.cli.examining.outcomes import Finding, Outcome
from iyscheck.errors import CallersFileError, KeyFileError, SettingsError, StoreCorruptError, StoreError, StoreKeysError
from iyscheck.kernel import Kernel
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.server.addresses import is_near, is_unix
from iyscheck.server.fronts.following import MOST_LAG_S
from iyscheck.server.settings import Settings
from iyscheck.server.tls import read as read_pair
from iyscheck.store import layout
from iyscheck.store.acknowledged import is_primary_no_more
from iyscheck.store.snapshot import Snapshot, Store
from iyscheck.store.verification import verify_sample
from iyscheck.times import duration_text, rfc3339

AHEAD_S: Final = 300
"""How far a watermark may be ahead of the clock (decision 12)."""
ENDS_SOON: Final = timedelta(days=14)
_FULL_BYTES: Final = 64 * 1024 * 1024
_SHORT_SHARE: Final = 0.5
_MANY_READERS: Final = 0.8
_DATA_FILE: Final = "data.mdb"


class Keys:
    """The keys that could be read."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.store_key_id: bytes | None = None
        self.address_key_id: bytes | None = None

    def findings(self) -> Iterator[Finding]:
        """Read both files."""
        try:
            self.store_key_id = StoreKey.load(self._settings.store_key).key_id
        except KeyFileError as error:
            yield Finding(outcome=Outcome.STORE_KEY_BAD, facts={"error": str(error)})
        else:
            yield _key(Outcome.STORE_KEY_GOOD, self.store_key_id, self._settings.store_key)
        if self._settings.address_key is None:
            yield Finding(outcome=Outcome.ADDRESS_KEY_NONE)
            return
        try:
            self.address_key_id = AddressKey.load(self._settings.address_key).key_id
        except KeyFileError as error:
            yield Finding(outcome=Outcome.ADDRESS_KEY_BAD, facts={"error": str(error)})
        else:
            yield _key(Outcome.ADDRESS_KEY_GOOD, self.address_key_id, self._settings.address_key)


def _key(outcome: Outcome, key_id: bytes, file: object) -> Finding:
    return Finding(outcome=outcome, facts={"key_id": key_id.hex(), "file": str(file)})


def store(settings: Settings, keys: Keys) -> Iterator[Finding]:
    """Look at the store and at what it holds."""
    try:
        opened = Store.open(settings.store)
    except StoreError as error:
        yield Finding(outcome=Outcome.STORE_NOT_OPEN, facts={"error": str(error)})
        return
    with opened:
        try:
            yield from _store(opened, settings, keys)
        except StoreCorruptError as error:
            yield Finding(outcome=Outcome.SAMPLE_DAMAGED, facts={"faults": error.message.rstrip(".")})
        except StoreError as error:
            yield Finding(outcome=Outcome.STORE_NOT_OPEN, facts={"error": str(error)})


def _store(opened: Store, settings: Settings, keys: Keys) -> Iterator[Finding]:
    stats = opened.stats()
    version = layout.decode_number(opened.meta(layout.META_FORMAT))
    yield Finding(outcome=Outcome.STORE_OPEN, facts={"format": version, "records": stats.records})
    if version < layout.FORMAT_VERSION:
        yield Finding(outcome=Outcome.FORMAT_OLDER, facts={"format": version, "newest": layout.FORMAT_VERSION})
    yield from _fitting(settings, keys)
    found = verify_sample(opened, SystemRandom())
    if found.faults:
        yield Finding(outcome=Outcome.SAMPLE_DAMAGED, facts={"faults": "; ".join(found.faults)})
    else:
        yield Finding(outcome=Outcome.SAMPLE_WHOLE, facts={"records": found.records})
    yield _disk(settings, stats.size_bytes)
    many = stats.readers > _MANY_READERS * stats.max_readers
    facts = {"readers": stats.readers, "most": stats.max_readers}
    yield Finding(outcome=Outcome.READERS_MANY if many else Outcome.READERS_FEW, facts=facts)
    with opened.snapshot() as snapshot:
        if snapshot.index_state() is None:
            yield Finding(outcome=Outcome.INDEX_MISSING)
        yield from _log(snapshot, settings.store)
        yield from _data(snapshot, settings)


def _log(snapshot: Snapshot, store: Path) -> Iterator[Finding]:
    """Say how the store stands in its log, if it is in one."""
    state = snapshot.log
    if state is None:
        return
    facts: dict[str, object] = {"term": state.term, "batch": state.batch}
    if state.role == layout.PRIMARY:
        outcome = Outcome.PRIMARY_NO_MORE if is_primary_no_more(store) else Outcome.PRIMARY_OF_LOG
        yield Finding(outcome=outcome, facts=facts)
        return
    lag_s = max(0.0, time.time() - state.created_ms / 1000)
    outcome = Outcome.REPLICA_FOLLOWS if lag_s < MOST_LAG_S else Outcome.REPLICA_LAGS
    yield Finding(outcome=outcome, facts=facts | {"lag": round(lag_s, 1)})
    if state.untrusted:
        yield Finding(outcome=Outcome.REPLICA_UNTRUSTED, facts={"reason": state.untrusted})


def _fitting(settings: Settings, keys: Keys) -> Iterator[Finding]:
    if keys.store_key_id is None and keys.address_key_id is None:
        return
    try:
        Store.open(settings.store, address_key_id=keys.address_key_id, store_key_id=keys.store_key_id).close()
    except StoreKeysError as error:
        yield Finding(outcome=Outcome.KEYS_OF_ANOTHER, facts={"error": str(error)})
    else:
        yield Finding(outcome=Outcome.KEYS_FIT)


def _disk(settings: Settings, size: int) -> Finding:
    free = shutil.disk_usage(settings.store).free
    outcome = Outcome.DISK_ENOUGH
    if free < _FULL_BYTES:
        outcome = Outcome.DISK_FULL
    elif free < _SHORT_SHARE * size:
        outcome = Outcome.DISK_SHORT
    return Finding(outcome=outcome, facts={"free": _bytes(free), "size": _bytes(size)})


def _data(snapshot: Snapshot, settings: Settings) -> Iterator[Finding]:
    now, watermarks = time.time(), snapshot.watermarks()
    brands = [brand.brand for brand in snapshot.brands() if brand.active]
    if not brands:
        yield Finding(outcome=Outcome.NO_BRANDS)
    newest = max((watermarks[brand] for brand in brands if brand in watermarks), default=None)
    limit, facts = settings.freshness_limit, dict[str, object]()
    if newest is None:
        yield Finding(outcome=Outcome.NO_WATERMARK)
    else:
        fresh = now - newest <= limit
        facts = {"time": rfc3339(newest), "limit": duration_text(limit)}
        yield Finding(outcome=Outcome.FRESH if fresh else Outcome.STALE, facts=facts)
        stale = sum(now - watermarks.get(brand, 0) > limit for brand in brands)
        facts = {"stale": stale, "brands": len(brands)}
        yield Finding(outcome=Outcome.BRANDS_STALE if stale else Outcome.BRANDS_FRESH, facts=facts)
    holds = snapshot.holds()
    held = {brand for each in holds.values() for brand in each}
    facts = {"sources": len(holds), "brands": len(held)}
    yield Finding(outcome=Outcome.REJECTS_WAIT if holds else Outcome.REJECTS_NONE, facts=facts)
    behind = max([*watermarks.values(), (settings.store / _DATA_FILE).stat().st_mtime]) - now
    late = behind > AHEAD_S
    facts = {"seconds": round(behind)} if late else {}
    yield Finding(outcome=Outcome.CLOCK_BEHIND if late else Outcome.CLOCK_PLAUSIBLE, facts=facts)


def kernel() -> Iterator[Finding]:
    """See whether the inner loops can be compiled."""
    if Kernel.best() is Kernel.NUMPY:
        yield Finding(outcome=Outcome.KERNEL_NUMPY)
    elif Kernel.NUMBA.usable() is Kernel.NUMBA:
        yield Finding(outcome=Outcome.KERNEL_COMPILED)
    else:
        yield Finding(outcome=Outcome.KERNEL_UNUSABLE)


def door(settings: Settings) -> Iterator[Finding]:
    """Look at who may come in: certificates and the callers file."""
    ports = [each for each in settings.listen if not is_unix(each)]
    far = [each for each in ports if not is_near(each)]
    host = next(iter(far or ports or settings.listen)).rpartition(":")[0].strip("[]")
    outside = bool(far)
    if settings.tls_cert is None or settings.tls_key is None:
        outcome = Outcome.PLAIN_TEXT_OUTSIDE if outside else Outcome.PLAIN_TEXT_INSIDE
        yield Finding(outcome=outcome, facts={"host": host})
    else:
        yield from _certificate(settings, host)
    if settings.callers is None:
        open_to_all = outside and settings.tls_client_ca is None
        outcome = Outcome.CALLERS_NONE_OUTSIDE if open_to_all else Outcome.CALLERS_NONE
        yield Finding(outcome=outcome, facts={"host": host})
        return
    try:
        callers = read_callers(settings.callers)
    except CallersFileError as error:
        yield Finding(outcome=Outcome.CALLERS_BAD, facts={"error": str(error)})
    else:
        yield Finding(outcome=Outcome.CALLERS_GOOD, facts={"callers": len(callers.entries)})


def _certificate(settings: Settings, host: str) -> Iterator[Finding]:
    if settings.tls_cert is None or settings.tls_key is None:
        return
    try:
        pair = read_pair(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    except SettingsError as error:
        yield Finding(outcome=Outcome.CERTIFICATE_BAD, facts={"error": str(error)})
        return
    names = _names(x509.load_pem_x509_certificates(pair.cert)[0])
    facts = {"ends": pair.ends.strftime("%Y-%m-%dT%H:%M:%SZ"), "names": ", ".join(names)}
    soon = pair.ends - datetime.now(UTC) < ENDS_SOON
    yield Finding(outcome=Outcome.CERTIFICATE_ENDS if soon else Outcome.CERTIFICATE_GOOD, facts=facts)
    if not _is_any(host) and host not in names:
        facts = {"names": ", ".join(names), "host": host}
        yield Finding(outcome=Outcome.CERTIFICATE_OTHER_NAME, facts=facts)


def _names(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


def _is_any(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _bytes(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:  # noqa: PLR2004 - what the units are made of
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"
