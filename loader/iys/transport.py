"""One request to İYS and what came back: never redirected, paced, bounded, and not taken for whole when cut."""

import email.utils
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import httpx

from loader.iys import bodies
from loader.iys.clock import Clock
from loader.iys.failures import fault_of
from loader.iys.faults import IysFault, TransientFault
from loader.iys.guard import Guard
from loader.iys.messages import Asked
from loader.iys.pace import Pace

CONNECT_S: Final = 5.0
READ_S: Final = 60.0
WHOLE_S: Final = 900.0
"""A body that comes drop by drop is given up after so long."""
MOST_BYTES: Final = 16 * 2**20
"""Of an answer that is kept in memory. A page of 1,000 rows has 0.4 MB."""
MOST_SAID: Final = 64 * 1024
"""So much is read of what İYS says instead of an answer (bytes)."""

_GOOD: Final = frozenset({HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.NO_CONTENT})
"""Others below 300 stand for a part of an answer (206), or for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is sent. `what` names the operation for people, `stream` what the guard holds back: without addresses.

    Without a name for its stream the guard counts it, and never holds it back.
    """

    method: str
    path: str
    what: str
    stream: str
    query: Mapping[str, str]
    body: object = field(default=None, repr=False)
    most: int = MOST_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A good answer: `body` is decompressed, and empty where it was given to somebody else."""

    status: int
    content_type: str
    body: bytes = field(repr=False)
    asked: Asked

    @property
    def is_empty(self) -> bool:
        """Whether İYS says that there is nothing (204)."""
        return self.status == HTTPStatus.NO_CONTENT


class Transport:
    """Sends requests, one by one at the pace that all processes share. May be used by several threads."""

    def __init__(
        self,
        base_url: str,
        *,
        pace: Pace,
        guard: Guard,
        clock: Clock,
        stop: threading.Event,
        trusted: ssl.SSLContext | None = None,
    ) -> None:
        """`trusted` None: the authorities that this machine's Python packages trust. `stop` ends what waits."""
        self._client = httpx.Client(
            base_url=base_url.rstrip("/"),
            follow_redirects=False,
            timeout=httpx.Timeout(READ_S, connect=CONNECT_S),
            headers={"accept": "application/json, */*;q=0.8", "accept-encoding": "gzip", "user-agent": "iyscheck"},
            verify=True if trusted is None else trusted,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # accounts must not share a session
        )
        self._pace = pace
        self._guard = guard
        self._clock = clock
        self._stop = stop

    def close(self) -> None:
        """Close what is open."""
        self._client.close()

    def send(self, request: Request, *, token: str = "", take: Callable[[bytes], object] | None = None) -> Answer:
        """Send a request and return a good answer. `take` gets the body piece by piece instead of it being kept.

        Raises an IysFault for every other answer, and where none came.
        """
        self._guard.admit(request.stream)
        self._pace.take_turn(self._stop)
        sent_s = self._clock.now()
        status, fault = 0, None
        try:
            answer = self._sent(request, token, sent_s, take)
            status = answer.status
        except IysFault as failed:
            status, fault = failed.status, failed
            raise
        finally:
            if status:
                self._guard.answered(request.stream, status, fault)
            if status == HTTPStatus.TOO_MANY_REQUESTS:
                self._pace.slow_down(sent_s)
        return answer

    def _sent(self, request: Request, token: str, sent_s: float, take: Callable[[bytes], object] | None) -> Answer:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        with self._streamed(request, headers) as response:
            if response.status_code not in _GOOD:
                raise fault_of(request.what, response.status_code, _said(response))
            kept = bytearray()
            asked = Asked(at_s=sent_s, ahead_s=self._ahead_s(response.headers.get("date", ""), sent_s))
            if response.status_code != HTTPStatus.NO_CONTENT:
                _receive(response, request.most, kept.extend if take is None else take)
            elif response.headers.get("content-length", "0") != "0" or "transfer-encoding" in response.headers:
                raise TransientFault("İYS says that there is nothing, and sends it.", status=response.status_code)
            content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            return Answer(status=response.status_code, content_type=content_type, body=bytes(kept), asked=asked)

    @contextmanager
    def _streamed(self, request: Request, headers: dict[str, str]) -> Iterator[httpx.Response]:
        """Open an answer. Whatever goes wrong on the way is told by its kind alone: its text may have what was sent."""
        try:
            with self._client.stream(
                request.method, request.path, params=dict(request.query), json=request.body, headers=headers
            ) as response:
                yield response
        except httpx.HTTPError as error:
            raise TransientFault(f"İYS did not answer {request.what} ({type(error).__name__}).") from None

    def _ahead_s(self, date: str, sent_s: float) -> float | None:
        """Say by how many seconds İYS's clock is ahead as this answer has it; None where it does not say.

        No mean of several: a clock of ours that jumps would be believed for as long as the mean remembers it.
        """
        try:
            there = email.utils.parsedate_to_datetime(date).timestamp()
        except (ValueError, TypeError, OverflowError):
            return None
        here = (sent_s + self._clock.now()) / 2
        return there + 0.5 - here  # what is cut off is half a second in the middle


def _receive(response: httpx.Response, most: int, take: Callable[[bytes], object]) -> None:
    bodies.received(_in_time(response), response.headers.get("content-encoding", ""), most, take)


def _said(response: httpx.Response) -> bytes:
    """Read what İYS says instead of an answer, as far as it goes.

    Its status is known already, and must not be forgotten over a body that is cut: "too often" locks tokens.
    """
    said = bytearray()
    try:
        _receive(response, MOST_SAID, said.extend)
    except (TransientFault, httpx.HTTPError):
        return bytes(said)
    return bytes(said)


def _in_time(response: httpx.Response) -> Iterator[bytes]:
    began = time.monotonic()
    for piece in response.iter_raw():
        yield piece
        if time.monotonic() - began > WHOLE_S:
            raise TransientFault("İYS's answer came too slowly, and was given up.")
