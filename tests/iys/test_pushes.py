import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.iys.asking import BRAND, Asker
from tests.iys.fake import FakeIys

REGISTRATION = f"{BRAND}/push/registration"


@dataclass
class Receiver:
    """Somebody who takes pushes, with what came. It may be slow, or let everybody in."""

    lets_all_in: bool = False
    slow: threading.Event = field(default_factory=threading.Event)
    bodies: list[dict[str, list[dict[str, object]]]] = field(default_factory=list)
    url: str = ""

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Serve until the end of the block."""
        self.slow.set()
        with ThreadingHTTPServer(("127.0.0.1", 0), self._handler()) as server:
            self.url = f"http://127.0.0.1:{server.server_port}/push"
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield
            finally:
                self.slow.set()
                server.shutdown()
                thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self
        good = "Basic " + base64.b64encode(b"iys:word").decode()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.slow.wait()
                is_in = receiver.lets_all_in or self.headers.get("authorization") == good
                self.send_response(200 if is_in else 401)
                self.send_header("WWW-Authenticate", "Basic")
                if is_in:
                    receiver.bodies.append(json.loads(body))
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def receiver(fake: FakeIys) -> Iterator[Receiver]:
    """A receiver without TLS, which this fake takes."""
    fake.set_quirks(push_plain_http=True)
    receiver = Receiver()
    with receiver.listening():
        yield receiver


def _connection(receiver: Receiver, **changes: str) -> dict[str, object]:
    connection = {"url": receiver.url, "type": "MESAJ", "username": "iys", "password": "word"}
    return {"connection": [connection | changes]}


class TestRegistration:
    """Where İYS pushes to."""

    def test_dummy(self, asker: Asker, receiver: Receiver) -> None:
        """A receiver that asks for credentials is sent the row of nobody, and is registered."""
        assert asker.ask(REGISTRATION, "POST", json=_connection(receiver)).status_code == 200
        assert [body["list"][0]["brandCode"] for body in receiver.bodies] == [121_212]
        (listed,) = asker.ask(REGISTRATION).json()
        assert (listed["url"], listed["status"]) == (receiver.url, "Bağlantı Oluşturuldu")

    def test_open_to_all(self, asker: Asker, receiver: Receiver) -> None:
        """A receiver that lets everybody in is refused."""
        receiver.lets_all_in = True
        answer = asker.ask(REGISTRATION, "POST", json=_connection(receiver))
        assert answer.json()["errors"][0]["code"] == "H530"

    def test_slow(self, fake: FakeIys, asker: Asker, receiver: Receiver) -> None:
        """A receiver that does not answer in time is refused, and İYS answers others meanwhile."""
        fake.set_quirks(push_timeout_s=0.2)
        receiver.slow.clear()
        assert asker.ask(REGISTRATION, "POST", json=_connection(receiver)).json()["errors"][0]["code"] == "H191"
        assert asker.ask(REGISTRATION).json() == []

    @pytest.mark.parametrize(
        ("changes", "code"),
        [({"url": "ftp://x"}, "H531"), ({"type": "FAX"}, "H117"), ({"password": ""}, "H093"), ({"type": ""}, "H111")],
    )
    def test_refused(self, asker: Asker, receiver: Receiver, changes: dict[str, str], code: str) -> None:
        """What lacks something is refused with its code, and nobody is asked."""
        answer = asker.ask(REGISTRATION, "POST", json=_connection(receiver, **changes))
        assert answer.json()["errors"][0]["code"] == code
        assert not receiver.bodies

    def test_third(self, asker: Asker, receiver: Receiver) -> None:
        """A channel has at most two addresses."""
        paths = [receiver.url, f"{receiver.url}/2", f"{receiver.url}/3"]
        statuses = [asker.ask(REGISTRATION, "POST", json=_connection(receiver, url=path)).status_code for path in paths]
        assert statuses == [200, 200, 422]

    def test_unregistration(self, asker: Asker, receiver: Receiver) -> None:
        """An address is taken away by its credentials only."""
        asker.ask(REGISTRATION, "POST", json=_connection(receiver))
        path, connection = f"{BRAND}/push/unregistration", _connection(receiver)["connection"]
        assert isinstance(connection, list)
        assert asker.ask(path, "POST", json=connection[0] | {"password": "guess"}).status_code == 422
        assert asker.ask(path, "POST", json=connection[0]).status_code == 200
        assert asker.ask(REGISTRATION).json() == []


class TestSending:
    """What is pushed."""

    def test_movements_of_citizens(self, fake: FakeIys, asker: Asker, receiver: Receiver) -> None:
        """Only what citizens moved is pushed, of that brand and channel, at once and once."""
        asker.ask(REGISTRATION, "POST", json=_connection(receiver))
        fake.move(600_001, "IYS", status="RET")
        fake.move(600_001, "IYS", channel="ARAMA")
        fake.move(600_002, "IYS")
        fake.move(600_001, "HS")
        assert [(sent.rows, sent.status) for sent in fake.push_all()] == [(1, 200)]
        (row,) = receiver.bodies[-1]["list"]
        assert (row["iysCode"], row["brandCode"], row["status"]) == (700_001, 600_001, "RET")
        assert fake.push_all() == []
        assert len(fake.push_all(again=True)) == 1

    def test_bodies(self, fake: FakeIys, asker: Asker, receiver: Receiver) -> None:
        """A body has at most 1000 rows."""
        asker.ask(REGISTRATION, "POST", json=_connection(receiver))
        for _ in range(1001):
            fake.move(600_001, "IYS")
        assert [sent.rows for sent in fake.push_all()] == [1000, 1]

    def test_nobody_there(self, fake: FakeIys, asker: Asker, receiver: Receiver) -> None:
        """What nobody took is lost; an address that İYS gave up gets nothing more."""
        asker.ask(REGISTRATION, "POST", json=_connection(receiver))
        fake.world.pushes.registered[0].url = "http://127.0.0.1:1/"  # nobody listens there
        fake.move(600_001, "IYS")
        assert [sent.status for sent in fake.push_all()] == [0]
        fake.break_push(600_001)
        fake.move(600_001, "IYS")
        assert fake.push_all() == []
        assert asker.ask(REGISTRATION).json()[0]["status"] == "Bağlantı Oluşturulamadı"
