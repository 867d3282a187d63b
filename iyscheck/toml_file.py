"""A file of settings in TOML, which people write: read and checked whole, each mistake told by its field and line.

`tomllib` gives values without their lines. They are found by the look of the lines, for people to go to: a text over
several lines can mislead that, and nothing rests on it.
"""

import ipaddress
import re
import tomllib
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final, NoReturn, TypeAlias
from urllib.parse import SplitResult, urlsplit

from iyscheck.errors import SettingsFileError
from iyscheck.times import duration_s

Path: TypeAlias = tuple[str | int, ...]
"""Keys from the outermost in. A number behind a key says which of the tables of that name, counted from 1."""

_TABLE: Final = re.compile(r"""\s*\[\s*(?P<table>[^\[\]#]+?)\s*\]\s*(?:\#.*)?""")
_TABLES: Final = re.compile(r"""\s*\[\[\s*(?P<table>[^\[\]#]+?)\s*\]\]\s*(?:\#.*)?""")
_KEY: Final = re.compile(r"""\s*(?P<key>"[^"]*"|'[^']*'|[A-Za-z0-9_-]+(?:\s*\.\s*[A-Za-z0-9_"'-]+)*)\s*=""")
_PART: Final = re.compile(r""""([^"]*)"|'([^']*)'|([^\s."']+)""")
_AT_LINE: Final = re.compile(r"\(at line ([0-9]+), column [0-9]+\)")
_AT_END: Final = "(at end of document)"


class TomlFile:
    """One file while it is read: `name` is what errors, of the kind `error`, call it. Raises such an error."""

    def __init__(self, name: str, content: bytes, error: type[SettingsFileError]) -> None:
        self.name = name
        self._error = error
        try:
            # Windows' line ends are fine in TOML; the mark that some editors put before UTF-8 is not.
            self._text = content.decode().removeprefix("\ufeff")
        except UnicodeDecodeError as wrong:
            line = content.count(b"\n", 0, wrong.start) + 1
            raise error(name, f"line {line} is not UTF-8.", line=line, fix="Save it as UTF-8.") from None
        try:
            self.values: Mapping[str, object] = tomllib.loads(self._text)
        except (tomllib.TOMLDecodeError, RecursionError) as wrong:
            raise self._not_toml(str(wrong)) from None

    def wrong(self, path: Path, problem: str, fix: str = "") -> NoReturn:
        """Refuse the file for what stands at a path of keys."""
        line = line_of(self._text, path)
        where = self.name if line is None else f"{self.name}, line {line}"
        raise self._error(_field(path), f"{problem} ({where}).", line=line, fix=fix)

    def only(self, table: Mapping[str, object], path: Path, known: Collection[str]) -> None:
        """Refuse keys that nobody knows: a misspelt one that is silently ignored is how a wrong rule gets in."""
        for key in table:
            if key not in known:
                self.wrong((*path, key), "is not known here", f"Known are: {', '.join(known)}.")

    def _not_toml(self, told: str) -> SettingsFileError:
        """Say where a text is not TOML. The parser's words may quote it, and there may be a key in the wrong place."""
        at = _AT_LINE.search(told)
        line, problem = None, "it is not TOML."
        if at is not None:
            line = int(at[1])
            problem = f"line {line} is not TOML."
        elif told.endswith(_AT_END):
            line = self._text.rstrip().count("\n") + 1
            problem = f"it ends in the middle, in line {line}: it is not TOML."
        return self._error(
            self.name, problem, line=line, fix="Are quotes and brackets closed? Does each table and key stand once?"
        )


class Table:
    """One table of a file: `example` says what to write where something is missing. Raises the file's error."""

    def __init__(self, file: TomlFile, path: Path, table: object, *, example: str = "") -> None:
        if not isinstance(table, dict):
            name = ".".join(part for part in path if isinstance(part, str))
            file.wrong(path, "must be a table", f"Write [{name}] and its settings below.")
        self._file = file
        self._path = path
        self._example = example or "Write it in quotes."
        self.values: Mapping[str, object] = table

    def __contains__(self, key: str) -> bool:
        """Say whether anything is said of a key."""
        return key in self.values

    def only(self, *known: str) -> None:
        """Refuse other keys than these."""
        self._file.only(self.values, self._path, known)

    def wrong(self, key: str, problem: str, fix: str) -> NoReturn:
        """Refuse the file for what stands at a key."""
        self._file.wrong((*self._path, key), problem, fix)

    def text(self, key: str) -> str:
        """Read a text that is not empty."""
        value = self.values.get(key)
        if value is None:
            self.wrong(key, "is missing", self._example)
        if not isinstance(value, str) or not value.strip():
            self.wrong(key, "must be a text", "Write it in quotes.")
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """Read true or false."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            self.wrong(key, "must be true or false", "Write it without quotes.")
        return value

    def number(self, key: str, default: int | None, least: int, most: int) -> int:
        """Read a whole number; without a default it must be there."""
        value = self.values.get(key, default)
        if value is None:
            self.wrong(key, "is missing", self._example)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            self.wrong(key, f"must be a whole number from {least} to {most}", "Without quotes.")
        return value

    def duration(self, key: str, default: int, least: int, most: int) -> int:
        """Read a duration, in seconds."""
        value = self.values.get(key)
        if value is None:
            return default
        seconds = -1
        if isinstance(value, str):
            try:
                seconds = duration_s(value)
            except ValueError:
                seconds = -1
        if not least <= seconds <= most:
            span = f"a duration from {least} to {most} seconds"
            self.wrong(key, f"must be {span}", 'Write for example "10m", "24h" or "400d".')
        return seconds

    def url(self, key: str, problem: str, fix: str, *, harm: str) -> str:
        """Read an address of HTTPS, without a slash behind it; http is taken of this machine only.

        `harm` is what somebody on the way could do.
        """
        text = self.text(key).rstrip("/")
        parts = split_url(text)
        if not parts.hostname or parts.username is not None or parts.query or parts.fragment:
            self.wrong(key, problem, fix)
        if parts.scheme != "https" and not (parts.scheme == "http" and _is_near(parts.hostname)):
            self.wrong(key, "must be https", harm)
        return text

    def listed(self, key: str) -> list[object]:
        """Read a list of anything; none where nothing is said."""
        values = self.values.get(key, [])
        if not isinstance(values, list):
            self.wrong(key, "must be a list", "Write it in brackets.")
        return values


def split_url(text: object) -> SplitResult:
    """Split an address; of what is none, all parts are empty."""
    try:
        parts = urlsplit(text if isinstance(text, str) else "")
        _ = parts.port  # only asking tells that it is none
    except ValueError:
        return SplitResult("", "", "", "", "")
    return parts


def _is_near(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def line_of(text: str, path: Path) -> int | None:
    """Find the line of a key, else that of the table it would stand in; counted from 1, None if there is neither."""
    table: Path = ()
    best: tuple[int, int] | None = None
    seen: Counter[Path] = Counter()
    for number, line in enumerate(text.splitlines(), 1):
        if found := _TABLES.fullmatch(line):
            name = _parts(found["table"])
            seen[name] += 1
            here = table = (*name, seen[name])
        elif found := _TABLE.fullmatch(line):
            here = table = _parts(found["table"])
        elif found := _KEY.match(line):
            here = (*table, *_parts(found["key"]))
        else:
            continue
        if here == path[: len(here)] and (best is None or len(here) > best[0]):
            best = len(here), number
    return None if best is None else best[1]


def _parts(dotted: str) -> Path:
    return tuple(next(part for part in found if part) for found in _PART.findall(dotted) if any(found))


def _field(path: Path) -> str:
    """Write a path as people do: `account[2].code`."""
    return ".".join(part if isinstance(part, str) else f"[{part}]" for part in path).replace(".[", "[")
