"""Answers İYS: who may push, what is a push, and when it may be told that we have it.

GET /health            200 while rows can be kept, else 503
without credentials    401, as İYS looks whether they are asked for
GET, HEAD, empty POST  200 with good credentials
POST                   200 when its rows are on the disk, 400 for what is no push, 413, 408, 503
"""

import asyncio
import base64
import binascii
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

import msgspec
import structlog
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from iyscheck.errors import SettingsError
from loader.push.bodies import rows_of, sorted_out
from loader.push.credentials import Credential, Credentials
from loader.push.journal import Entry, JournalWriter
from loader.push.keeping import FullError, Keeping
from loader.push.metrics import ReceiverMetrics
from loader.push.quarantine import Quarantine

MOST_BYTES: Final = 8 * 2**20
BODY_S: Final = 10.0
"""So long a body may take. İYS itself waits for 5 seconds only, as far as it says."""
LEAST_FREE: Final = 0.05
"""Of the disk; below that the receiver says that it is not well, while it goes on taking what comes."""
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_ASKED: Final = ("GET", "HEAD", "POST")


class _Unanswered(Exception):  # noqa: N818 - an answer, and none that is good
    """A request that is not done, and why, as the metrics have it."""

    def __init__(self, outcome: str, status: HTTPStatus, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(outcome)
        self.outcome = outcome
        self.status = status
        self.headers = headers


class Receiver:
    """What answers. For one event loop."""

    def __init__(
        self,
        credentials: Credentials,
        journal: JournalWriter,
        quarantine: Quarantine,
        metrics: ReceiverMetrics,
        log: structlog.typing.FilteringBoundLogger,
        *,
        clock: Callable[[], float],
        networks: Sequence[IPv4Network | IPv6Network] = (),
        body_s: float = BODY_S,
    ) -> None:
        """`networks`: from where it is answered at all; none: from everywhere."""
        self._credentials = credentials
        self._journal = journal
        self._quarantine = quarantine
        self._metrics = metrics
        self._log = log
        self._clock = clock
        self._networks = tuple(networks)
        self._body_s = body_s
        self.keeping = Keeping(journal, clock=clock, took=metrics.synced)
        self.app = Starlette(routes=[Route("/{path:path}", self._answer, methods=list(_METHODS))])

    async def _answer(self, request: Request) -> Response:
        headers = None
        try:
            self._admit(request)
            if request.method == "GET" and request.url.path == "/health":
                return _said(HTTPStatus.OK if self._is_well() else HTTPStatus.SERVICE_UNAVAILABLE)
            credential = self._who(request.headers.get("authorization", ""))
            body = await self._body(request) if request.method == "POST" else b""
            with self._room(body):
                outcome, status = await self._taken(body, credential) if body else "empty", HTTPStatus.OK
        except _Unanswered as error:
            outcome, status, headers = error.outcome, error.status, error.headers
        self._metrics.answered(outcome)
        return _said(status, headers)

    async def _taken(self, body: bytes, credential: Credential) -> str:
        """Keep the rows of a push; say what came of it."""
        rows = await asyncio.to_thread(rows_of, body)
        if rows is None:
            await self._set_aside("malformed", credential, body)
            raise _Unanswered("malformed", HTTPStatus.BAD_REQUEST)
        found = sorted_out(rows, credential)
        try:
            if found.rows:
                entry = Entry(credential=credential.name, received_s=self._clock(), rows=found.rows)
                await self.keeping.keep(entry)
        except OSError as error:
            self._log.error("push_not_kept", error=type(error).__name__)
            raise _Unanswered("unwritable", HTTPStatus.SERVICE_UNAVAILABLE) from None
        if found.foreign:
            self._log.error("foreign_rows", credential=credential.name, rows=len(found.foreign))
            await self._set_aside("foreign", credential, msgspec.json.encode(found.foreign))
        if found.tests:
            self._log.info("test_row", credential=credential.name)
        self._metrics.rows(kept=len(found.rows), foreign=len(found.foreign), test=found.tests)
        return "kept" if found.rows else "empty"

    @contextmanager
    def _room(self, body: bytes) -> Iterator[None]:
        """Count a body as under way."""
        try:
            with self.keeping.room(len(body)):
                yield
        except FullError:
            self._log.error("push_not_kept", error="FullError")
            raise _Unanswered("unwritable", HTTPStatus.SERVICE_UNAVAILABLE) from None

    def _admit(self, request: Request) -> None:
        """Refuse who is not near, and what nobody asks."""
        if not self._is_near(request):
            raise _Unanswered("elsewhere", HTTPStatus.FORBIDDEN)
        if request.method not in _ASKED:
            headers = {"allow": ", ".join(_ASKED)}
            raise _Unanswered("malformed", HTTPStatus.METHOD_NOT_ALLOWED, headers)

    def _who(self, header: str) -> Credential:
        """Say whose credentials a request shows."""
        scheme, _, encoded = header.partition(" ")
        try:
            shown = base64.b64decode(encoded.strip() if scheme.lower() == "basic" else "", validate=True).decode()
            name, _, password = shown.partition(":")
            credential = self._credentials.check(name, password)
        except (binascii.Error, UnicodeDecodeError):
            credential = None
        except SettingsError as error:
            self._log.error("credentials_unreadable", message=str(error))
            raise _Unanswered("unwritable", HTTPStatus.SERVICE_UNAVAILABLE) from None
        if credential is None:
            headers = {"www-authenticate": 'Basic realm="iyscheck"'}
            raise _Unanswered("unauthorised", HTTPStatus.UNAUTHORIZED, headers)
        return credential

    async def _body(self, request: Request) -> bytes:
        """Read a body, which may not take for ever."""
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise _Unanswered("malformed", HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > MOST_BYTES:
            raise _Unanswered("too_large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_s):
                async for piece in request.stream():
                    body += piece
                    if len(body) > MOST_BYTES:
                        raise _Unanswered("too_large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        except TimeoutError:
            raise _Unanswered("slow", HTTPStatus.REQUEST_TIMEOUT) from None
        except ClientDisconnect:
            raise _Unanswered("slow", HTTPStatus.BAD_REQUEST) from None  # nobody is there to read it
        return bytes(body)

    def _is_near(self, request: Request) -> bool:
        if not self._networks:
            return True
        try:
            address = ip_address(request.client.host if request.client else "")
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def _is_well(self) -> bool:
        try:
            return not self.keeping.is_failing and self._journal.free_share() >= LEAST_FREE
        except OSError:
            return False

    async def _set_aside(self, why: str, credential: Credential, body: bytes) -> None:
        try:
            if not await asyncio.to_thread(self._quarantine.keep, why, credential.name, body):
                self._log.error("quarantine_full")
        except OSError as error:
            self._log.error("quarantine_unwritable", error=type(error).__name__)


def _said(status: HTTPStatus, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with an empty object: nothing is documented that İYS would read in it."""
    return JSONResponse({}, status_code=status, headers=headers)
