"""Every screen of the console in a real browser: `scripts/test-console`, which names what it needs.

Not collected by the ordinary suite: it needs Chromium, and takes minutes.
"""

import os
import re
import shutil
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright

from tests.console.browser.site import FIRST_BRAND, KEY, SEARCHED, Consoled, consoled, phone

AXE = Path(os.environ["CONSOLE_AXE"])
PICTURES = Path(os.environ["CONSOLE_PICTURES"])
SCREENS = ("login", "overview", "brands", "sources", "callers", "servers", "explain")
LANGUAGES = {"en": "en-GB", "tr": "tr-TR"}
WIDTHS = {"narrow": 390, "wide": 1280}
ALL = list(product(SCREENS, LANGUAGES, ("light", "dark"), WIDTHS))
VIOLATIONS = """
window.__violations = [];
document.addEventListener("securitypolicyviolation", broken =>
  window.__violations.push(`${broken.violatedDirective} ${broken.blockedURI}`));
"""
TIMEOUT_MS = 60_000
expect.set_options(timeout=TIMEOUT_MS)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consoled]:
    """A console over a real server."""
    with consoled(tmp_path_factory.mktemp("site")) as made:
        # The charts need some looks, and pictures for the documentation more: CONSOLE_WARM_UP=200 -k pictures
        time.sleep(float(os.environ.get("CONSOLE_WARM_UP", "12")))
        yield made


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A browser."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert found, "There is no Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        # Its sandbox does not run as root; nothing but our own pages is opened.
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield browser
        browser.close()


@dataclass
class Tab:
    """A page, and all that must not happen on one."""

    page: Page
    url: str
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def go(self, path: str) -> None:
        """Open a page of the console."""
        self.page.goto(self.url + path)

    def faults(self) -> list[str]:
        """All that a page did that it must not: messages, foreign requests, breaches of its policy."""
        foreign = [url for url in self.asked if not url.startswith((self.url + "/", "data:"))]
        return self.said + foreign + list(self.page.evaluate("window.__violations"))

    def axe(self) -> list[str]:
        """What axe finds."""
        self.page.evaluate(AXE.read_text() + "\n;undefined")
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{each['id']}: {node['html'][:160]} {node['failureSummary']}"
            for each in found["violations"]
            for node in each["nodes"]
        ]


@contextmanager
def tab(
    browser: Browser,
    site: Consoled,
    language: str = "en",
    scheme: str = "light",
    width: int = 1280,
    url: str = "",
    *,
    logged_in: bool = True,
) -> Iterator[Tab]:
    """Open a page, and listen to all it says and asks for."""
    context = browser.new_context(
        locale=LANGUAGES[language],
        color_scheme=scheme,
        viewport={"width": width, "height": 844 if width < 600 else 860},
        timezone_id="America/New_York",  # whatever it is: the console writes Turkish time
    )
    context.set_default_timeout(TIMEOUT_MS)
    context.add_init_script(VIOLATIONS)
    if logged_in:
        add_cookie(context, url or site.url, site.cookie)
    page = context.new_page()
    made = Tab(page, url or site.url)
    page.on("console", lambda message: made.said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: made.said.append(str(error)))
    page.on("request", lambda request: made.asked.append(request.url))
    try:
        yield made
    finally:
        print(made.said, made.asked[-8:])  # noqa: T201 - shown of what failed
        context.close()


def add_cookie(context: BrowserContext, url: str, cookie: tuple[str, str]) -> None:
    """Log a context in."""
    context.add_cookies([{"name": cookie[0], "value": cookie[1], "url": url, "httpOnly": True, "sameSite": "Strict"}])


def ask(page: Page, address: str, brand: int = FIRST_BRAND) -> None:
    """Ask about an address, and wait for the answer."""
    page.fill("#brand", str(brand))
    page.fill("#address", address)
    page.press("#address", "Enter")
    expect(page.locator("#answer dl")).to_be_visible()


def drawn(page: Page) -> None:
    """Wait until the overview is live and its charts are drawn."""
    expect(page.locator("#live")).to_have_text(re.compile("^(live|canlı)$"))
    expect(page.locator(".chart canvas")).to_have_count(2)
    expect(page.locator("#answers table")).to_be_visible()
    expect(page.locator("#latency table")).to_be_visible()


@pytest.mark.parametrize(("screen", "language", "scheme", "width"), ALL)
def test_screen(site: Consoled, chromium: Browser, screen: str, language: str, scheme: str, width: str) -> None:
    """Each screen is whole in each language, light and dark, narrow and wide, and does nothing that it must not."""
    with tab(chromium, site, language, scheme, WIDTHS[width], logged_in=screen != "login") as made:
        made.go(f"/{screen}")
        if screen == "overview":
            drawn(made.page)
        if screen == "explain":
            ask(made.page, phone(5), FIRST_BRAND + 2)
        assert made.page.evaluate("document.documentElement.lang") == language
        assert made.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert made.axe() == []
        made.page.mouse.move(0, 0)
        made.page.screenshot(path=PICTURES / f"console-{screen}-{language}-{scheme}-{width}.png", full_page=True)
        assert made.faults() == []


def test_pictures(site: Consoled, chromium: Browser) -> None:
    """The pictures of the documentation, while somebody asks about an address that is refused."""
    for scheme in ("light", "dark"):
        with tab(chromium, site, "en", scheme) as made:
            made.go("/overview")
            drawn(made.page)
            made.page.select_option("#span", "5")
            made.page.wait_for_timeout(3_000)
            made.page.screenshot(path=PICTURES / f"picture-overview-{scheme}.png", full_page=True)
            made.go("/explain?lang=tr" if scheme == "dark" else "/explain")
            ask(made.page, phone(5), FIRST_BRAND + 2)
            made.page.screenshot(path=PICTURES / f"picture-explain-{scheme}.png")


def test_keyboard(site: Consoled, chromium: Browser) -> None:
    """With the keyboard alone one logs in, walks through all screens, asks about an address and logs out."""
    with tab(chromium, site, logged_in=False) as made:
        page = made.page
        made.go("/login")
        expect(page.locator("#key")).to_be_focused()
        page.keyboard.type(KEY.text)
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text("Overview")

        page.keyboard.press("Tab")
        assert focused(page) == "Skip to content"
        for title in ("Brands", "Sources", "Callers", "Servers", "Explain"):
            walk_to(page, title)
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
            page.keyboard.press("Enter")
            expect(page.locator("h1")).to_have_text(title)

        page.evaluate("window.__same = true")
        walk_to(page, "brand")
        page.keyboard.type(str(FIRST_BRAND))
        for _ in range(4):
            page.keyboard.press("Tab")
        assert focused(page) == "address"
        page.keyboard.type(phone(5))
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator("#answer dl")).to_be_visible()
        assert focused(page) == "address"
        assert page.evaluate("window.__same") is True

        walk_to(page, "Log out", key="Shift+Tab")
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text("Log in")
        assert made.faults() == []


def test_brands_by_keyboard(site: Consoled, chromium: Browser) -> None:
    """Brands are filtered, sorted and turned over by the keyboard; the table itself can be scrolled by it."""
    with tab(chromium, site, width=390) as made:
        page = made.page
        made.go("/brands")
        walk_to(page, "code")
        page.keyboard.type("60012")
        page.keyboard.press("Enter")
        expect(page.locator(".found")).to_have_text("10 of 137 brands")
        walk_to(page, "Consents")
        page.keyboard.press("Enter")
        expect(page.locator("th[aria-sort=ascending]")).to_have_text(re.compile("Consents"))
        made.go("/brands")
        walk_to(page, "Next")
        page.keyboard.press("Enter")
        expect(page.locator(".pager")).to_have_text(re.compile("Page 2 of 3"))
        assert made.faults() == []


def focused(page: Page) -> str:
    """What has the focus: its name, or its text."""
    return str(page.evaluate("document.activeElement.name || document.activeElement.textContent.trim()"))


def walk_to(page: Page, name: str, key: str = "Tab") -> None:
    """Press a key until something has the focus."""
    for _ in range(60):
        if focused(page).startswith(name):
            return
        page.keyboard.press(key)
    raise AssertionError(f"{name} cannot be reached: {focused(page)}")


def test_typed_address(site: Consoled, chromium: Browser) -> None:
    """The typed address is in no URL, log, metric, storage or page; the field is empty, also when one comes back."""
    with tab(chromium, site) as made:
        page = made.page
        made.go("/explain")
        ask(page, SEARCHED)
        text = page.content()
        assert page.input_value("#address") == ""
        assert "NO_CONSENT" in text
        page.goto(f"{made.url}/brands")
        page.go_back()
        assert page.input_value("#address") == ""
        page.reload()
        assert page.input_value("#address") == ""
        kept = page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie, history.state])")
        urls = " ".join(made.asked)
        assert made.faults() == []

    with urllib.request.urlopen(f"http://{site.server['metrics_listen']}/metrics") as answer:
        metrics = answer.read().decode()
    for trace in (SEARCHED, SEARCHED[1:], SEARCHED[3:], quote(SEARCHED)):
        for where in (text, kept, urls, metrics, site.logs):
            assert trace not in where
    assert '"event": "explained"' in site.logs
    assert '"caller": "ayse.yilmaz"' in site.logs


class Wire:
    """A connection between browser and console that can be cut."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open: list[socket.socket] = []
        self._cut = False
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._take, daemon=True).start()

    def cut(self) -> None:
        """Break all connections off, and refuse new ones."""
        self._cut = True
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Take connections again."""
        self._cut = False

    def close(self) -> None:
        """Carry nothing more."""
        self._server.shutdown(socket.SHUT_RDWR)
        self.cut()

    def _take(self) -> None:
        with self._server, suppress(OSError):
            while True:
                here, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(here,), daemon=True).start()

    def _serve(self, here: socket.socket) -> None:
        if self._cut:
            here.close()
            return
        with here, socket.create_connection(("127.0.0.1", self._to)) as there:
            self._open += [here, there]
            back = threading.Thread(target=self._carry, args=(there, here), daemon=True)
            back.start()
            self._carry(here, there)
            back.join()
            self._open.remove(here)
            self._open.remove(there)

    @staticmethod
    def _carry(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65_536):
                other.sendall(data)
        for each in (one, other):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def test_cut_and_resumed(site: Consoled, chromium: Browser) -> None:
    """When the connection is lost the page says so, and is live again by itself, without a reload."""
    wire = Wire(site.port)
    with tab(chromium, site, url=f"http://127.0.0.1:{wire.port}") as made:
        page = made.page
        made.go("/overview")
        drawn(page)
        page.evaluate("window.__same = true")
        assert made.faults() == []
        wire.cut()
        expect(page.locator("#live")).to_have_text("connection lost, trying again")
        assert page.locator("#live").evaluate("e => e.classList.contains('lost')")
        before = page.locator("#looked").text_content()
        wire.mend()
        expect(page.locator("#live")).to_have_text("live")
        expect(page.locator("#looked")).not_to_have_text(before or "")
        assert page.evaluate("window.__same") is True
        assert not page.locator("#live").evaluate("e => e.classList.contains('lost')")
        # What browser and htmx say of the lost connection is theirs; of everything else there is nothing.
        assert [said for said in made.said if "ERR_" not in said and "htmx:sse:error" not in said] == []
    wire.close()


def test_slow_script(site: Consoled, chromium: Browser) -> None:
    """A page is live also where one of its scripts comes late."""
    with tab(chromium, site) as made:

        def late(route: Route) -> None:
            time.sleep(2)
            route.continue_()

        made.page.route("**/hx-sse.min.js", late)
        made.go("/overview")
        drawn(made.page)
        assert made.faults() == []


def test_log_out_elsewhere(site: Consoled, chromium: Browser) -> None:
    """A page that is live goes to the log-in when its session ends elsewhere."""
    with tab(chromium, site, logged_in=False) as made:
        page = made.page
        made.go("/login")
        page.fill("#key", KEY.text)
        page.press("#key", "Enter")
        drawn(page)
        other = page.context.new_page()
        other.goto(f"{made.url}/brands")
        other.click("text=Log out")
        expect(page.locator("h1")).to_have_text("Log in")
        expect(page.locator("[role=alert]")).to_have_text("The session has ended. Log in again.")


def test_without_script(site: Consoled, chromium: Browser) -> None:
    """Without JavaScript everything but what is live works, and the typed address is gone all the same."""
    context = chromium.new_context(java_script_enabled=False, locale="en-GB")
    context.set_default_timeout(TIMEOUT_MS)
    add_cookie(context, site.url, site.cookie)
    page = context.new_page()
    page.goto(f"{site.url}/overview")
    expect(page.locator("#answers table")).to_be_visible()
    page.goto(f"{site.url}/explain")
    ask(page, phone(5), FIRST_BRAND + 2)
    assert page.input_value("#address") == ""
    assert page.input_value("#brand") == str(FIRST_BRAND + 2)
    assert "REFUSED" in page.content()
    context.close()


def test_colour_change(site: Consoled, chromium: Browser) -> None:
    """Charts follow when the system turns dark."""
    with tab(chromium, site) as made:
        made.go("/overview")
        drawn(made.page)
        first = made.page.evaluate("getComputedStyle(document.body).backgroundColor")
        made.page.emulate_media(color_scheme="dark")
        expect(made.page.locator(".chart canvas")).to_have_count(2)
        assert made.page.evaluate("getComputedStyle(document.body).backgroundColor") != first
        assert made.faults() == []
