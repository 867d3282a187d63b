"""The callers file: TOML that says who may ask what. Read whole and checked whole, or refused.

A name that is not known is an error: a misspelt rule that is silently ignored is how a wrong scope gets into
production. For the same reason `brands` has no default.

The file holds hashes of random keys, so reading it lets nobody in; others may read it (a Kubernetes ConfigMap has mode
0644). Who can write it can let himself in. So nobody may be able to but its owner, and the owner is root or the user
who reads it.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, TypeVar

from iyscheck.callers.identity import Callers, Entry, Key
from iyscheck.callers.names import is_name, why_no_name
from iyscheck.callers.scopes import ALL_CHANNELS, CALL_NAMES, DEFAULT_CALLS, Caller, CallName
from iyscheck.consent import Channel
from iyscheck.errors import CallersFileError
from iyscheck.keys import read_guarded
from iyscheck.question import MAX_BRAND_CODE
from iyscheck.toml_file import TomlFile

MAX_FILE_BYTES: Final = 4 * 1024 * 1024
"""Some ten thousand callers."""

MAX_RATE: Final = 10**9
MAX_STREAMS: Final = 100_000
RESERVED: Final = frozenset({"anonymous"})
"""What logs and metrics call whoever has no name."""

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KEY: Final = re.compile(r"([0-9a-f]{8,64}):([0-9a-f]{64})")
_FIELDS: Final = ("keys", "certificates", "brands", "channels", "calls", "addresses", "rate", "streams")
_EXAMPLE: Final = "Begin with [caller.NAME]; `iyscheck callers new-key NAME` shows what to write."

ItemT = TypeVar("ItemT")


def is_caller_name(text: str) -> bool:
    """Say whether a caller may be called so: 1 to 64 letters of ASCII, digits, `-`, `_`, `.`; metrics carry it."""
    return _NAME.fullmatch(text) is not None and text not in RESERVED


def read(path: str | os.PathLike[str]) -> Callers:
    """Read a callers file. Raises CallersFileError, which names field and line."""
    return read_with_stat(path)[0]


def read_with_stat(path: str | os.PathLike[str]) -> tuple[Callers, os.stat_result, bytes]:
    """Read a callers file; say which state of which file it was, and what it held. Raises CallersFileError."""
    file = Path(path)
    found, content = read_guarded(file, MAX_FILE_BYTES, CallersFileError, example=_EXAMPLE, harm="let anybody in")
    return parsed(content, str(file)), found, content


def parsed(content: bytes, name: str) -> Callers:
    """Make callers of the bytes of a callers file; `name` is what errors call it. Raises CallersFileError."""
    document = _Document(name, content, CallersFileError)
    return Callers(document.entries())


class _Document(TomlFile):
    """One callers file while it is read."""

    def entries(self) -> list[Entry]:
        """Read all callers, and see that nothing names two of them."""
        self.only(self.values, (), ("caller",))
        tables = self.values.get("caller", {})
        if not isinstance(tables, dict) or not tables:
            raise CallersFileError(self.name, "it lists no callers.", fix=_EXAMPLE)
        entries = [self._entry(name, table) for name, table in tables.items()]
        self._once(entries, "keys", lambda entry: (key.key_id for key in entry.keys))
        self._once(entries, "certificates", lambda entry: entry.certificates)
        return entries

    def _entry(self, name: str, table: object) -> Entry:
        path = ("caller", name)
        if not is_caller_name(name):
            problem = "is taken: logs and metrics use it" if name in RESERVED else "is not a name for a caller"
            self.wrong(path, problem, "Use 1 to 64 letters (a-z, A-Z), digits, - _ and dots.")
        if not isinstance(table, dict):
            self.wrong(path, "must be a table", f"Write [caller.{name}] and its rules below.")
        self.only(table, path, _FIELDS)
        if "brands" not in table:
            self.wrong((*path, "brands"), "is missing", 'List brand codes, or write brands = "all".')
        keys = frozenset(self._items(table, path, "keys", _key, "iyscheck callers new-key NAME prints one"))
        if len({key.key_id for key in keys}) != len(keys):
            self.wrong((*path, "keys"), "has two keys of one id", "Keep one of them.")
        certificates = self._certificates(table, path)
        if not keys and not certificates:
            self.wrong(path, "has neither keys nor certificates, so nobody can be it", "Give it one, or take it out.")
        return Entry(caller=self._caller(name, table, path), keys=keys, certificates=certificates)

    def _certificates(self, table: Mapping[str, object], path: tuple[str, ...]) -> frozenset[str]:
        here = (*path, "certificates")
        names = self._items(table, path, "certificates", _text, "Write each name in quotes")
        for place, name in enumerate(names, 1):
            if not is_name(name):
                problem, fix = why_no_name(name)
                self.wrong(here, f"item {place} {problem}", fix)
        return frozenset(names)

    def _caller(self, name: str, table: Mapping[str, object], path: tuple[str, ...]) -> Caller:
        brands = None
        if table["brands"] != "all":
            fix = f'Brand codes are whole numbers from 1 to {MAX_BRAND_CODE}; or write brands = "all"'
            brands = frozenset(self._items(table, path, "brands", _brand, fix))
        channels, calls = ALL_CHANNELS, DEFAULT_CALLS
        if "channels" in table:
            names = ", ".join(channel.name for channel in Channel)
            channels = frozenset(self._items(table, path, "channels", _channel, f"Known are {names}", least=1))
        if "calls" in table:
            known = ", ".join(CALL_NAMES)
            calls = frozenset(self._items(table, path, "calls", _call, f"Known are {known}", least=1))
        addresses = table.get("addresses", False)
        if not isinstance(addresses, bool):
            self.wrong((*path, "addresses"), "must be true or false", "It says whether plaintext is answered.")
        return Caller(
            name=name,
            brands=brands,
            channels=channels,
            calls=calls,
            addresses=addresses,
            rate=self._number(table, path, "rate", MAX_RATE),
            streams=self._number(table, path, "streams", MAX_STREAMS),
        )

    def _number(self, table: Mapping[str, object], path: tuple[str, ...], key: str, most: int) -> int | None:
        value = table.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            self.wrong((*path, key), f"must be a whole number from 1 to {most}", "Leave it out for no limit.")
        return value

    def _items(
        self,
        table: Mapping[str, object],
        path: tuple[str, ...],
        key: str,
        read_one: Callable[[object], ItemT | None],
        fix: str,
        *,
        least: int = 0,
    ) -> list[ItemT]:
        """Read a list whose items `read_one` takes, or gives None for. Errors tell an item's place: it may be a key."""
        values = table.get(key, [])
        if not isinstance(values, list):
            self.wrong((*path, key), "must be a list", f"{fix}.")
        if len(values) < least:
            self.wrong((*path, key), "is empty", f"{fix}. Leave it out for the default.")
        items = []
        for place, value in enumerate(values, 1):
            item = read_one(value)
            if item is None:
                self.wrong((*path, key), f"item {place} is not one of its kind", f"{fix}.")
            items.append(item)
        if len(set(items)) != len(items):
            self.wrong((*path, key), "has an item twice", "Take one of them out.")
        return items

    def _once(self, entries: Iterable[Entry], key: str, named_by: Callable[[Entry], Iterable[str]]) -> None:
        owners: dict[str, str] = {}
        for entry in entries:
            for item in named_by(entry):
                other = owners.setdefault(item, entry.caller.name)
                if other != entry.caller.name:
                    problem = f"{item} is also in caller.{other}.{key}"
                    self.wrong(("caller", entry.caller.name, key), problem, "It can name one caller only.")


def _key(value: object) -> Key | None:
    found = _KEY.fullmatch(value) if isinstance(value, str) else None
    return None if found is None else Key(found[1], bytes.fromhex(found[2]))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _brand(value: object) -> int | None:
    ok = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_BRAND_CODE
    return value if ok and isinstance(value, int) else None


def _channel(value: object) -> Channel | None:
    return Channel.__members__.get(value) if isinstance(value, str) else None


def _call(value: object) -> CallName | None:
    return next((name for name in CALL_NAMES if name == value), None)
