import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from loader.iys import decoding
from loader.iys.faults import TransientFault
from loader.iys.guard import Guard
from loader.iys.limits import Limits
from loader.iys.messages import Asked, Page
from loader.iys.pace import Pace
from loader.iys.transport import Answer, Request, Transport
from tests.iys.clock import VirtualClock


def page(body: bytes) -> Page:
    """Read a body as a page of changes."""
    asked = Asked(at_s=0.0, ahead_s=None)
    return decoding.page_of(Answer(status=200, content_type="application/json", body=body, asked=asked))


def test_half_a_character() -> None:
    """Half an emoji in a name stops no page; in another field U+FFFD stands for it, which is in no address."""
    body = rb'{"after":"a","list":[{"citizenName":"A\ud83d","recipient":"a\ud83d@example.com","status":"ONAY"}]}'
    assert page(body).rows == ({"recipient": "a\ufffd@example.com", "status": "ONAY"},)


def test_whole_characters() -> None:
    """Characters that are escaped as two halves, and all others, are what they were."""
    text = "😀 ğ\u2028\x00"
    assert page(json.dumps({"after": "a", "list": [{"recipient": text}]}).encode()).rows == ({"recipient": text},)


def test_mark() -> None:
    """A byte order mark before a page is none of it."""
    assert page(b'\xef\xbb\xbf{"after":"a","list":[]}').after == "a"


@pytest.mark.parametrize("after", ["\ud83d", "ş"])
def test_cursor(after: str) -> None:
    """A cursor that could not be given back byte for byte is none."""
    with pytest.raises(TransientFault):
        page(json.dumps({"after": after, "list": [{}]}).encode())


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "[" * 100_000])
def test_no_json(number: str) -> None:
    """What only Python takes for JSON, or nobody can read, is a fault of ours."""
    with pytest.raises(TransientFault):
        page(f'{{"after":"a","list":[{{"x":{number}}}]}}'.encode())


class Setting(BaseHTTPRequestHandler):
    """Answers with a cookie and with how many it got."""

    def do_GET(self) -> None:
        """Answer."""
        got = len(self.headers.get_all("cookie", []))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("set-cookie", "session=1; Path=/")
        self.send_header("content-length", "1")
        self.end_headers()
        self.wfile.write(str(got).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


@pytest.fixture(name="url")
def _url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Setting) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_session(url: str, tmp_path: Path) -> None:
    """No cookie is given back: accounts share connections, and must not share a session."""
    clock, limits = VirtualClock(), Limits(tmp_path)
    transport = Transport(
        url, pace=Pace(limits, clock), guard=Guard(limits, clock), clock=clock, stop=threading.Event()
    )
    request = Request(method="GET", path="/", what="changes", stream="changes", query={})
    assert [transport.send(request).body for _ in range(2)] == [b"0", b"0"]
    transport.close()
