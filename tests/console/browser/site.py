"""A real site for a browser: loaded store, server, traffic, console; each in a process of its own."""

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from iyscheck.callers.identity import NewKey
from iyscheck.client.sync import Client
from iyscheck.consent import Channel, RecipientType
from iyscheck.errors import IyscheckError
from tests.processes import START_S, Site

KEY, CONSOLE, GATEWAY = NewKey.create(), NewKey.create(), NewKey.create()
CALLERS = f"""
[caller."ayse.yilmaz"]
keys = ["{KEY.key.line}"]
brands = "all"
calls = ["console", "explain"]

[caller.console]
keys = ["{CONSOLE.key.line}"]
brands = "all"
calls = ["admin", "check"]
addresses = true

[caller.gateway]
keys = ["{GATEWAY.key.line}"]
brands = "all"
addresses = true
"""
BRANDS = 137
FIRST_BRAND = 600_101
PEOPLE = 400
SEARCHED = "+905329876543"
"""Who is asked about by the browser: in no feed, and by no other caller."""


def turkish(ago: timedelta) -> str:
    """Say when something was, as İYS writes it."""
    return (datetime.now(ZoneInfo("Europe/Istanbul")) - ago).strftime("%Y-%m-%d %H:%M:%S")


def phone(number: int) -> str:
    """Make up a phone number."""
    return f"+90531{number:07}"


def rows() -> list[Mapping[str, object]]:
    """Brands in every state, their consents, and their watermarks."""
    made: list[Mapping[str, object]] = [
        {
            "kind": "brand",
            "brandCode": FIRST_BRAND + number,
            "iysCode": 700_000 + number * 7,
            "active": number % 31 != 5,
            "creationDate": "2024-01-01 09:00:00",
        }
        for number in range(BRANDS)
    ]
    for number in range(PEOPLE):
        status = "RET" if number % 5 == 0 else "ONAY"
        made.append(
            {
                "brandCode": FIRST_BRAND + number % 3,
                "recipient": phone(number),
                "recipientType": "BIREYSEL",
                "type": "MESAJ",
                "status": status,
                "source": "HS_WEB",
                "consentDate": "2025-05-02 10:00:00",
                "creationDate": "2025-05-02 10:05:00",
            }
        )
    for number in range(BRANDS):
        if number % 23 == 7:
            continue  # no watermark
        hours = 31 if number % 19 == 3 else 22 if number % 11 == 2 else 1 + number % 5
        ago = timedelta(hours=hours, minutes=number % 50)
        made.append({"kind": "watermark", "brandCode": FIRST_BRAND + number, "completeUntil": turkish(ago)})
    return made


def damaged_rows() -> list[Mapping[str, object] | str]:
    """Rows of which some cannot be read, and a watermark that waits for them."""
    good = {
        "brandCode": FIRST_BRAND + 40,
        "recipient": phone(999),
        "recipientType": "BIREYSEL",
        "type": "MESAJ",
        "status": "ONAY",
        "source": "HS_WEB",
        "consentDate": "2025-05-02 10:00:00",
        "creationDate": "2025-05-02 10:05:00",
    }
    faults: list[Mapping[str, object] | str] = [
        good,
        {**good, "recipient": "+49 (0)171 9993001"},
        {**good, "creationDate": "yesterday"},
        {**good, "recipientType": "MISAFIR"},
        {key: value for key, value in good.items() if key != "consentDate"},
        '{"brandCode": 600141, "recipient": ',
    ]
    return [
        *faults,
        {"kind": "watermark", "brandCode": FIRST_BRAND + 40, "completeUntil": turkish(timedelta(minutes=20))},
    ]


@dataclass(frozen=True)
class Consoled:
    """A console that runs over a real server."""

    port: int
    site: Site
    server: Mapping[str, str]
    log: Path
    cookie: tuple[str, str]

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def logs(self) -> str:
        """All that server and console have logged."""
        return self.log.read_text() + (self.site.folder / "server.log").read_text()


@contextmanager
def consoled(folder: Path) -> Iterator[Consoled]:
    """Run everything."""
    site = Site.make(folder)
    assert site.load(str(site.feed("daily-2026-11-28.jsonl", rows()))) == 0, site.printed
    site.load(str(site.feed("push-2026-11-29T21.jsonl", damaged_rows())))  # tells of its rejected rows
    callers = folder / "callers.toml"
    callers.write_text(CALLERS)
    (folder / "console.key").write_text(CONSOLE.text)
    (folder / "console.key").chmod(0o600)
    with site.serving(f"--callers={callers}", "--workers=1") as server, _asking(server["listen"].split(",")[0]):
        command = [sys.executable, "-m", "iyscheck", "console", f"--callers={callers}", "--listen=127.0.0.1:0"]
        command += [f"--server={server['listen'].split(',')[0]}", "--server=127.0.0.1:1"]
        command += [f"--metrics=http://{server['metrics_listen']}/metrics", f"--api-key-file={folder / 'console.key'}"]
        command += ["--explains-per-minute=1000"]
        log = folder / "console.log"
        with log.open("wb") as written:
            process = subprocess.Popen(command, stdout=written, stderr=written)
        try:
            port = _ready(process, log)
            yield Consoled(port, site, server, log, _logged_in(port))
            process.terminate()
            assert process.wait(START_S) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()


def _ready(process: "subprocess.Popen[bytes]", log: Path) -> int:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text().splitlines():
            if '"event": "console_ready"' in line:
                return int(json.loads(line)["address"].rstrip("/").rpartition(":")[2])
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def _logged_in(port: int) -> tuple[str, str]:
    """Log in without a browser; gives the cookie."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"content-type": "application/x-www-form-urlencoded", "origin": f"http://127.0.0.1:{port}"}
    connection.request("POST", "/login", urlencode({"key": KEY.text}), headers)
    name, _, value = str(connection.getresponse().headers["set-cookie"]).partition(";")[0].partition("=")
    connection.close()
    return name, value


@contextmanager
def _asking(target: str) -> Iterator[None]:
    """Ask the server all the time, singly and in columns, as gateways do."""
    over = threading.Event()

    def ask() -> None:
        number = 0
        with Client(target, api_key=GATEWAY.text, timeout_s=5.0) as client:
            while not over.wait(0.02):
                number += 1
                with suppress(IyscheckError):
                    client.check(
                        brand=FIRST_BRAND + number % 9,
                        channel=Channel.MESAJ,
                        recipient_type=RecipientType.BIREYSEL,
                        address=phone(number * 7 % 500),
                    )
                    if number % 10 == 0:
                        client.check_column(
                            brand=FIRST_BRAND + number // 10 % 3,
                            channel=Channel.MESAJ,
                            recipient_type=RecipientType.BIREYSEL if number % 20 else RecipientType.TACIR,
                            recipients=[phone(each) for each in range(200 + number % 150)],
                        )

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
