"""The console over a real port: who sees which page, what a form may say, and what is never told."""

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from msgspec.structs import replace

from iyscheck.change import LogStanding
from iyscheck.consent import Channel, Reason, RecipientType
from iyscheck.console.guard import CONTENT_SECURITY_POLICY
from iyscheck.console.serving import SILENT_S
from iyscheck.errors import ServiceRefusedError, ServiceUnavailableError
from iyscheck.overview import BrandState, Loaded, Rejected
from iyscheck.sentences import Language, explain
from tests.console.world import (
    KEYS,
    Browser,
    FakeServer,
    World,
    answer,
    brand,
    caller,
    callers_text,
    overview,
    running,
    source,
)

PHONE = "+905321112233"
ASKED = {"brand": 1001, "channel": "MESAJ", "recipient_type": "BIREYSEL", "retailer": "", "address": PHONE}
BRANDS = [brand(1000 + number) for number in range(1, 121)]
SOURCES = [
    source("/feeds/a.jsonl"),
    source("/feeds/<b onclick=x>.jsonl", Loaded.HELD, [Rejected(line=17, field="recipient", reason="INVALID_ADDRESS")]),
    source("c", Loaded.UNFINISHED),
]
PAGES = ("/overview", "/brands", "/sources", "/callers", "/servers", "/explain")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A console over one server that answers."""
    fake = FakeServer(listed_brands=BRANDS, listed_sources=SOURCES)
    with running(tmp_path_factory.mktemp("console"), {"gw1:50051": fake}, explains_a_minute=1_000) as made:
        yield made


@pytest.fixture
def both(world: World) -> Browser:
    """A browser of somebody who may do everything."""
    return world.browser().log_in("both")


class TestLogIn:
    """A key opens a session, and nothing else does."""

    @pytest.mark.parametrize("path", [*PAGES, "/"])
    def test_without(self, world: World, path: str) -> None:
        """Whoever has not logged in is sent to the log-in, from every page."""
        reply = world.browser().get(path)

        assert (reply.status, reply.headers["location"]) == (303, "/login")

    @pytest.mark.parametrize("path", ["/overview/live", "/overview/series"])
    def test_parts_without(self, world: World, path: str) -> None:
        """Parts of pages are refused, so that scripts see it."""
        assert world.browser().get(path).status == 401

    def test_cookie(self, world: World) -> None:
        """The cookie is kept from scripts and from other sites, and is not the key."""
        reply = world.browser().post("/login", {"key": f"  {KEYS['both'].text}\n"})
        cookie = reply.headers["set-cookie"]

        assert (reply.status, reply.headers["location"]) == (303, "/overview")
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
        assert KEYS["both"].text not in cookie

    def test_cookie_of_somebody_else(self, world: World) -> None:
        """A made-up cookie is nobody's, and a page says that its session has ended."""
        browser = Browser(world.port, {"iyscheck-console": "x" * 43})

        assert browser.get("/overview").headers["location"] == "/login?ended=1"
        assert "The session has ended" in browser.get("/login?ended=1").text

    @pytest.mark.parametrize(
        "key", ["", "x", KEYS["both"].text[:-1], KEYS["sender"].text], ids=["none", "no key", "cut", "no right"]
    )
    def test_refused(self, tmp_path: Path, key: str) -> None:
        """No key, half a key and a caller without the right are refused alike, and the log has no key."""
        with running(tmp_path) as world:
            reply = world.browser().post("/login", {"key": key})

            assert reply.status == 401
            assert "set-cookie" not in reply.headers
            assert "No caller has this key, or it may not use the console." in reply.text
            assert '"event": "log_in_refused"' in world.log.getvalue()
            assert len(key) < 2 or key not in world.log.getvalue() + reply.text

    def test_slowed(self, tmp_path: Path) -> None:
        """After five wrong keys even a right one has to wait; whoever is in stays in."""
        with running(tmp_path) as world:
            inside = world.browser().log_in("both")
            statuses = [world.browser().post("/login", {"key": "x"}).status for _ in range(7)]
            reply = world.browser().post("/login", {"key": KEYS["both"].text})

            assert statuses == [401] * 5 + [429] * 2
            assert reply.status == 429
            assert 1 <= int(reply.headers["retry-after"]) <= 13
            assert inside.get("/overview").status == 200

    def test_log_out(self, both: Browser) -> None:
        """After a log-out the cookie opens nothing, wherever it was kept."""
        kept = dict(both.cookies)
        reply = both.post("/logout", {})

        assert (reply.status, reply.headers["location"]) == (303, "/login")
        both.cookies = kept
        assert both.get("/overview").status == 303

    def test_revoked(self, tmp_path: Path) -> None:
        """Who is taken out of the callers file is out within seconds."""
        with running(tmp_path) as world:
            browser, other = world.browser().log_in("both"), world.browser().log_in("looker")
            (tmp_path / "callers.toml").write_text(callers_text(without="both"))
            deadline = time.monotonic() + 30
            while browser.get("/overview").status != 303 and time.monotonic() < deadline:
                world.callers.look()

            assert browser.get("/overview").status == 303
            assert other.get("/overview").status == 200


class TestRights:
    """Each right opens its screens and no others."""

    @pytest.mark.parametrize(
        ("caller", "statuses", "start"),
        [
            ("both", [200, 200, 200, 200, 200, 200], "/overview"),
            ("looker", [200, 200, 200, 200, 200, 403], "/overview"),
            ("asker", [403, 403, 403, 403, 403, 200], "/explain"),
        ],
    )
    def test_pages(self, world: World, caller: str, statuses: list[int], start: str) -> None:
        """`console` opens the screens about servers, `explain` the one about an address."""
        browser = world.browser().log_in(caller)

        assert [browser.get(path).status for path in PAGES] == statuses
        assert browser.get("/").headers["location"] == start
        links = re.findall(r'<li><a href="(/[a-z]+)"', browser.get(start).text)
        assert links == [path for path, status in zip(PAGES, statuses, strict=True) if status == 200]

    @pytest.mark.parametrize("path", ["/overview/live", "/overview/series"])
    def test_parts(self, world: World, path: str) -> None:
        """The parts of a page have the right of the page."""
        assert world.browser().log_in("asker").get(path).status == 403

    def test_asking(self, world: World) -> None:
        """Without the right to explain no server is asked, whatever is sent."""
        asked = len(world.servers["gw1:50051"].asked)

        assert world.browser().log_in("looker").post("/explain", ASKED).status == 403
        assert len(world.servers["gw1:50051"].asked) == asked


class TestGuard:
    """What every request and response is held to."""

    @pytest.mark.parametrize("path", ["/login", "/nothing", "/static/console.js", "/overview", "/brands"])
    def test_headers(self, both: Browser, path: str) -> None:
        """Every response has the policy, also errors and files, and it allows nothing inline."""
        reply = both.get(path)

        assert reply.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] == ("no-cache" if "static" in path else "no-store")
        assert "server" not in reply.headers

    def test_policy(self) -> None:
        """The policy allows nothing but what is named, and nothing unsafe."""
        assert CONTENT_SECURITY_POLICY.startswith("default-src 'none'; ")
        assert "unsafe" not in CONTENT_SECURITY_POLICY
        assert "*" not in CONTENT_SECURITY_POLICY

    @pytest.mark.parametrize("path", ["/login", "/logout", "/explain"])
    @pytest.mark.parametrize("origin", ["", "null", "http://evil.example", "https://127.0.0.1", "http://127.0.0.1:1"])
    def test_origin(self, both: Browser, path: str, origin: str) -> None:
        """A form that no page of ours has sent is refused: without origin, of another scheme, host or port."""
        assert both.post(path, {**ASKED, "key": "x"}, origin=origin).status == 403
        assert both.get("/overview").status == 200  # and has not even logged out

    def test_other_site(self, both: Browser) -> None:
        """What a browser says comes from another site is refused, whatever origin stands beside it."""
        assert both.post("/logout", {}, sec_fetch_site="cross-site").status == 403

    @pytest.mark.parametrize("host", ["evil.example", "evil.example:9480", "10.0.0.1", "localhost.evil.example", "["])
    def test_rebinding(self, both: Browser, host: str) -> None:
        """On this machine it answers to names of this machine only."""
        assert both.get("/overview", host=host).status == 403

    @pytest.mark.parametrize("host", ["localhost:9", "[::1]:9480", "127.0.0.2"])
    def test_names(self, both: Browser, host: str) -> None:
        """Every name of this machine is good, with any port: it may come by a tunnel."""
        assert both.get("/overview", host=host).status == 200

    def test_methods(self, both: Browser) -> None:
        """A page that is asked for by another method is an error that has a page."""
        assert both.post("/brands", {}).status == 405

    @pytest.mark.parametrize(
        ("body", "kind", "status"),
        [
            (b"key=" + b"x" * 5_000, "application/x-www-form-urlencoded", 413),
            (b"{}", "application/json", 415),
            (b"key=%ff", "application/x-www-form-urlencoded", 400),
            (b"key=a&key=b", "application/x-www-form-urlencoded", 400),
            (b"&".join(b"k%d=1" % number for number in range(50)), "application/x-www-form-urlencoded", 400),
        ],
        ids=["large", "other kind", "unreadable", "twice", "many"],
    )
    def test_bodies(self, world: World, body: bytes, kind: str, status: int) -> None:
        """A form is small, of one kind, readable, and has each field once."""
        reply = world.browser().post("/login", body, content_type=kind)

        assert reply.status == status
        assert "This request cannot be answered" in reply.text


def test_silent_connections(tmp_path: Path) -> None:
    """A connection that says nothing, or half a request, or nothing more, is ended; a page that is live is not."""
    with running(tmp_path, silent_s=0.5) as world:
        browser = world.browser().log_in("both")
        live = browser.connection()
        live.request("GET", "/overview/live", headers={"cookie": browser.cookie})
        news = live.getresponse()
        sent = (b"", b"GET / HTTP/1.1\r\nhost: loc", b"GET /login HTTP/1.1\r\nhost: localhost\r\n\r\n")
        silent = [socket.create_connection(("127.0.0.1", world.port)) for _ in sent]
        for each, text in zip(silent, sent, strict=True):
            each.settimeout(30)
            each.sendall(text)
        ended = [_to_the_end(each) for each in silent]
        event = [_event(news) for _ in range(5)][-1]
        live.close()

    assert [bool(text) for text in ended] == [False, False, True]
    assert event[0].startswith("id: ")


@pytest.mark.parametrize("silent_s", [0.3, 60.0])
def test_who_never_reads(tmp_path: Path, silent_s: float) -> None:
    """A connection that asks again and again and takes nothing is ended, whether it is closed already or not."""
    with running(tmp_path, silent_s=silent_s, unread_s=1.0) as world, socket.socket() as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        greedy.settimeout(0.5)
        greedy.connect(("127.0.0.1", world.port))
        ended = False
        deadline = time.monotonic() + 20
        while not ended and time.monotonic() < deadline:
            try:
                greedy.sendall(b"GET /static/uPlot.iife.min.js HTTP/1.1\r\nhost: localhost\r\n\r\n" * 100)
            except TimeoutError:
                continue
            except OSError:
                ended = True

    assert ended


def test_silence_is_short() -> None:
    """Connections that say nothing lock nobody out for long."""
    assert SILENT_S <= 10


def _to_the_end(connection: socket.socket) -> bytes:
    """Read until the other side ends."""
    with connection:
        return b"".join(iter(lambda: connection.recv(65_536), b""))


class TestOverview:
    """The first screen."""

    def test_tiles(self, both: Browser) -> None:
        """Tiles have a value and a word for their state; a server is told with what it said."""
        text = both.get("/overview").text

        assert "1 of 1" in text
        assert "1,234,567" in text
        assert "20,000,000" in text
        assert len(re.findall(r'<li class="tile (good|look|act|unknown)">', text)) == 6

    def test_turkish(self, both: Browser) -> None:
        """The language is chosen by a link, kept, and told to the browser."""
        text = both.get("/overview?lang=tr").text

        assert '<html lang="tr">' in text
        assert "1.234.567" in text
        assert "Genel durum" in both.get("/overview").text

    @pytest.mark.parametrize(
        ("accepted", "language"), [("tr-TR,tr;q=0.9,en;q=0.8", "tr"), ("de,en", "en"), ("de", "en")]
    )
    def test_accepted(self, world: World, accepted: str, language: str) -> None:
        """Without a choice the browser's language counts."""
        assert f'<html lang="{language}">' in world.browser().get("/login", accept_language=accepted).text

    def test_live(self, both: Browser) -> None:
        """News come by themselves as parts of the page, each line marked, and go on."""
        connection = both.connection()
        connection.request("GET", "/overview/live", headers={"cookie": both.cookie})
        response = connection.getresponse()
        events = [_event(response) for _ in range(2)]
        connection.close()

        assert response.headers["content-type"].startswith("text/event-stream")
        assert all(line.startswith(("id: ", "data: ")) for event in events for line in event)
        assert "".join(events[0]).count("hx-partial hx-target") == 3
        assert int(events[1][0].removeprefix("id: ")) > int(events[0][0].removeprefix("id: "))

    def test_live_ends(self, both: Browser) -> None:
        """With the log-out the news of every page end."""
        connection = both.connection()
        connection.request("GET", "/overview/live", headers={"cookie": both.cookie})
        response = connection.getresponse()
        _event(response)
        both.post("/logout", {})

        assert _drained(response)
        connection.close()

    def test_series(self, both: Browser) -> None:
        """What the charts draw has one number, or none, for each step."""
        reply = both.get("/overview/series?minutes=60")

        assert reply.headers["content-type"] == "application/json"
        assert reply.text.count("null") == 5 * 120


class TestServerDown:
    """A server that does not answer is a state on the screen, and no error."""

    @pytest.mark.parametrize(
        ("error", "told"),
        [
            (ServiceUnavailableError("x"), "no answer"),
            (ServiceRefusedError("x", code="CALL_NOT_ALLOWED"), "refuses (CALL_NOT_ALLOWED)"),
        ],
    )
    def test_states(self, tmp_path: Path, error: ServiceUnavailableError, told: str) -> None:
        """Every page is there and says which server it is, and why."""
        with running(tmp_path, {"gw1:50051": FakeServer(said=error, answered=error)}) as world:
            browser = world.browser().log_in("both")
            replies = {path: browser.get(path) for path in PAGES}
            asked = browser.post("/explain", ASKED)

            assert [reply.status for reply in replies.values()] == [200] * 6
            assert told in replies["/overview"].text
            assert "0 of 1" in replies["/overview"].text
            assert "gw1:50051" in replies["/brands"].text
            assert error.code not in replies["/brands"].text or "admin" in replies["/brands"].text
            assert asked.status == 502
            assert "That is not a permission: do not send." in asked.text
            assert '"event": "explain_not_answered"' in world.log.getvalue()

    def test_one_of_two(self, tmp_path: Path) -> None:
        """Where one of two answers, lists come from that one, unless the other is asked for."""
        down = FakeServer(said=ServiceUnavailableError("x"))
        servers = {"down:1": down, "up:1": FakeServer(listed_brands=BRANDS)}
        with running(tmp_path, servers) as world:
            browser = world.browser().log_in("looker")

            assert "1 of 2" in browser.get("/overview").text
            assert "120 of 120 brands" in browser.get("/brands").text
            assert "down:1 does not answer" in browser.get("/brands?server=down:1").text

    def test_none(self, tmp_path: Path) -> None:
        """Without any server every page says so."""
        with running(tmp_path, {}) as world:
            browser = world.browser().log_in("both")

            assert all("No server is named" in browser.get(path).text for path in PAGES[:5])
            assert browser.post("/explain", ASKED).status == 503


class TestBrands:
    """Brands are found, sorted and turned over."""

    def codes(self, text: str) -> list[int]:
        """The brands of a page in their order."""
        return [int(code) for code in re.findall(r'<tr><th scope="row" class="n">(\d+)</th>', text)]

    def test_pages(self, both: Browser) -> None:
        """Fifty to a page; a page that there is not is the last one."""
        pages = [self.codes(both.get(f"/brands?page={page}").text) for page in (1, 2, 3, 99)]

        assert pages[0] + pages[1] + pages[2] == list(range(1001, 1121))
        assert pages[3] == pages[2]

    def test_found(self, both: Browser) -> None:
        """By the beginning of the code; what is no code finds all."""
        assert self.codes(both.get("/brands?code=110").text) == list(range(1100, 1110))
        assert "120 of 120" in both.get("/brands?code=x&sort=nonsense&page=-1&state=odd").text

    def test_sorted(self, both: Browser) -> None:
        """By a column and backwards, and the column says so."""
        text = both.get("/brands?sort=-records").text

        assert self.codes(text) == list(range(1120, 1070, -1))
        assert text.count('aria-sort="descending"') == 1

    def test_states(self, tmp_path: Path) -> None:
        """By state; the counts of all states stay, and each state has its word."""
        brands = [brand(number + 1, state) for number, state in enumerate(list(BrandState)[1:])]
        with running(tmp_path, {"a:1": FakeServer(listed_brands=brands)}) as world:
            text = world.browser().log_in("looker").get("/brands?state=stale").text

            assert self.codes(text) == [3]
            assert text.count("<b>1</b>") == 6
            assert "stale" in text

    def test_scope(self, world: World) -> None:
        """A caller of some brands sees these only, and is told so."""
        text = world.browser().log_in("narrow").get("/brands").text

        assert self.codes(text) == [1001]
        assert "1 of 1 brands" in text
        assert "Only the brands in your scope are listed." in text

    def test_kept(self, both: Browser) -> None:
        """Links keep what was chosen; the language's link too."""
        text = both.get("/brands?code=11&sort=records").text

        assert "?code=11&amp;sort=-records" in text
        assert "?code=11&amp;sort=records&amp;lang=tr" in text


class TestSources:
    """Sources and their rejected rows: where and why, never what."""

    def test_odd_name(self, tmp_path: Path) -> None:
        """The command that is there to be copied has nothing in it that steers a terminal."""
        odd = source("a\x1b[2J\u202e.csv", Loaded.HELD, [Rejected(line=1, field="", reason="X")])
        with running(tmp_path, {"a:1": FakeServer(listed_sources=[odd])}) as world:
            text = world.browser().log_in("both").get("/sources").text

        assert "accept-rejects $&#39;a\\x1b[2J\\u202e.csv&#39;" in text

    def test_rejects(self, both: Browser) -> None:
        """A rejected row is told by line, field and reason, and what mends it by its command."""
        text = both.get("/sources").text

        assert re.search(r'<td class="n">17</td><td><code>recipient</code></td><td><code>INVALID_ADDRESS</code>', text)
        assert "iyscheck-loader accept-rejects &#39;/feeds/" in text  # quoted for a shell, and then for the page

    def test_escaped(self, both: Browser) -> None:
        """A name of a file is text, whatever is in it."""
        text = both.get("/sources").text

        assert "<b onclick" not in text
        assert "&lt;b onclick=x&gt;.jsonl" in text

    def test_found(self, both: Browser) -> None:
        """By name and by state; those that wait stand first."""
        rows = r'<th scope="row" class="path">([^<]*)<'

        assert re.findall(rows, both.get("/sources").text)[0].endswith(".jsonl")
        assert re.findall(rows, both.get("/sources?name=A.JSON").text) == ["/feeds/a.jsonl"]
        assert re.findall(rows, both.get("/sources?state=unfinished").text) == ["c"]
        assert "No source fits." in both.get("/sources?name=<script>").text
        assert '<script>"' not in both.get("/sources?name=<script>").text


class TestCallersAndServers:
    """Who may ask, and what servers are made of."""

    def test_callers(self, tmp_path: Path) -> None:
        """Each caller is told with its scope and limits; what is no limit has no number."""
        callers = [
            caller("acme", brand_count=5, brands=(1, 2, 3, 4, 5), rate=50_000, refusals={"RATE_LIMITED": 7, "X": 0}),
            caller("<i>", rate=None),
        ]
        with running(tmp_path, {"a:1": FakeServer(listed_callers=callers)}) as world:
            text = world.browser().log_in("looker").get("/callers").text

        assert "1, 2, 3 +2" in text
        assert '<td class="n">50,000</td><td class="n">no limit</td>' in re.sub(r"\n", "", text)
        assert "<code>RATE_LIMITED</code> 7" in text
        assert "<code>X</code>" not in text
        assert "&lt;i&gt;" in text

    def test_no_file(self, both: Browser) -> None:
        """A server without a callers file is told as what it is."""
        assert "There is no callers file" in both.get("/callers").text

    def test_servers(self, tmp_path: Path) -> None:
        """Side by side: what differs is marked, who is behind is told, and who is down is not compared."""
        behind = overview(version="0.0.9", sequence=1_234_500)
        down = FakeServer(said=ServiceUnavailableError("x"))
        with running(tmp_path, {"a:1": FakeServer(), "b:1": FakeServer(said=behind), "c:1": down}) as world:
            text = world.browser().log_in("looker").get("/servers").text

        rows = dict(re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', text))
        assert [name for name in rows if "differs" in name] == [name for name in rows if name.startswith("Version")]
        assert rows["Rows behind the furthest"] == "<td>0</td><td>67</td><td>–</td>"

    def test_of_a_log(self, tmp_path: Path) -> None:
        """Of a replica it is told how far it is behind, and that it is not believed; of others what they are."""
        near = LogStanding(role="replica", term=1, batch=9, lag_s=3.2, untrusted=False)
        bad = near._replace(lag_s=95.0, untrusted=True)
        primary = LogStanding(role="primary", term=1, batch=9, lag_s=None, untrusted=False)
        standings = {"a:1": None, "b:1": primary, "c:1": near, "d:1": bad}
        servers = {at: FakeServer(said=overview(standing=each)) for at, each in standings.items()}
        with running(tmp_path, {**servers, "e:1": FakeServer(said=overview(readable=False))}) as world:
            text = world.browser().log_in("looker").get("/servers").text

        rows = dict(re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', text))
        told = re.findall(r"<td>(.*?)</td>", rows["In a log, behind by"])
        assert told == ["none", "primary", "replica, 3 s", "replica, 1 min (not to be believed)", "–"]


class TestExplain:
    """One address is asked about, and is nowhere afterwards."""

    def test_answered(self, world: World, both: Browser) -> None:
        """The answer has verdict, reason, evidence and what to do; it is asked with who asks beside it."""
        reply = both.post("/explain", ASKED)
        context, address, reference = world.servers["gw1:50051"].asked[-1]

        assert reply.status == 200
        for told in (
            "DENIED",
            "REFUSED",
            explain(Reason.REFUSED, Language.ENGLISH).do,
            "HS_WEB",
            "2026-01-02 03:05:00",
        ):
            assert told in reply.text
        assert (context.brand, context.channel, context.recipient_type) == (1001, Channel.MESAJ, RecipientType.BIREYSEL)
        assert (address, reference) == (PHONE, "console/both")

    def test_part(self, both: Browser) -> None:
        """A page that is there gets the answer alone."""
        assert "<html" not in both.post("/explain", ASKED, hx_request="true").text

    @pytest.mark.parametrize(
        "address",
        [PHONE, "ayse.yilmaz@example.org", "0532 111 22 33 dahili 5", "<script>alert(1)"],
        ids=["phone", "e-mail", "unreadable", "script"],
    )
    @pytest.mark.parametrize("reason", [Reason.REFUSED, Reason.CONSENTED, Reason.INVALID_ADDRESS])
    def test_private(self, tmp_path: Path, address: str, reason: Reason) -> None:
        """The typed address is in no page, no header, no log; that somebody asked is in the log."""
        fake = FakeServer(answered=answer(reason))
        with running(tmp_path, {"a:1": fake}) as world:
            browser = world.browser().log_in("both")
            replies = [browser.post("/explain", {**ASKED, "address": address}, hx_request=part) for part in ("", "1")]
            log = world.log.getvalue()

        assert [asked for _, asked, _ in fake.asked] == [address, address]
        for trace in {address, quote(address), address[4:11], address.replace(" ", "")}:
            assert trace not in log
            for reply in replies:
                assert trace not in reply.text.replace(CONTENT_SECURITY_POLICY, "")
                assert trace not in str(reply.headers)
        assert log.count('"event": "explained"') == 2
        for told in (
            '"caller": "both"',
            '"brand": 1001',
            '"channel": "MESAJ"',
            f'"reason": "{reason.name}"',
            '"decision_id": "0193',
        ):
            assert told in log

    def test_unreadable(self, tmp_path: Path) -> None:
        """Why an address cannot be read is said without saying it."""
        with running(tmp_path, {"a:1": FakeServer(answered=answer(Reason.INVALID_ADDRESS))}) as world:
            text = world.browser().log_in("asker").post("/explain", {**ASKED, "address": "+49 (0)171 999"}).text

        assert "the digit that is dialled at home only" in text

    @pytest.mark.parametrize(
        "change",
        [
            {"brand": ""},
            {"brand": "x"},
            {"brand": "0"},
            {"brand": "9999999999"},
            {"channel": "FAX"},
            {"recipient_type": ""},
            {"retailer": "-1"},
            {"brand": "10010000000000"},
            {"retailer": "12345678901"},
            {"brand": "1001" + " " * 10 + PHONE},
            {"address": "  "},
        ],
    )
    def test_incomplete(self, world: World, both: Browser, change: dict[str, str]) -> None:
        """What cannot be asked is not asked, and what was typed is not told again."""
        asked = len(world.servers["gw1:50051"].asked)
        reply = both.post("/explain", {**ASKED, **change})

        assert reply.status == 400
        assert "Not asked: fill in" in reply.text
        assert PHONE[3:] not in reply.text
        assert len(world.servers["gw1:50051"].asked) == asked

    @pytest.mark.parametrize("change", [{"brand": 1002}, {"channel": "EPOSTA", "address": "a@example.org"}])
    def test_scope(self, world: World, change: dict[str, object]) -> None:
        """A caller's brands and channels hold here, too; inside them it may ask."""
        browser = world.browser().log_in("narrow")
        asked = len(world.servers["gw1:50051"].asked)

        assert browser.post("/explain", {**ASKED, **change}).status == 403
        assert len(world.servers["gw1:50051"].asked) == asked
        assert browser.post("/explain", ASKED).status == 200
        assert '"event": "explain_refused"' in world.log.getvalue()

    def test_rate(self, tmp_path: Path) -> None:
        """So many a minute for each caller, over all its sessions; another caller is not held back."""
        with running(tmp_path, explains_a_minute=3) as world:
            first, second = world.browser().log_in("both"), world.browser().log_in("both")
            statuses = [each.post("/explain", ASKED).status for each in (first, second, first, second, first)]
            refused = first.post("/explain", ASKED)

            assert statuses == [200, 200, 200, 429, 429]
            assert 1 <= int(refused.headers["retry-after"]) <= 21
            assert "asked too often" in refused.text
            assert world.browser().log_in("asker").post("/explain", ASKED).status == 200
            assert len(world.servers["gw1:50051"].asked) == 4
            assert '"reason": "RATE_LIMITED"' in world.log.getvalue()

    def test_not_by_address_bar(self, world: World, both: Browser) -> None:
        """An address in a URL asks nothing and is shown nowhere."""
        asked = len(world.servers["gw1:50051"].asked)
        text = both.get(f"/explain?address={quote(PHONE)}&brand=1001").text

        assert len(world.servers["gw1:50051"].asked) == asked
        for told in (text, world.browser().get(f"/login?address={quote(PHONE)}").text):
            assert PHONE[1:] not in told
        assert PHONE[1:] not in both.get(f"/brands?address={quote(PHONE)}&state=fresh").text

    @pytest.mark.parametrize("said", ["", PHONE, f"0193a5c0-0000-7000-8000-{PHONE[-12:]}\n", "x" * 36])
    def test_odd_decision(self, tmp_path: Path, said: str) -> None:
        """The id of a decision is shown and logged only if it is one: a server could say the address there."""
        given = answer(Reason.REFUSED)
        odd = replace(given, envelope=replace(given.envelope, decision_id=said))
        with running(tmp_path, {"a:1": FakeServer(answered=odd)}) as world:
            reply = world.browser().log_in("both").post("/explain", ASKED)
            log = world.log.getvalue()

        assert reply.status == 200
        assert '"decision_id": ""' in log
        for told in (log, reply.text):
            assert PHONE[1:] not in told

    @pytest.mark.parametrize("error", [ServiceRefusedError("x", code=PHONE), OverflowError(PHONE)])
    def test_odd_failure(self, tmp_path: Path, error: Exception) -> None:
        """A failure that nobody thought of is the server's, and no word of it is taken over."""
        with running(tmp_path, {"a:1": FakeServer(answered=error)}) as world:
            reply = world.browser().log_in("both").post("/explain", ASKED)
            log = world.log.getvalue()

        assert reply.status == 502
        assert "explain_not_answered" in log
        for told in (log, reply.text):
            assert PHONE[1:] not in told


def test_no_page_fails(world: World) -> None:
    """Nothing of all this was an error of the console."""
    assert "page_failed" not in world.log.getvalue()


def _event(response: object) -> list[str]:
    """Read the lines of one event."""
    lines: list[str] = []
    while line := response.readline().decode().rstrip("\n"):  # type: ignore[attr-defined] # of http.client
        lines.append(line)
    return lines


def _drained(response: object) -> bool:
    """Read on, for a while; says whether the end came."""
    return any(not response.readline() for _ in range(5_000))  # type: ignore[attr-defined] # the same
