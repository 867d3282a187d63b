"""Pushes in the mirror: what came goes into the store at once, and each hour İYS is asked whether it still pushes."""

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from iyscheck.consent import Channel
from iyscheck.errors import SettingsError, SourceError, StoreFullError
from iyscheck.keys import AddressKey
from loader.iys.clock import Clock
from loader.iys.faults import IysFault
from loader.iys.messages import ListedBrand
from loader.mirror.registering import Pushes, missing
from loader.mirror.tasks import Task, name_of
from loader.push.credentials import Credential, Credentials
from loader.reports.push import PushedMetrics
from loader.sources.journal import Pushed

HOUR_S: Final = 3_600.0
AGAIN_MAX_S: Final = 6 * 3_600.0
"""A push that cannot be registered is tried again after one, two, four hours, and then each six."""
_NOTED_S: Final = 10.0
SEEN: Final = "seen.json"
"""When the last row of each brand was pushed, seconds UTC: for `status`."""


class Tail:
    """Brings pushed rows into the store; called as often as may be, in the thread of the writer."""

    def __init__(self, pushed: Pushed, metrics: PushedMetrics, *, folder: Path, clock: Clock) -> None:
        import structlog

        self._log = structlog.get_logger("mirror")
        self._pushed = pushed
        self._metrics = metrics
        self._path = folder / SEEN
        self._clock = clock
        self._seen = seen(folder)
        self._noted_s = 0.0
        self._is_noted = True
        self._failing = ""
        self._damaged = 0

    def __call__(self) -> None:
        """Commit what has come."""
        try:
            read = self._pushed.poll()
            self._metrics.behind(self._pushed.behind())
        except (OSError, SourceError, StoreFullError) as error:
            if self._failing != type(error).__name__:  # once, as it comes five times a second
                self._log.error("push_not_read", error=type(error).__name__)
            self._failing = type(error).__name__
            return
        self._failing = ""
        if read is not None:
            if read.damaged and read.damaged != self._damaged:
                self._log.error("journal_damaged", segments=read.damaged)
            self._damaged = read.damaged
            self._metrics.read(read, self._clock.now())
            if read.brands:
                self._seen |= read.brands
                self._is_noted = False
        self._note()

    def _note(self) -> None:
        now = self._clock.now()
        if self._is_noted or 0 <= now - self._noted_s < _NOTED_S:
            return
        new = self._path.with_name(self._path.name + ".new")
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(self._seen))
            new.rename(self._path)
        except OSError as error:
            self._log.error("push_not_noted", error=type(error).__name__)
        self._noted_s, self._is_noted = now, True


def seen(folder: Path) -> dict[int, float]:
    """Return when the last row of each brand was pushed; nothing where nobody knows."""
    try:
        return msgspec.json.decode((folder / SEEN).read_bytes(), type=dict[int, float])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}


class Registrations:
    """The part that asks each hour whether what was registered still is, and registers what is not."""

    def __init__(
        self,
        credentials: Credentials,
        iys: Mapping[str, Pushes],
        *,
        url: str,
        key: AddressKey,
        listed: Callable[[], Iterable[tuple[str, ListedBrand]]],
        metrics: PushedMetrics,
        clock: Clock,
    ) -> None:
        """`listed` gives the brands that İYS lists, each with its account."""
        import structlog

        self._log = structlog.get_logger("mirror")
        self._credentials = credentials
        self._iys = iys
        self._url = url
        self._key = key
        self._all_listed = listed
        self._metrics = metrics
        self._clock = clock
        self._due: dict[tuple[str, int], float] = {}
        self._tries: dict[tuple[str, int], int] = {}
        self._missing: dict[tuple[str, int], frozenset[Channel]] = {}
        self._looked_s = 0.0
        self._known: Mapping[str, Credential] = {}
        self._new: frozenset[int] = frozenset()

    @property
    def next_s(self) -> float | None:
        """When the next brand is to be asked for."""
        return min(self._due.values(), default=None)

    def next(self) -> Task | None:
        """Ask for the next brand that is due."""
        self._look()
        now = self._clock.now()
        for (name, brand), due_s in self._due.items():
            credential = self._known.get(name)
            if credential is not None and due_s <= now:
                self._due[name, brand] = now + HOUR_S
                return Task(ask=partial(self._asked, credential, brand), take=partial(self._took, credential, brand))
        return None

    def _look(self) -> None:
        """See which credentials there are."""
        now = self._clock.now()
        if 0 <= now - self._looked_s < _NOTED_S:
            return
        self._looked_s = now
        try:
            known = self._credentials.all()
        except SettingsError as error:
            self._log.error("credentials_unreadable", message=str(error))
            return
        self._known = {each.name: each for each in known if not each.retired_s and each.account in self._iys}
        wanted = {(each.name, brand) for each in self._known.values() for brand in each.brands}
        for gone in self._due.keys() - wanted:
            del self._due[gone]
            self._missing.pop(gone, None)
        for new in wanted - self._due.keys():
            self._due[new] = now
        self._tell()

    def _listed(self, brand: int) -> ListedBrand | None:
        return next((shown for _, shown in self._all_listed() if shown.brand == brand), None)

    def _asked(self, credential: Credential, brand: int) -> frozenset[Channel]:
        """Ask where a brand is pushed to, and register what is not pushed here any more; say what still is not."""
        shown = self._listed(brand)
        if shown is None:
            return frozenset()
        iys = self._iys[credential.account]
        lacking = missing(iys.pushes(credential.iys_code, brand), shown, self._url)
        for channel in sorted(lacking):
            password = self._credentials.password(credential, self._key)
            iys.register_push(credential.iys_code, brand, self._url, channel, credential.name, password)
        return missing(iys.pushes(credential.iys_code, brand), shown, self._url) if lacking else lacking

    def _took(self, credential: Credential, brand: int, answer: object) -> Task | None:
        place = (credential.name, brand)
        if isinstance(answer, frozenset):
            self._missing[place] = answer
        else:
            said = {"fault": name_of(answer), "code": answer.code} if isinstance(answer, IysFault) else {}
            self._log.warning("push_not_registered", brand=brand, **said)
            shown = self._listed(brand)
            self._missing[place] = frozenset() if shown is None else shown.channels
        if self._missing[place]:
            tries = self._tries[place] = self._tries.get(place, 0) + 1
            self._due[place] = self._clock.now() + min(HOUR_S * 2 ** (tries - 1), AGAIN_MAX_S)
        else:
            self._tries.pop(place, None)
        self._tell()
        return None

    def _tell(self) -> None:
        """Count brands and channels; a brand that came to an account whose others are pushed is missing, too."""
        accounts = {credential.account for credential in self._known.values()}
        registered = {brand for _, brand in self._due}
        shown = {each.brand: each for account, each in self._all_listed() if account in accounts}
        new = shown.keys() - registered
        if new - self._new:
            self._log.warning("push_not_registered", brands=len(new), message="Run 'receive register' for new brands.")
        self._new = frozenset(new)
        wanted = sum(len(each.channels) for each in shown.values())
        broken = sum(map(len, self._missing.values())) + sum(len(shown[brand].channels) for brand in new)
        self._metrics.connections(good=max(wanted - broken, 0), broken=broken)
