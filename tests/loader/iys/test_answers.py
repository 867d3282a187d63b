"""What comes back over real sockets: a whole answer or a fault, and nothing that only looks like an answer."""

import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pytest

from iyscheck.consent import RecipientType
from loader.iys import api
from loader.iys.faults import ForbiddenFault, IysFault, LockedFault, RefusedFault, SlowedFault, TransientFault
from loader.iys.messages import SubscriptionState
from tests.iys.accounts import Managed
from tests.iys.clock import VirtualClock
from tests.iys.fake import FakeIys
from tests.iys.faults import Cut, Fault
from tests.loader.iys.client import BRAND, CODE, PASSWORD, Client, connected, password_file

CUTS: tuple[Cut, ...] = ("length", "chunk", "gzip", "close")
JSON = b"content-type: application/json\r\n"


@contextmanager
def saying(raw: bytes, *, to_all: bool = False) -> Iterator[str]:
    """Say these bytes and close the connection; who asks for a token gets one, unless they are `to_all`."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    asked = b""
                    while not _is_whole(asked):
                        asked += connection.recv(65_536)
                    grant = b'{"access_token":"t","refresh_token":"r","expires_in":7200,"refresh_expires_in":14400}'
                    head = b"HTTP/1.1 200 OK\r\n" + JSON + b"connection: close\r\n\r\n"
                    is_token = asked.startswith(b"POST /oauth2/token ") and not to_all
                    connection.sendall(head + grant if is_token else raw)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def _is_whole(asked: bytes) -> bool:
    head, end, body = asked.partition(b"\r\n\r\n")
    length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
    return bool(end) and len(body) >= int(length.partition(b":")[2])


class TestPages:
    """Pages of the feed."""

    @pytest.mark.parametrize("how", CUTS)
    def test_cut(self, fake: FakeIys, client: Client, how: Cut) -> None:
        """A cut page is a fault, never an empty page; the same request then gets all of it."""
        fake.plan("changes", Fault.cut(how))
        with pytest.raises(TransientFault):
            client.changes()
        assert len(client.changes().rows) == 20

    @pytest.mark.parametrize("how", CUTS)
    @pytest.mark.parametrize("ask", [lambda iys: iys.brands(CODE), lambda iys: iys.subscription(CODE)])
    def test_other_answers_cut(self, fake: FakeIys, client: Client, how: Cut, ask: Callable[[api.Iys], object]) -> None:
        """Half a listing is none."""
        fake.plan("*", Fault.cut(how), nth=2)  # the first is for the token
        with pytest.raises(TransientFault):
            ask(client.iys)

    def test_gzip(self, fake: FakeIys, client: Client) -> None:
        """A compressed page is read."""
        plain = client.changes()
        fake.plan("changes", Fault.gzipped())
        assert client.changes().rows == plain.rows

    def test_bomb(self, fake: FakeIys, client: Client) -> None:
        """What becomes too large is given up at the cap."""
        fake.plan("changes", Fault.bomb(32))
        with pytest.raises(TransientFault, match="larger than"):
            client.changes()

    @pytest.mark.parametrize(
        "fault",
        [
            Fault.login_page(),
            Fault.broken_server(),
            Fault.errors_in_200(),
            Fault.said(200, "{}"),
            Fault.said(200, '{"list":[]}'),
            Fault.said(200, '{"after":"x"}'),
            Fault.said(200, '{"after":null,"list":[{"status":"RET"}]}'),
            Fault.said(206, '{"after":null,"list":[]}'),
            Fault.said(200, '{"after":null,"list":[]}', "text/plain"),
            Fault.said(302, '{"after":null,"list":[]}'),
            Fault.busy(),
            Fault.reset(),
            Fault.refuse(),
        ],
    )
    def test_no_page(self, fake: FakeIys, client: Client, fault: Fault) -> None:
        """What is no page is a fault that passes: not an empty page, and not the account's fault."""
        fake.plan("changes", fault)
        with pytest.raises(TransientFault):
            client.changes()
        assert len(client.changes().rows) == 20

    @pytest.mark.parametrize("framing", [b"content-length: 24\r\n", b"transfer-encoding: chunked\r\n"])
    def test_nothing_with_a_body(self, folder: Path, framing: bytes) -> None:
        """204 that has a body is not believed."""
        raw = b"HTTP/1.1 204 No Content\r\n" + JSON + framing + b'\r\n{"after":null,"list":[]}'
        with saying(raw) as url, connected(url, VirtualClock(), folder) as client, pytest.raises(TransientFault):
            client.changes()

    @pytest.mark.parametrize("more", [b"", b"content-length: 0\r\n", b"content-encoding: gzip\r\n"])
    def test_nothing(self, folder: Path, more: bytes) -> None:
        """204 is an empty page, also where its head speaks of a compression of nothing."""
        raw = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n" + more + b"\r\n"
        with saying(raw) as url, connected(url, VirtualClock(), folder) as client:
            page = client.changes()
        assert (page.rows, page.after, page.asked.ahead_s) == ((), None, None)

    def test_redirect(self, fake: FakeIys, folder: Path) -> None:
        """Nobody is sent elsewhere with a token."""
        raw = f"HTTP/1.1 307 Go\r\nlocation: {fake.url}/x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".encode()
        with saying(raw) as url, connected(url, VirtualClock(), folder) as client, pytest.raises(TransientFault):
            client.changes()
        assert not fake.requests

    @pytest.mark.parametrize("ahead_s", [-600.0, 0.0, 600.0])
    def test_date(self, fake: FakeIys, client: Client, ahead_s: float) -> None:
        """Each answer tells by how much İYS's clock is ahead, to a second; without `Date` it is not known."""
        fake.set_quirks(date_ahead_s=ahead_s)
        asked = client.changes().asked
        fake.set_quirks(date_header=False)

        assert asked.ahead_s == pytest.approx(ahead_s, abs=1.0)
        assert asked.at_s == fake.asked("changes")[0].at_s
        assert client.changes().asked.ahead_s is None

    @pytest.mark.parametrize("date_header", [b"", b"yesterday", b"Thu, 99 Xxx 2026 99:99:99 GMT", b"\xff", b"0 0 0 0"])
    def test_date_that_is_none(self, folder: Path, date_header: bytes) -> None:
        """An unreadable `Date` is none."""
        raw = b"HTTP/1.1 204 No Content\r\nconnection: close\r\ndate: " + date_header + b"\r\n\r\n"
        with saying(raw) as url, connected(url, VirtualClock(), folder) as client:
            assert client.changes().asked.ahead_s is None


class TestRefusals:
    """What İYS says instead."""

    @pytest.mark.parametrize(
        "body",
        [
            '{"errors":[{"code":"H353","message":"no"}]}',
            '{"errors":[{"code:":"H353","message":"no","location":["brandCode",0]}]}',
            '{"errors":[{"value":"H111","code:":"H353"}]}',
            '{"errors":{"code":"H353"}}',
            '{"code":"H353","message":"no"}',
            "<html>H353</html>",
        ],
    )
    def test_code(self, fake: FakeIys, client: Client, body: str) -> None:
        """İYS's code is found, however it is written down; the stream is forbidden, and the token stays."""
        fake.plan("changes", Fault.said(403, body))
        with pytest.raises(ForbiddenFault) as told:
            client.changes()
        assert (told.value.status, told.value.code) == (403, "H353")
        client.changes()
        assert len(fake.asked("token")) == 1

    def test_too_fast(self, fake: FakeIys, client: Client) -> None:
        """The answer "too fast" halves the pace of all, and nothing is lost (case 1)."""
        fake.plan("changes", Fault.too_fast())
        with pytest.raises(SlowedFault):
            client.changes()
        assert client.pace.rate() == 5.0 / 2
        assert len(client.changes().rows) == 20
        first, second = fake.asked("changes")
        assert second.at_s - first.at_s >= 1.0

    def test_value_is_not_repeated(self, fake: FakeIys, client: Client) -> None:
        """A refusal names fields, and never their values: these may be addresses."""
        body = '{"errors":[{"code":"H506","location":["source","a@b.example"],"value":"ayse@example.com"}]}'
        fake.plan("changes", Fault.said(422, body))
        with pytest.raises(RefusedFault) as told:
            client.changes()
        assert (told.value.code, told.value.location) == ("H506", ("source",))
        assert "@" not in str(told.value)

    @pytest.mark.parametrize(("status", "kind"), [(403, ForbiddenFault), (429, SlowedFault), (422, RefusedFault)])
    @pytest.mark.parametrize("more", [b"content-length: 999\r\n", b"content-encoding: br\r\n"])
    def test_cut(self, folder: Path, status: int, kind: type[IysFault], more: bytes) -> None:
        """A refusal whose body is cut or unreadable is still that refusal, and counted."""
        raw = b"HTTP/1.1 %d X\r\nconnection: close\r\n%s\r\n{" % (status, JSON + more)
        with saying(raw) as url, connected(url, VirtualClock(), folder) as client:
            with pytest.raises(kind):
                client.changes()
            assert client.guard.counts() == (2, int(status != 429))

    @pytest.mark.parametrize(
        "more", [b"content-length: 999\r\n", b"content-encoding: gzip\r\n", b"", b"location: /\r\n"]
    )
    def test_lock_cut(self, folder: Path, more: bytes) -> None:
        """A lock of tokens whose body is cut or unreadable is a lock: nobody asks again, whoever begins anew."""
        raw = b"HTTP/1.1 429 X\r\nconnection: close\r\n%s\r\n{" % (JSON + more)
        clock = VirtualClock()
        with saying(raw, to_all=True) as url:
            for _ in range(3):
                with connected(url, clock, folder) as client:
                    with pytest.raises(LockedFault):
                        client.changes()
                    clock.advance(1000)
                    assert client.guard.counts() == (1, 0)

    @pytest.mark.parametrize(
        ("code", "state"),
        [("H521", SubscriptionState.CLOSED), ("H524", SubscriptionState.ABSENT), ("H437", SubscriptionState.ABSENT)],
    )
    def test_subscription(self, fake: FakeIys, client: Client, code: str, state: SubscriptionState) -> None:
        """A subscription that is over is told as a refusal; İYS being broken says nothing of it."""
        fake.plan("subscription", Fault.forbidden(code))
        assert client.iys.subscription(CODE).state is state
        fake.plan("subscription", Fault.said(502, f'{{"code":"{code}"}}'))
        with pytest.raises(TransientFault):
            client.iys.subscription(CODE)

    def test_summary(self, fake: FakeIys, client: Client) -> None:
        """A count that is not there is not nought: that would prove a day without movements."""
        body = '{"changeStats":[{"type":"MESAJ","consents":[{"source":"HS","approval":0,"rejection":0}]}]}'
        fake.plan("*", Fault.said(200, body), nth=2)
        with pytest.raises(TransientFault):
            client.iys.summary(CODE, BRAND, date(2025, 12, 31), RecipientType.BIREYSEL)


class TestListing:
    """An integrator's listing, which decides what is closed."""

    @pytest.fixture
    def integrator(self, fake: FakeIys, tmp_path: Path) -> Iterator[api.Iys]:
        """Open the account of an integrator with 250 brands."""
        manages = [Managed(brand=brand, iys_code=CODE) for brand in range(1, 251)]
        fake.integrator(800_001, "helper-api", PASSWORD, manages)
        password_file(tmp_path)
        with connected(fake.url, fake.clock, tmp_path, username="helper-api") as client:
            yield client.iys

    @pytest.mark.parametrize("codes_as_text", [True, False])
    def test_whole(self, fake: FakeIys, integrator: api.Iys, *, codes_as_text: bool) -> None:
        """All pages are read, with codes as numbers and as text."""
        fake.set_quirks(codes_as_text=codes_as_text)
        assert {brand.brand for brand in integrator.providers(800_001)} == set(range(1, 251))

    @pytest.mark.parametrize("total", [249, 251, 350])
    def test_total_changes(self, fake: FakeIys, integrator: api.Iys, total: int) -> None:
        """A total that changes while pages are read is a fault."""
        fake.plan("providers", Fault.said(200, _listing(total, range(101, 201))), nth=2)
        with pytest.raises(TransientFault):
            integrator.providers(800_001)

    @pytest.mark.parametrize(
        ("nth", "total", "brands"),
        [
            (3, 250, range(200, 250)),  # one twice, one missing
            (3, 250, range(201, 201)),  # ends early
            (2, 250, range(1, 101)),  # a page twice
            (1, 2**60, range(1, 101)),  # no end
            (1, 1, range(1, 3)),  # more than all
            (1, 0, range(1, 2)),
        ],
    )
    def test_incomplete(self, fake: FakeIys, integrator: api.Iys, nth: int, total: int, brands: range) -> None:
        """A listing with a brand twice, too few or too many is a fault, after a few requests."""
        fake.plan("providers", Fault.said(200, _listing(total, brands)), nth=nth, count=None)
        with pytest.raises(TransientFault):
            integrator.providers(800_001)
        assert len(fake.asked("providers")) <= 4

    def test_total_is_missing(self, fake: FakeIys, integrator: api.Iys) -> None:
        """Without a total nobody knows whether that was all."""
        fake.plan("providers", Fault.said(200, '{"list":[]}'))
        with pytest.raises(TransientFault):
            integrator.providers(800_001)


def _listing(total: int, brands: range) -> str:
    listed = ",".join(f'{{"brandCode":"{brand:06}","iysCode":"{CODE}"}}' for brand in brands)
    return f'{{"pagination":{{"totalCount":{total}}},"list":[{listed}]}}'


class TestDayFile:
    """The file of a day on disk."""

    DAY = date(2025, 12, 31)

    @pytest.fixture
    def into(self, fake: FakeIys, tmp_path: Path) -> Path:
        """Let something happen on that day."""
        fake.move(BRAND, created_s=fake.clock.now() - 86_400)
        return tmp_path / "day.csv"

    @pytest.mark.parametrize("packed", [False, True])
    def test_whole(self, fake: FakeIys, client: Client, into: Path, *, packed: bool) -> None:
        """It is there whole, for its owner alone, whoever could read what lay there half."""
        fake.set_quirks(gzip=packed)
        part = into.with_name("day.csv.part")
        part.write_text("older and longer" * 100)
        part.chmod(0o644)

        assert client.iys.day_file(CODE, BRAND, self.DAY, into)

        assert into.read_bytes() == fake.file(BRAND, self.DAY) != b""
        assert stat.S_IMODE(into.stat().st_mode) == 0o600
        assert not part.exists()

    @pytest.mark.parametrize(
        "fault",
        [
            Fault.cut("length"),
            Fault.cut("chunk"),
            Fault.cut("gzip"),
            Fault.login_page(),
            Fault.errors_in_200(),
            Fault.said(206, "x\n", "text/csv"),
            Fault.reset(),
            Fault.broken_server(),
        ],
    )
    def test_fault(self, fake: FakeIys, client: Client, into: Path, fault: Fault) -> None:
        """A fault leaves nothing behind, and what was there as it was."""
        client.tokens.token()
        fake.plan("*", fault, count=None)
        into.write_text("old")
        with pytest.raises(TransientFault):
            client.iys.day_file(CODE, BRAND, self.DAY, into)
        assert into.read_text() == "old"
        assert not list(into.parent.glob("*.part"))

    def test_absent(self, client: Client, into: Path) -> None:
        """Where İYS has none there is none."""
        assert not client.iys.day_file(CODE, BRAND, date(2025, 12, 28), into)
        assert not into.exists()

    def test_new_token(self, fake: FakeIys, client: Client, into: Path) -> None:
        """What came with a refused token is not in the file."""
        client.tokens.token()
        fake.expire_tokens()
        assert client.iys.day_file(CODE, BRAND, self.DAY, into)
        assert into.read_bytes() == fake.file(BRAND, self.DAY)

    def test_cap(self, fake: FakeIys, client: Client, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file beyond the cap is given up, and nothing of it stays."""
        monkeypatch.setattr(api, "MOST_FILE_BYTES", len(fake.file(BRAND, self.DAY)) - 1)
        with pytest.raises(TransientFault, match="larger than"):
            client.iys.day_file(CODE, BRAND, self.DAY, into)
        assert not list(into.parent.glob("day.csv*"))
