"""The feeds file: TOML that says from which accounts of İYS the mirror is filled, and how. Read whole, or refused.

Passwords stand in files of their own. This file is private nevertheless: it names whose consents are kept here, and
who can write it can point the mirror at somebody else's İYS, which may then say yes to anything.
"""

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

from iyscheck.errors import FeedsFileError, SettingsError
from iyscheck.keys import read_private
from iyscheck.toml_file import Path as KeyPath
from iyscheck.toml_file import Table, TomlFile, split_url
from loader.reading.vocabulary import BRAND_MAX

IYS_URL: Final = "https://api.iys.org.tr"
MAX_FILE_BYTES: Final = 1024 * 1024
MOST_TOKEN_REQUESTS: Final = 90
"""An hour, of one IP address: İYS's newer limit is 100, and who reaches it is locked out of all accounts."""
TOKENS_OF_AN_ACCOUNT: Final = 1 / 1.6
"""How many tokens an account needs in an hour: each lives for two, and is renewed at four fifths of that."""

_DAY_S: Final = 86_400
_LEAST_RATE: Final = 0.1
_MOST_RATE: Final = 9.0
_PASSWORD_BYTES: Final = 4096
_CODE_MAX: Final = 2**53
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_TIME: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_HOST_AND_PORT: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]\s]+):([0-9]{1,5})")
_EXAMPLE: Final = "Begin with [[account]]: name, kind, code, username and password_file."

KindT = TypeVar("KindT", bound=StrEnum)


class AccountKind(StrEnum):
    """Whose account it is: a provider's own, or that of an integrator who serves several."""

    PROVIDER = "provider"
    INTEGRATOR = "integrator"


class PushRows(StrEnum):
    """Which pushed rows are applied. A leaked password can then cause a wrong no only, unless it is ALL."""

    REFUSALS = "refusals"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountConfig:
    """An account at İYS. `code` is its iysCode, or its code as an integrator. `brands` None: all that İYS lists."""

    name: str
    kind: AccountKind
    code: int
    username: str = field(repr=False)
    password_file: Path
    brands: frozenset[int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorConfig:
    """How the mirror is filled; durations in seconds.

    `rate` is requests a second and `token_requests` an hour, both of this machine's address, whatever the account.
    Reconciliation begins at `reconcile_from_s` after midnight in Turkey, and is tried until `reconcile_until_s`.
    `archive_keep_s` 0: nothing is archived. `directory` is one that is loaded from as `follow` does.
    `authorities` are the certificates that İYS's has to come from, None: those of this machine's Python packages.
    """

    url: str = IYS_URL
    interval_s: int = 600
    idle_interval_s: int = 1_800
    rate: float = 5.0
    token_requests: int = 10
    reconciles: bool = True
    reconcile_from_s: int = 2 * 3_600
    reconcile_until_s: int = 12 * 3_600
    agrees: bool = False
    archive_keep_s: int = 400 * _DAY_S
    push_apply: PushRows = PushRows.REFUSALS
    directory: Path | None = None
    authorities: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiveConfig:
    """The receiver of pushed rows. `public_url` is what İYS is told; without `certificate` a proxy speaks TLS.

    `networks` are those from which it is answered at all; none: from everywhere.
    """

    listen: str
    public_url: str
    certificate: Path | None = None
    key: Path | None = None
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All of a feeds file."""

    accounts: tuple[AccountConfig, ...]
    mirror: MirrorConfig = MirrorConfig()
    receive: ReceiveConfig | None = None

    @property
    def tokens_an_hour(self) -> float:
        """How many tokens all accounts together need in an hour."""
        return len(self.accounts) * TOKENS_OF_AN_ACCOUNT

    @property
    def warnings(self) -> tuple[str, ...]:
        """What can be read, but will not work well: sentences."""
        budget = self.mirror.token_requests
        if self.tokens_an_hour <= budget:
            return ()
        sentence = (
            f"{len(self.accounts)} accounts need {self.tokens_an_hour:.1f} tokens an hour, and {budget} may be asked "
            f"for: some brands will become stale. At most {int(budget / TOKENS_OF_AN_ACCOUNT)} accounts fit. Raise "
            f"token_requests (at most {MOST_TOKEN_REQUESTS}), use one integrator account, or more machines with "
            "addresses of their own."
        )
        return (sentence,)


def read(path: str | os.PathLike[str]) -> Config:
    """Read a feeds file. Paths in it count from its own folder.

    Raises FeedsFileError, which names field and line, SettingsError where others can read or write the file.
    """
    file = Path(path)
    content = read_private("--config", file, MAX_FILE_BYTES)
    if len(content) > MAX_FILE_BYTES:
        raise FeedsFileError(str(file), f"it has more than {MAX_FILE_BYTES} bytes.", fix="Is it the right path?")
    return parsed(content, str(file), file.absolute().parent)


def check_password(account: AccountConfig, setting: str) -> None:
    """See that an account's password can be read, and by nobody else. Raises SettingsError, which names `setting`."""
    content = read_private(setting, account.password_file, _PASSWORD_BYTES)
    if not content.strip() or len(content) > _PASSWORD_BYTES:
        raise SettingsError(setting, f"{account.password_file} holds no password.", fix="Write it there.")
    try:
        text = content.decode().strip("\r\n")
    except UnicodeDecodeError:
        raise SettingsError(setting, f"{account.password_file} is not UTF-8.", fix="Save it as UTF-8.") from None
    if text.startswith("\ufeff") or not text.isprintable():
        raise SettingsError(
            setting,
            f"{account.password_file} has more in it than a password: a line, a tab, a mark that some editors write.",
            fix="Write the password alone there, with an editor that saves plain UTF-8.",
        )


def parsed(content: bytes, name: str, folder: Path) -> Config:
    """Make a configuration of the bytes of a feeds file; `name` is what errors call it. Raises FeedsFileError."""
    return _FeedsFile(name, content, folder).config()


class _FeedsFile(TomlFile):
    """One feeds file while it is read."""

    def __init__(self, name: str, content: bytes, folder: Path) -> None:
        super().__init__(name, content, FeedsFileError)
        self.folder = folder

    def config(self) -> Config:
        """Read all of it."""
        self.only(self.values, (), ("mirror", "account", "receive"))
        tables = self.values.get("account", [])
        if not isinstance(tables, list):
            self.wrong(("account",), "must be tables", "Write [[account]], with two brackets on each side.")
        if not tables:
            raise FeedsFileError(self.name, "it has no account.", fix=_EXAMPLE)
        accounts = [_Table(self, ("account", place), table).account() for place, table in enumerate(tables, 1)]
        self._once([account.name for account in accounts], "name")
        self._once([(account.kind, account.code) for account in accounts], "code")
        receive = self.values.get("receive")
        return Config(
            accounts=tuple(accounts),
            mirror=_Table(self, ("mirror",), self.values.get("mirror", {})).mirror(),
            receive=None if receive is None else _Table(self, ("receive",), receive).receive(),
        )

    def _once(self, values: Sequence[object], key: str) -> None:
        first: dict[object, int] = {}
        for place, value in enumerate(values, 1):
            other = first.setdefault(value, place)
            if other != place:
                self.wrong(("account", place, key), f"is that of account[{other}] too", "Each account stands once.")


class _Table(Table):
    """One table of the file."""

    def __init__(self, file: _FeedsFile, path: KeyPath, table: object) -> None:
        super().__init__(file, path, table, example=_EXAMPLE if path[0] == "account" else "")
        self._folder = file.folder

    def account(self) -> AccountConfig:
        """Read an account."""
        self.only("name", "kind", "code", "username", "password_file", "brands")
        name = self.text("name")
        if not _NAME.fullmatch(name):
            self.wrong("name", "is no name for an account", "Take up to 40 of a to z, digits, - and _.")
        password_file = self._path_of("password_file")
        return AccountConfig(
            name=name,
            kind=self._one_of("kind", AccountKind, None),
            code=self.number("code", None, 1, _CODE_MAX),
            username=self.text("username"),
            password_file=password_file,
            brands=self._brands(),
        )

    def mirror(self) -> MirrorConfig:
        """Read how the mirror is filled."""
        default = MirrorConfig()
        self.only(
            *("url", "interval", "idle_interval", "rate", "token_requests", "reconcile", "reconcile_from"),
            *("reconcile_until", "agree", "archive_keep", "push_apply", "directory", "authorities"),
        )
        interval = self.duration("interval", default.interval_s, 60, _DAY_S)
        idle = self.duration("idle_interval", max(default.idle_interval_s, interval), interval, _DAY_S)
        start = self._time("reconcile_from", default.reconcile_from_s)
        end = self._time("reconcile_until", max(default.reconcile_until_s, start))
        if end < start:
            self.wrong("reconcile_until", "is before reconcile_from", "Both are of one day, in Turkey.")
        return MirrorConfig(
            url=self.url(
                "url",
                "is no address of İYS",
                f'Write "{IYS_URL}".',
                harm="Passwords and addresses would be readable on the way.",
            )
            if "url" in self
            else default.url,
            interval_s=interval,
            idle_interval_s=idle,
            rate=self._rate("rate", default.rate),
            token_requests=self.number("token_requests", default.token_requests, 1, MOST_TOKEN_REQUESTS),
            reconciles=self.flag("reconcile", default=default.reconciles),
            reconcile_from_s=start,
            reconcile_until_s=end,
            agrees=self.flag("agree", default=default.agrees),
            archive_keep_s=self.duration("archive_keep", default.archive_keep_s, 0, 100 * 366 * _DAY_S),
            push_apply=self._one_of("push_apply", PushRows, default.push_apply),
            directory=self._path_of("directory") if "directory" in self else None,
            authorities=self._path_of("authorities") if "authorities" in self else None,
        )

    def receive(self) -> ReceiveConfig:
        """Read what is said of the receiver."""
        self.only("listen", "public_url", "certificate", "key", "networks")
        listen = self.text("listen")
        found = _HOST_AND_PORT.fullmatch(listen)
        if found is None or int(found[2]) >= 2**16:
            self.wrong("listen", "is not HOST:PORT", 'Write for example "0.0.0.0:8443".')
        if ("certificate" in self) != ("key" in self):
            self.wrong("certificate", "and key need each other", "Give both, or none where a proxy speaks TLS.")
        public_url = self.text("public_url")
        if split_url(public_url).scheme != "https" or not split_url(public_url).hostname:
            self.wrong("public_url", "is no https address", "İYS pushes to https only.")
        return ReceiveConfig(
            listen=listen,
            public_url=public_url,
            certificate=self._path_of("certificate") if "certificate" in self else None,
            key=self._path_of("key") if "key" in self else None,
            networks=tuple(self._network(place, text) for place, text in enumerate(self.listed("networks"), 1)),
        )

    def _path_of(self, key: str) -> Path:
        return self._folder / self.text(key)

    def _rate(self, key: str, default: float) -> float:
        value = self.values.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not _LEAST_RATE <= value <= _MOST_RATE:
            problem = f"must be a number from {_LEAST_RATE} to {_MOST_RATE}"
            self.wrong(key, problem, "It is requests a second; İYS's limit is 10.")
        return float(value)

    def _one_of(self, key: str, kind: type[KindT], default: KindT | None) -> KindT:
        value = self.values.get(key, default)
        if not isinstance(value, str) or value not in {*kind}:
            self.wrong(key, "is not one of its kind", f"Known are: {', '.join(kind)}.")
        return kind(value)

    def _time(self, key: str, default: int) -> int:
        value = self.values.get(key)
        if value is None:
            return default
        found = _TIME.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            self.wrong(key, "must be a time of the day", 'Write for example "02:00".')
        return int(found[1]) * 3_600 + int(found[2]) * 60

    def _brands(self) -> frozenset[int] | None:
        if self.values.get("brands", "all") == "all":
            return None
        brands: list[int] = []
        for place, value in enumerate(self.listed("brands"), 1):
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= BRAND_MAX:
                fix = f'Brand codes are whole numbers from 1 to {BRAND_MAX}; or write brands = "all".'
                self.wrong("brands", f"item {place} is no brand code", fix)
            brands.append(value)
        if not brands:
            self.wrong("brands", "is empty", 'List brand codes, or write brands = "all".')
        return frozenset(brands)

    def _network(self, place: int, text: object) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        try:
            return ipaddress.ip_network(str(text))
        except ValueError:
            self.wrong("networks", f"item {place} is no network", 'Write "192.0.2.0/24".')
