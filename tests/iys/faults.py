"""What goes wrong on purpose: faults, and the plan of where they happen."""

import gzip
import zlib
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, Self

import msgspec

from tests.iys.answers import HTML, JSON, LOGIN_PAGE, Answer, refused

Cut = Literal["length", "chunk", "close", "gzip"]
Shape = Literal["errors", "top", "oauth"]
MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong: `answer` is said instead of the real one, the other kinds befall that."""

    kind: Literal[
        "answer", "locked", "cut", "gzip", "bomb", "delay", "pass", "hold", "reset", "refuse", "repeat", "reverse"
    ]
    status: int = 0
    code: str = ""
    body: str = ""
    content_type: str = JSON
    how: str = ""
    seconds: float = 0.0

    @classmethod
    def said(cls, status: int, body: str, content_type: str = JSON) -> Self:
        """Any answer instead of the real one."""
        return cls(kind="answer", status=status, body=body, content_type=content_type)

    @classmethod
    def too_fast(cls) -> Self:
        """429 H124: too many requests."""
        return cls._coded(429, "H124")

    @classmethod
    def token_locked(cls, shape: Shape = "errors") -> Self:
        """429 H084 in one of the shapes that were seen; the lock is real. For the operation `token`."""
        return cls(kind="locked", how=shape)

    @classmethod
    def unauthorized(cls) -> Self:
        """401 H351: the token is not good, although it is."""
        return cls._coded(401, "H351")

    @classmethod
    def forbidden(cls, code: str = "H353", *, odd_code_key: bool = False) -> Self:
        """403, with the key of the code spelled with a colon if so wished."""
        return cls._of(refused(403, code, odd_code_key=odd_code_key))

    @classmethod
    def busy(cls) -> Self:
        """400 H123: passes by itself."""
        return cls._coded(400, "H123")

    @classmethod
    def coded(cls, status: int, code: str, *location: str) -> Self:
        """Any refusal with a code of İYS."""
        return cls._of(refused(status, code, location=location))

    @classmethod
    def broken_server(cls, status: int = 502) -> Self:
        """5xx with a page of HTML, as balancers give it."""
        return cls.said(status, f"<html><body><h1>{status} Bad Gateway</h1></body></html>", HTML)

    @classmethod
    def login_page(cls) -> Self:
        """200 with a page of HTML."""
        return cls.said(200, LOGIN_PAGE.decode(), HTML)

    @classmethod
    def errors_in_200(cls, code: str = "H103") -> Self:
        """200 with a body of errors."""
        return cls._of(refused(200, code))

    @classmethod
    def empty_page(cls) -> Self:
        """200 with an empty list and a null cursor, whatever there is."""
        return cls.said(200, '{"after":null,"list":[]}')

    @classmethod
    def cut(cls, how: Cut) -> Self:
        """Half of the real body: short of its length, without last chunk, ended by closing, or a cut gzip stream."""
        return cls(kind="cut", how=how)

    @classmethod
    def gzipped(cls) -> Self:
        """The real body, compressed."""
        return cls(kind="gzip")

    @classmethod
    def bomb(cls, mebibytes: int = 128) -> Self:
        """A small compressed body that becomes so large."""
        return cls(kind="bomb", seconds=mebibytes)

    @classmethod
    def delay(cls, seconds: float) -> Self:
        """The real answer after so much real time."""
        return cls(kind="delay", seconds=seconds)

    @classmethod
    def time_passes(cls, seconds: float) -> Self:
        """The real answer, while the fake's clock moves on by so much before it is sent."""
        return cls(kind="pass", seconds=seconds)

    @classmethod
    def hold(cls) -> Self:
        """The real answer, but not before `FakeIys.let_go`."""
        return cls(kind="hold")

    @classmethod
    def reset(cls) -> Self:
        """İYS does what was asked, and the connection is reset instead of an answer."""
        return cls(kind="reset")

    @classmethod
    def refuse(cls) -> Self:
        """The connection is reset, and nothing is done."""
        return cls(kind="refuse")

    @classmethod
    def repeat(cls) -> Self:
        """The same page of the feed as the last time, cursor and all."""
        return cls(kind="repeat")

    @classmethod
    def reverse(cls) -> Self:
        """The page with its rows in the wrong order."""
        return cls(kind="reverse")

    @classmethod
    def _coded(cls, status: int, code: str) -> Self:
        return cls._of(refused(status, code))

    @classmethod
    def _of(cls, answer: Answer) -> Self:
        return cls(kind="answer", status=answer.status, code=answer.code, body=answer.body.decode())

    def instead(self) -> Answer | None:
        """Give what is said without doing what was asked, None where it is done."""
        if self.kind == "answer":
            return Answer(self.status, self.body.encode(), self.content_type, self.code)
        if self.kind == "locked":
            return _locked(self.how)
        if self.kind == "bomb":
            return Answer(200, _bomb(int(self.seconds)), headers={"content-encoding": "gzip"})
        return None

    def befall(self, answer: Answer) -> Answer:
        """Give what becomes of the real answer's body."""
        if self.kind == "gzip" or (self.kind == "cut" and self.how == "gzip"):
            packed = gzip.compress(answer.body, mtime=0)
            body = packed if self.kind == "gzip" else packed[: len(packed) // 2]
            return Answer(answer.status, body, answer.content_type, answer.code, {"content-encoding": "gzip"})
        if self.kind == "reverse":
            page = msgspec.json.decode(answer.body, type=dict[str, object])
            rows = page["list"]
            assert isinstance(rows, list)
            return Answer(answer.status, msgspec.json.encode(page | {"list": rows[::-1]}))
        return answer


def _locked(shape: str) -> Answer:
    words = "too many tokens"
    body: object = {
        "errors": {"errors": [{"code": "H084", "message": words}]},
        "top": {"code": "H084", "message": words},
        "oauth": {"error": "H084", "error_description": words},
    }[shape]
    return Answer(429, msgspec.json.encode(body), code="H084")


@cache
def _bomb(mebibytes: int) -> bytes:
    packer = zlib.compressobj(1, wbits=31)
    pieces = [packer.compress(b'{"after":"x","list":[')]
    pieces.extend(packer.compress(b" " * MEBIBYTE) for _ in range(mebibytes))
    return b"".join((*pieces, packer.compress(b"]}"), packer.flush()))


@dataclass(slots=True, kw_only=True)
class Planned:
    """A fault, and which requests it befalls: from the `nth` that fits on, `count` of them (None: all)."""

    operation: str
    fault: Fault
    nth: int = 1
    count: int | None = 1
    iys_code: int | None = None
    brand: int | None = None
    source: str | None = None
    seen: int = 0

    def fits(self, operation: str, iys_code: int | None, brand: int | None, source: str | None) -> bool:
        """Say whether a request is one of those that are counted."""
        return (
            self.operation in {operation, "*"}
            and self.iys_code in {None, iys_code}
            and self.brand in {None, brand}
            and self.source in {None, source}
        )

    def is_due(self) -> bool:
        """Count a request that fits, and say whether this one is befallen."""
        self.seen += 1
        return self.seen >= self.nth and (self.count is None or self.seen < self.nth + self.count)


@dataclass(slots=True)
class Plans:
    """All faults that are planned. The first that is due befalls a request; all that fit count it."""

    planned: list[Planned] = field(default_factory=list)

    def due(self, operation: str, iys_code: int | None, brand: int | None, source: str | None) -> Fault | None:
        """Count a request, and give the fault that befalls it."""
        due = [plan.fault for plan in self.planned if plan.fits(operation, iys_code, brand, source) and plan.is_due()]
        return due[0] if due else None
