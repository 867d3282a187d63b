"""What the console knows and from where: servers that come and go, pages of metrics that break off."""

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from iyscheck.console import sources
from iyscheck.console.readings import Reading
from iyscheck.console.sources import MetricsPage, Server, Trouble, Watch
from iyscheck.errors import ServiceFailedError, ServiceRefusedError, ServiceUnavailableError, SettingsError
from tests.console.world import FakeServer, brand, overview


class Pages:
    """A page of metrics that says what a test has put into it; None breaks the connection off."""

    def __init__(self) -> None:
        self.status = 200
        self.counted: float | None = 0.0
        self.port = 0
        self.free = threading.Event()
        """Until it is set, a page is waited for."""
        self.free.set()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}/metrics"


@contextmanager
def served() -> Iterator[Pages]:
    """Serve a page of metrics."""
    pages = Pages()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            pages.free.wait(30)
            if pages.counted is None:
                self.connection.close()
                return
            body = f'consent_check_decisions_total{{reason="REFUSED"}} {pages.counted}\n'.encode()
            self.send_response(pages.status)
            self.send_header("location", "http://127.0.0.1:1/")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    pages.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield pages
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class TestServer:
    """One server: what it said last, and what is the matter with it."""

    def test_comes_and_goes(self) -> None:
        """What it said last is kept with its time while it does not answer, and its trouble is told."""
        fake, clock = FakeServer(), iter([10.0, 20.0])
        server = Server("a:1", fake, lambda: next(clock))
        assert (server.trouble, server.answers) == (Trouble.NOT_ASKED_YET, False)

        asyncio.run(server.look())
        assert (server.trouble, server.heard_at, server.overview) == (None, 10.0, fake.said)

        fake.said = ServiceRefusedError("x", code="CALL_NOT_ALLOWED")
        asyncio.run(server.look())
        assert (server.trouble, server.code, server.heard_at) == (Trouble.REFUSED, "CALL_NOT_ALLOWED", 10.0)
        assert server.overview is not None

        fake.said = overview()
        asyncio.run(server.look())
        assert (server.trouble, server.code, server.heard_at) == (None, "", 20.0)

    @pytest.mark.parametrize(
        ("error", "trouble"),
        [(ServiceUnavailableError("x"), Trouble.UNREACHABLE), (ServiceFailedError("x"), Trouble.FAILED)],
    )
    def test_troubles(self, error: ServiceUnavailableError, trouble: Trouble) -> None:
        """Each kind of error is a state."""
        server = Server("a:1", FakeServer(said=error))
        asyncio.run(server.look())

        assert server.trouble is trouble

    def test_odd_server(self) -> None:
        """A server that fails in a way nobody thought of is in trouble itself, and blinds nobody to the others."""
        odd, other = Server("a:1", FakeServer(said=OverflowError("x"))), Server("b:1", FakeServer())
        told: list[Exception] = []
        watch = Watch([odd, other], [], failed=told.append)
        asyncio.run(_one_look(watch))

        assert (odd.trouble, other.trouble, told) == (Trouble.FAILED, None, [])
        with pytest.raises(ServiceFailedError):
            asyncio.run(odd.brands())

    def test_lists_are_kept(self) -> None:
        """A list is asked for again only after some seconds, so that clicks cost the server nothing."""
        now = [100.0]
        fake = FakeServer(listed_brands=[brand(1)])
        server = Server("a:1", fake, lambda: now[0])

        first = asyncio.run(server.brands())
        fake.listed_brands = [brand(1), brand(2)]
        second = asyncio.run(server.brands())
        now[0] += 6
        third = asyncio.run(server.brands())

        assert [len(each.items) for each in (first, second, third)] == [1, 1, 2]
        assert not third.more

    def test_lists_are_bounded(self) -> None:
        """Of a long list so many are taken, no more are asked for, and it is said that there are more."""
        there = iter([brand(1)] * 30_000)
        listed = asyncio.run(Server("a:1", FakeServer(listed_brands=there)).brands())

        assert (len(listed.items), listed.more) == (20_000, True)
        assert sum(1 for _ in there) == 9_999


class TestMetrics:
    """Pages of metrics."""

    @pytest.mark.parametrize("url", ["", "x", "ftp://a/", "http://", "http://a:x/", "http://u:p@a/", "file:///etc/x"])
    def test_no_url(self, url: str) -> None:
        """What is no URL of such a page is refused at the start."""
        with pytest.raises(SettingsError):
            MetricsPage.at(url, None)

    def test_path(self) -> None:
        """Without a path it is the usual one."""
        assert MetricsPage.at("http://a:1", None).url.path == "/metrics"

    def test_counted(self) -> None:
        """From one look to the next so many were counted; after a gap counting begins anew, without a rush."""
        with served() as pages:
            page = MetricsPage.at(pages.url, None)

            async def looked(counted: float | None) -> dict[str, float] | None:
                pages.counted = counted
                return await page.look()

            async def all_looks() -> list[dict[str, float] | None]:
                return [await looked(counted) for counted in (5, 9, None, 1_000, 1_003)]

            found = asyncio.run(all_looks())

        assert found == [None, {"REFUSED": 4.0}, None, None, {"REFUSED": 3.0}]

    def test_late(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What a late page brings is shared out among the looks that it was waited for, and nothing is lost."""
        monkeypatch.setattr(sources, "PATIENCE_S", 0.02)
        with served() as pages:
            page = MetricsPage.at(pages.url, None)

            async def until_told() -> list[dict[str, float] | None]:
                page.reading, pages.counted = Reading.of('consent_check_decisions_total{reason="REFUSED"} 4'), 16.0
                pages.free.clear()
                waited = [await page.look() for _ in range(2)]
                assert page.trouble is Trouble.SLOW
                pages.free.set()
                while (told := await page.look()) is None:
                    waited.append(None)
                return [*waited, told]

            found = asyncio.run(until_told())

        assert found[-1] == {"REFUSED": 12.0 / len(found)}
        assert found[:-1] == [None] * (len(found) - 1)
        assert (page.trouble, page.late) == (None, 0)

    @pytest.mark.parametrize(("status", "trouble"), [(404, Trouble.NO_METRICS), (302, Trouble.NO_METRICS)])
    def test_no_metrics(self, status: int, trouble: Trouble) -> None:
        """Another answer than a page is a state; nobody is followed elsewhere."""
        with served() as pages:
            pages.status = status
            watch = Watch([], [MetricsPage.at(pages.url, None)])
            asyncio.run(_one_look(watch))

        assert watch.metrics[0].trouble is trouble

    @pytest.mark.parametrize("endless", [b"HTTP/1.1 100 Continue\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\n\r\n"])
    def test_drips(self, endless: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        """A page that comes drop by drop is given up in the time for all of it, whatever drips."""
        monkeypatch.setattr(sources, "_FETCH_S", 0.4)
        over = threading.Event()

        def drip(listening: socket.socket) -> None:
            connection, _ = listening.accept()
            with connection, suppress(OSError):
                connection.sendall(endless)
                while not over.wait(0.05):
                    connection.sendall(endless if b"100" in endless else b"#")

        with socket.create_server(("127.0.0.1", 0)) as listening:
            thread = threading.Thread(target=drip, args=(listening,))
            thread.start()
            page = MetricsPage.at(f"http://127.0.0.1:{listening.getsockname()[1]}/metrics", None)
            failed: list[Exception] = []

            def fetch() -> None:
                try:
                    page.fetch()
                except Exception as error:  # noqa: BLE001 - each of them ends it
                    failed.append(error)

            fetching = threading.Thread(target=fetch, daemon=True)
            fetching.start()
            fetching.join(8)
            in_time = not fetching.is_alive()
            over.set()
            thread.join()

        assert in_time
        assert isinstance(failed[0], OSError | http.client.HTTPException)

    def test_end_waits_for_no_page(self) -> None:
        """Who looks no more does not wait for a page that is under way, nor does the process."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            watch = Watch([], [MetricsPage.at(f"http://127.0.0.1:{listening.getsockname()[1]}/metrics", None)])
            begun = time.monotonic()
            asyncio.run(_one_look(watch))
            ended = time.monotonic()
            fetching = [thread for thread in threading.enumerate() if thread.name.startswith("metrics of")]

        assert watch.metrics[0].trouble is Trouble.SLOW
        assert ended - begun < 8.0
        assert all(thread.daemon for thread in fetching)

    def test_nobody(self) -> None:
        """Where nobody listens the page is unreachable, and looking goes on."""
        watch = Watch([], [MetricsPage.at("http://127.0.0.1:1/metrics", None)])
        asyncio.run(_one_look(watch))

        assert watch.metrics[0].trouble is Trouble.UNREACHABLE
        assert watch.looks == 1


class TestWatch:
    """Looking, again and again."""

    def test_rows(self) -> None:
        """What was counted at one look is one row, over all pages that could be read."""
        with served() as one, served() as other:
            watch = Watch(
                [], [MetricsPage.at(one.url, None), MetricsPage.at(other.url, None)], clock=lambda: 100.0, every_s=0.01
            )

            async def looks() -> None:
                running = asyncio.ensure_future(watch.run())
                await watch.after(0, 30)
                one.counted, other.counted = 10.0, 4.0
                looked = watch.looks
                while watch.looks < looked + 2:
                    await watch.after(watch.looks, 30)
                running.cancel()
                await asyncio.wait([running])

            asyncio.run(looks())

        assert watch.ring.sums(100.0, 60)["REFUSED"] == 14.0

    def test_goes_on(self) -> None:
        """A look that breaks off is told, and the next one comes."""
        told: list[Exception] = []
        again = asyncio.Event()

        def broken() -> None:
            raise RuntimeError

        def failed(error: Exception) -> None:
            told.append(error)
            if len(told) > 1:
                again.set()

        watch = Watch([], [], every_s=0.01, each_look=broken, failed=failed)

        async def looks() -> None:
            running = asyncio.ensure_future(watch.run())
            await asyncio.wait_for(again.wait(), 30)
            running.cancel()
            await asyncio.wait([running])

        asyncio.run(looks())
        assert isinstance(told[0], RuntimeError)

    def test_end(self) -> None:
        """Whoever waits for a look is let go at the end."""

        async def waited() -> bool:
            watch = Watch([], [])
            waiting = asyncio.ensure_future(watch.after(0, 3_600))
            await asyncio.sleep(0)
            await watch.end()
            return await asyncio.wait_for(waiting, 20)

        assert asyncio.run(waited()) is False


async def _one_look(watch: Watch) -> None:
    running = asyncio.ensure_future(watch.run())
    await watch.after(0, 30)
    running.cancel()
    await asyncio.wait([running])
