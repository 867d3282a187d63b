import gzip
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx
import pytest

from tests.iys.asking import BRAND, Asker
from tests.iys.fake import FakeIys
from tests.iys.faults import Cut, Fault, Shape


@pytest.fixture
def moved(fake: FakeIys) -> FakeIys:
    """A fake whose first brand has a row to show."""
    fake.move(600_001, created_s=fake.clock.now() - 3600)
    return fake


class TestPlan:
    """Where faults happen."""

    def test_nth_and_count(self, moved: FakeIys, asker: Asker) -> None:
        """A fault befalls so many of the requests that fit, from the nth on, and no others."""
        moved.plan("changes", Fault.broken_server(), nth=2, count=2, source="HS")
        sources = ["HS", "IYS", "HS", "IYS", "HS", "HS"]
        statuses = [asker.changes(source=source).status_code for source in sources]
        assert statuses == [200, 204, 502, 204, 502, 200]

    def test_other_brand(self, moved: FakeIys, asker: Asker) -> None:
        """A fault planned for a brand leaves the others alone."""
        moved.plan("changes", Fault.forbidden(), brand=600_002, count=None)
        assert asker.changes(source="HS").status_code == 200
        assert asker.ask("/sps/700001/brands/600002/consents/changes").status_code == 403


class TestBodies:
    """Each fault is what it says."""

    @pytest.mark.parametrize("how", ["length", "chunk"])
    def test_cut_is_seen(self, moved: FakeIys, asker: Asker, how: Cut) -> None:
        """A body short of its length or last chunk is an error of the connection."""
        moved.plan("changes", Fault.cut(how))
        with pytest.raises(httpx.RemoteProtocolError):
            asker.changes(source="HS")
        assert asker.changes(source="HS").status_code == 200

    def test_cut_by_closing(self, moved: FakeIys, asker: Asker) -> None:
        """A body that ends where the connection does is half the body with status 200, and no error."""
        whole = asker.changes(source="HS").content
        moved.plan("changes", Fault.cut("close"))
        assert asker.changes(source="HS").content == whole[: len(whole) // 2]

    def test_cut_gzip(self, moved: FakeIys, asker: Asker) -> None:
        """A cut gzip stream is as long as its header says, and still not whole."""
        moved.plan("changes", Fault.cut("gzip"))
        asker.sign_in()
        moved.advance(1.0)
        headers = {"authorization": f"Bearer {asker.token}"}
        with asker.http.stream("GET", f"{BRAND}/consents/changes?source=HS", headers=headers) as answer:
            raw = b"".join(answer.iter_raw())
        assert answer.headers["content-encoding"] == "gzip"
        with pytest.raises(EOFError):
            gzip.decompress(raw)

    def test_reset(self, moved: FakeIys, asker: Asker) -> None:
        """A reset is an error of the connection, and what was asked is done."""
        refresh = {"grant_type": "refresh_token", "refresh_token": asker.sign_in()}
        moved.plan("token", Fault.reset())
        with pytest.raises(httpx.ReadError):
            asker.http.post("/oauth2/token", json=refresh)
        assert asker.http.post("/oauth2/token", json=refresh).status_code == 400

    def test_refuse(self, moved: FakeIys, asker: Asker) -> None:
        """A refused connection does nothing."""
        refresh = {"grant_type": "refresh_token", "refresh_token": asker.sign_in()}
        moved.plan("token", Fault.refuse())
        with pytest.raises(httpx.ReadError):
            asker.http.post("/oauth2/token", json=refresh)
        assert asker.http.post("/oauth2/token", json=refresh).status_code == 200

    def test_bomb(self, moved: FakeIys, asker: Asker) -> None:
        """A bomb is small on the wire and large behind it."""
        moved.plan("changes", Fault.bomb(8))
        answer = asker.changes()
        assert len(answer.content) > 8 << 20
        assert int(answer.headers["content-length"]) < 1 << 20

    @pytest.mark.parametrize("shape", ["errors", "top", "oauth"])
    def test_locked(self, moved: FakeIys, asker: Asker, shape: Shape) -> None:
        """A planned lock is a real one, in each of its shapes."""
        moved.plan("token", Fault.token_locked(shape))
        body = {"grant_type": "password", "username": "acme", "password": "secret"}
        first, second = (asker.http.post("/oauth2/token", json=body) for _ in range(2))
        assert "H084" in first.text
        assert second.status_code == 429
        assert moved.broken_limits[-1].restarted

    def test_repeat(self, moved: FakeIys, asker: Asker) -> None:
        """A repeated page is the same page, whatever cursor is sent."""
        page = asker.changes(source="HS")
        moved.plan("changes", Fault.repeat())
        assert asker.changes(source="HS", after=page.json()["after"]).content == page.content

    def test_time_passes(self, moved: FakeIys, asker: Asker) -> None:
        """While an answer is on its way the clock may move on: its `Date` is later than the question."""
        moved.plan("changes", Fault.time_passes(600.0))
        answer = asker.changes()
        before_s = moved.asked("changes")[0].at_s
        assert moved.clock.now() == before_s + 600.0
        assert answer.headers["date"]

    def test_hold(self, moved: FakeIys, asker: Asker) -> None:
        """A held request is answered when it is let go."""
        moved.plan("changes", Fault.hold())
        asker.sign_in()
        done = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(asker.changes)
            future.add_done_callback(lambda _: done.set())
            assert moved.until(lambda: bool(moved.asked("changes")))
            assert not done.is_set()
            moved.let_go()
            assert future.result().status_code == 204

    def test_date(self, moved: FakeIys, asker: Asker) -> None:
        """Answers tell the time of the fake's clock, another, or none."""

        def told() -> float:
            return parsedate_to_datetime(asker.changes().headers["date"]).timestamp()

        assert told() == moved.clock.now()
        moved.set_quirks(date_ahead_s=600.0)
        assert told() == moved.clock.now() + 600.0
        moved.set_quirks(date_header=False)
        assert "date" not in asker.changes().headers

    def test_gzip(self, moved: FakeIys, asker: Asker) -> None:
        """Answers may be compressed, always for one fault or for all who take it."""
        plain = asker.changes(source="HS")
        moved.plan("changes", Fault.gzipped())
        packed = asker.changes(source="HS")
        moved.set_quirks(gzip=True)
        assert [each.headers["content-encoding"] for each in (packed, asker.changes(source="HS"))] == ["gzip"] * 2
        assert packed.content == plain.content

    def test_reverse(self, moved: FakeIys, asker: Asker) -> None:
        """A page may have its rows in the wrong order."""
        moved.move(600_001, created_s=moved.clock.now() - 3601)
        moved.plan("changes", Fault.reverse())
        pages = [asker.changes(source="HS").json()["list"] for _ in range(2)]
        assert pages[0] == pages[1][::-1]
        assert len(pages[0]) == 2

    def test_no_leftovers(self, moved: FakeIys, asker: Asker) -> None:
        """After a cut answer nothing more comes down its connection."""
        asker.sign_in()
        moved.advance(1.0)
        moved.plan("changes", Fault.cut("length"))
        where = urlsplit(moved.url)
        with socket.create_connection((str(where.hostname), int(where.port or 0))) as connection:
            head = f"GET {BRAND}/consents/changes?source=HS HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {asker.token}"
            connection.sendall(f"{head}\r\n\r\n".encode())
            raw = b""
            while piece := connection.recv(65_536):
                raw += piece
        assert raw.count(b"HTTP/1.1") == 1
