"""Tokens of an account: asked for as seldom as can be, by one at a time, and never while İYS has locked that.

İYS allows few token requests an hour for an address of the network, whatever the account. Who asks once too often is
locked out of all accounts for an hour, and who asks meanwhile begins that hour anew. So what is known of tokens, locks
and wrong passwords outlives the process: a restart asks for nothing that is there already.
"""

import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Final

import msgspec

from loader.iys.clock import Clock
from loader.iys.credentials import Credentials
from loader.iys.decoding import Grant, grant_of
from loader.iys.faults import AuthFailedFault, ForbiddenFault, IysFault, LockedFault, RefusedFault, TransientFault
from loader.iys.limits import FILE_MODE, HOUR_S, Limits
from loader.iys.transport import Request, Transport

LOCK_S: Final = 3_660.0
"""İYS's hour, and a minute for clocks that differ."""
DEFAULT_BUDGET: Final = 10
"""Token requests an hour: the smaller of the two numbers that İYS prints."""
RENEWED_AT: Final = 0.8
"""Of its life, a token is exchanged for a new one."""
BARRED_S: Final = 3_600.0
"""For so long nothing is asked with an account whose new tokens İYS does not take either."""
_MARGIN_S: Final = 30.0
"""A token so close to its end is not used."""
_MOST_BYTES: Final = 4 * 2**20
"""Of an account's file. İYS writes all brands of an account into its tokens."""
_WRONG: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED})
"""How İYS refuses a password or token. Any other refusal says nothing of these."""


class Kept(msgspec.Struct):
    """What is kept of an account; times are seconds UTC. `wrong` and `barred_until_s` say that it cannot be used."""

    username: str = ""
    """Its digest: tokens of another user are not used."""
    access: str = ""
    refresh: str = ""
    issued_s: float = 0.0
    expires_s: float = 0.0
    refresh_expires_s: float = 0.0
    wrong: str = ""
    """The stamp of the password that İYS did not take."""
    barred_until_s: float = 0.0
    tried_s: float = 0.0
    """When tokens were asked for in vain, for a reason that may pass."""


class Tokens:
    """The tokens of one account. May be used by several threads; processes share them through a file."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        folder: Path,
        limits: Limits,
        clock: Clock,
        transport: Transport,
        budget: int = DEFAULT_BUDGET,
    ) -> None:
        """`folder` is that of the limits, and is there already."""
        self._credentials = credentials
        self._path = folder / f"account-{credentials.name}.json"
        self._limits = limits
        self._clock = clock
        self._transport = transport
        self._budget = budget
        self._lock = threading.Lock()

    def token(self) -> str:
        """Return a token that İYS should take. Raises IysFault where there is none and none can be had now."""
        with self._held() as descriptor:
            return self._token(descriptor, self._read(descriptor))

    def refused(self, token: str) -> str:
        """Return another token, as İYS does not take this one any more. Raises IysFault."""
        with self._held() as descriptor:
            kept = self._read(descriptor)
            if kept.access == token:
                kept.access = ""  # only now: another thread may have exchanged it already
                self._write(descriptor, kept)  # where no other can be had, nobody else is to be sent away with it
            return self._token(descriptor, kept)

    def bar(self, token: str) -> None:
        """Note that İYS does not take a token that was fresh: ask nothing with this account for an hour."""
        with self._held() as descriptor:
            kept = self._read(descriptor)
            if kept.access == token:
                kept.access = ""
                kept.barred_until_s = self._clock.now() + BARRED_S
                self._write(descriptor, kept)

    def failed(self) -> bool:
        """Say whether the account cannot be used until somebody does something about it."""
        with self._held() as descriptor:
            kept = self._read(descriptor)
            return self._is_wrong(kept) or self._is_barred(kept)

    def _token(self, descriptor: int, kept: Kept) -> str:
        now = self._clock.now()
        is_usable = bool(kept.access) and kept.issued_s <= now + _MARGIN_S and now < kept.expires_s - _MARGIN_S
        if is_usable and now < kept.issued_s + RENEWED_AT * (kept.expires_s - kept.issued_s):
            return kept.access
        try:
            self._renew(descriptor, kept)
        except IysFault:
            if is_usable:
                return kept.access  # it holds a while yet
            raise
        return kept.access

    def _renew(self, descriptor: int, kept: Kept) -> None:
        """Exchange the token, or ask with the password."""
        if self._is_wrong(kept):
            raise AuthFailedFault(f"İYS does not take user name and password of account '{self._credentials.name}'.")
        if self._is_barred(kept):
            raise AuthFailedFault(f"İYS takes no token of account '{self._credentials.name}'; tried again each hour.")
        if 0 <= self._clock.now() - kept.tried_s < HOUR_S / self._budget:
            raise TransientFault(f"İYS gave account '{self._credentials.name}' no token just now; tried again soon.")
        try:
            self._exchange(descriptor, kept)
        except (TransientFault, ForbiddenFault, RefusedFault):
            kept.tried_s = self._clock.now()  # else one fault of İYS's would use up the requests of the hour
            self._write(descriptor, kept)
            raise

    def _exchange(self, descriptor: int, kept: Kept) -> None:
        if kept.refresh and self._clock.now() < kept.refresh_expires_s - _MARGIN_S:
            try:
                grant = self._ask({"grant_type": "refresh_token", "refresh_token": kept.refresh})
            except (RefusedFault, AuthFailedFault) as fault:
                if fault.status not in _WRONG:
                    raise
                kept.refresh = ""  # used before, or too old for İYS
                self._write(descriptor, kept)
            else:
                self._keep(descriptor, kept, grant)
                return
        stamp, password = self._credentials.stamp(), self._credentials.password()
        try:
            grant = self._ask({"grant_type": "password", "username": self._credentials.username, "password": password})
        except (RefusedFault, AuthFailedFault) as fault:
            if fault.status not in _WRONG:
                raise
            kept.wrong = stamp
            self._write(descriptor, kept)
            raise AuthFailedFault(
                f"İYS does not take user name and password of account '{self._credentials.name}'. "
                "Write the right one into the account's password_file.",
                status=fault.status,
                code=fault.code,
            ) from None
        self._keep(descriptor, kept, grant)

    def _ask(self, body: dict[str, str]) -> tuple[Grant, float]:
        """Ask for tokens, if that is allowed now; give them and when they were asked for."""
        self._spend()
        asked_s = self._clock.now()
        request = Request(
            method="POST",
            path="/oauth2/token",
            what="a token",
            stream="",
            query={},
            body=body,
        )
        try:
            answer = self._transport.send(request)
        except IysFault as fault:
            if fault.status == HTTPStatus.TOO_MANY_REQUESTS:
                raise self._locked() from None
            raise
        return grant_of(answer), asked_s

    def _spend(self) -> None:
        """Take one of the hour's requests. Raises LockedFault where there is none."""
        with self._limits.held(durably=True) as limited:
            now = self._clock.now()
            # Written down: a clock that was set back would else find the end as far away each time.
            until_s = limited.locked_until_s = min(limited.locked_until_s, now + LOCK_S)
            recent = [asked_s for asked_s in limited.token_asks if now - HOUR_S < asked_s <= now]
            is_spent = len(recent) >= self._budget
            if until_s <= now and not is_spent:
                recent.append(now)
            limited.token_asks = recent
        if until_s > now:
            raise LockedFault("İYS has locked the requests for tokens of this machine.", until_s=until_s)
        if is_spent:
            raise LockedFault(
                f"This hour's {self._budget} requests for tokens are used up.", until_s=recent[0] + HOUR_S
            )

    def _locked(self) -> LockedFault:
        """Write the lock down before anything else happens."""
        with self._limits.held(durably=True) as limited:
            limited.locked_until_s = self._clock.now() + LOCK_S
            until_s = limited.locked_until_s
        return LockedFault("İYS has locked the requests for tokens of this machine.", until_s=until_s)

    def _keep(self, descriptor: int, kept: Kept, granted: tuple[Grant, float]) -> None:
        grant, asked_s = granted
        kept.access, kept.refresh = grant.access, grant.refresh
        kept.issued_s = asked_s
        kept.expires_s = asked_s + grant.expires_in
        kept.refresh_expires_s = asked_s + grant.refresh_expires_in
        kept.wrong, kept.barred_until_s, kept.tried_s = "", 0.0, 0.0
        self._write(descriptor, kept)

    def _is_wrong(self, kept: Kept) -> bool:
        return bool(kept.wrong) and kept.wrong == self._credentials.stamp()

    def _is_barred(self, kept: Kept) -> bool:
        return self._clock.now() < kept.barred_until_s

    @contextmanager
    def _held(self) -> Iterator[int]:
        """Let one thread of one process look at the file and change it."""
        with self._lock:
            try:
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
            except OSError as error:
                raise TransientFault(f"The tokens' file cannot be opened: {error.strerror}.") from None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield descriptor
            finally:
                os.close(descriptor)

    def _read(self, descriptor: int) -> Kept:
        """Read what is kept; what is damaged, or another user's, is nothing."""
        user = hashlib.sha256(self._credentials.username.encode()).hexdigest()[:16]
        try:
            kept = msgspec.json.decode(os.pread(descriptor, _MOST_BYTES, 0), type=Kept)
        except (msgspec.DecodeError, UnicodeDecodeError):
            kept = Kept()
        if kept.username != user:
            return Kept(username=user)
        latest_s = self._clock.now() + BARRED_S
        if kept.barred_until_s > latest_s:  # noted by a clock that was set back since
            kept.barred_until_s = latest_s
            self._write(descriptor, kept)
        return kept

    def _write(self, descriptor: int, kept: Kept) -> None:
        """Write all of it. Cut off in the middle it is nothing, and then one token is asked for."""
        content = msgspec.json.encode(kept)
        os.fchmod(descriptor, FILE_MODE)
        os.pwrite(descriptor, content, 0)
        os.ftruncate(descriptor, len(content))
