"""How fast a brand's backlog is pulled, beside loading the same rows from a file: python -m bench.catch_up.

İYS's limit of requests is left out: at its 5 requests a second nobody sees more than 5,000 rows a second. What is
measured is everything of ours: requests, decoding, a durable commit for each page. A small server gives the pages,
which it makes as they are asked for, in a process of its own.
"""

import http.server
import json
import platform
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import parse_qs, urlsplit

import typer

from iyscheck.kernel import Kernel
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.store.writer import Writer
from loader.iys.api import Iys
from loader.iys.clock import SystemClock
from loader.iys.credentials import Credentials
from loader.iys.guard import Guard
from loader.iys.limits import Limits
from loader.iys.messages import FeedSource
from loader.iys.pace import Pace
from loader.iys.tokens import Tokens
from loader.iys.transport import Transport
from loader.loading.options import Options
from loader.reading.times import ISTANBUL
from loader.sources.pull.passes import pull_stream
from loader.sources.pull.steps import Stream
from loader.sources.pull.streams import Streams

BRAND: Final = 600_001
IYS_CODE: Final = 700_001
_SPAN_S: Final = 6 * 24 * 3600
_UNBOUND: Final = 1e6

app = typer.Typer()


class Backlog:
    """Rows by their numbers, spread evenly over six days that ended two hours ago."""

    def __init__(self, rows: int, end: datetime) -> None:
        self.rows = rows
        self._begin = end - timedelta(seconds=_SPAN_S)
        self._step_s = _SPAN_S / rows

    def row(self, number: int) -> str:
        """Write a row as JSON, as İYS does."""
        when = f"{self._begin + timedelta(seconds=int(number * self._step_s)):%Y-%m-%d %H:%M:%S}"
        status = "RET" if number % 4 == 0 else "ONAY"
        return (
            f'{{"consentDate":"{when}","creationDate":"{when}","source":"HS_WEB",'
            f'"recipient":"+90532{number % 10**7:07}",'
            f'"recipientType":"{"TACIR" if number >= 10**7 else "BIREYSEL"}","status":"{status}","type":"MESAJ",'
            f'"transactionId":"{number:064x}"}}'
        )

    def page(self, after: str, limit: int) -> bytes:
        """Write the page behind a cursor."""
        first = int(after.rpartition("_")[2]) if after else 0
        last = min(first + limit, self.rows)
        rows = ",".join(map(self.row, range(first, last)))
        return f'{{"after":"{last}_{last}","list":[{rows}]}}'.encode()


def _handler(backlog: Backlog) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self._send(b'{"access_token":"a","refresh_token":"r","expires_in":7200,"refresh_expires_in":14400}')

        def do_GET(self) -> None:
            asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            self._send(backlog.page(asked.get("after", ""), int(asked.get("limit", "1000"))))

        def _send(self, body: bytes) -> None:
            head = f"HTTP/1.1 200 OK\r\ndate: {self.date_time_string()}\r\ncontent-type: application/json\r\n"
            self.wfile.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@app.command()
def serve(rows: int, end: str) -> None:
    """Give pages, until it is ended; it prints where."""
    backlog = Backlog(rows, datetime.fromisoformat(end))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(backlog)) as server:
        sys.stdout.write(f"http://127.0.0.1:{server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()


@app.command()
def measure(
    rows: Annotated[int, typer.Option(help="How many rows wait.", min=1_000)] = 5_000_000,
    out: Annotated[Path | None, typer.Option(help="Where to write the result.")] = None,
) -> None:
    """Pull a backlog, and load the same rows from a file."""
    end = (datetime.now(ISTANBUL) - timedelta(hours=2)).replace(tzinfo=None, microsecond=0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        AddressKey.create(folder / "address.key")
        StoreKey.create(folder / "store.key")
        command = [sys.executable, "-m", "bench.catch_up", "serve", str(rows), end.isoformat()]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                pulled_s = _pulled(folder, server.stdout.readline().strip(), rows)
            finally:
                server.terminate()
        loaded_s = _loaded(folder, Backlog(rows, end))
    result = {
        "command": f"python -m bench.catch_up measure --rows {rows}",
        "python": platform.python_version(),
        "rows": rows,
        "pulled_rows_per_s": round(rows / pulled_s),
        "loaded_rows_per_s": round(rows / loaded_s),
        "ratio": round(loaded_s / pulled_s, 3),
    }
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(json.dumps(result) + "\n")


def _pulled(folder: Path, url: str, rows: int) -> float:
    """Pull all rows; gives how many seconds that took."""
    (folder / "password").write_text("made-up")
    (folder / "password").chmod(0o600)
    keys = AddressKey.load(folder / "address.key"), StoreKey.load(folder / "store.key")
    clock, stop, limits = SystemClock(), threading.Event(), Limits(folder / "iys")
    transport = Transport(
        url, pace=Pace(limits, clock, rate=_UNBOUND), guard=Guard(limits, clock), clock=clock, stop=stop
    )
    credentials = Credentials(name="acme", username="acme", password_file=folder / "password")
    tokens = Tokens(credentials, folder=folder / "iys", limits=limits, clock=clock, transport=transport)
    options = Options(rejects=folder / "rejects", kernel=Kernel.best().usable())
    with Writer.open(
        folder / "pulled", address_key_id=keys[0].key_id, store_key_id=keys[1].key_id, kernel=options.kernel
    ) as writer:
        streams = Streams(writer, address_key=keys[0], store_key=keys[1], options=options, clock=clock.now)
        stream = Stream(iys_code=IYS_CODE, brand=BRAND, source=FeedSource.HS)
        began = time.monotonic()
        passed = pull_stream(Iys(transport, tokens), streams, stream, clock=clock, stop=stop)
        taken = time.monotonic() - began
        found = sum(each.totals.rows for each in passed.commits)
    transport.close()
    if found < rows or passed.end is None or passed.end.fault is not None:
        raise SystemExit(f"{found} of {rows} rows were pulled: {passed.end}")
    return taken


def _loaded(folder: Path, backlog: Backlog) -> float:
    """Load the rows from a file, as an operator does; gives how many seconds that took, the loader's start included."""
    path = folder / "backlog.jsonl"
    with path.open("w") as file:
        for number in range(backlog.rows):
            file.write(f'{{"brandCode":{BRAND},{backlog.row(number)[1:]}\n')
    flags = [f"--address-key={folder / 'address.key'}", f"--store-key={folder / 'store.key'}"]
    command = [sys.executable, "-m", "loader", "load", str(path), f"--store={folder / 'loaded'}", *flags, "--json"]
    began = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - began


if __name__ == "__main__":
    app()
