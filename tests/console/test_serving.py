"""The console's process: what it refuses to start with, how it ends, and the certificate that it shows."""

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import typer

from iyscheck.callers.watch import CallersWatch
from iyscheck.cli import console as command
from iyscheck.cli.app import app
from iyscheck.cli.certs import dev
from iyscheck.console.app import Console
from iyscheck.console.serving import ConsoleServer, Settings, configuration, open_port, run
from iyscheck.console.sources import Watch
from iyscheck.errors import CallersFileError, SettingsError
from iyscheck.server.log import open_log
from iyscheck.server.settings import OTHER_VARIABLES, PREFIX
from iyscheck.server.settings import Settings as ServerSettings
from iyscheck.server.tls import Certificates
from tests.console.world import KEYS, callers_text
from tests.notified import notified
from tests.processes import START_S


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A callers file."""
    path = tmp_path / "callers.toml"
    path.write_text(callers_text())
    return path


class TestRefused:
    """What cannot be good is refused before anything listens."""

    @pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:9480", "console.example:9480"])
    def test_far_in_plain_text(self, file: Path, listen: str) -> None:
        """To other machines it speaks TLS only: keys would travel."""
        with pytest.raises(SettingsError, match="plain text"):
            run(Settings(servers=["a:1"], metrics=[], callers=file, listen=listen))

    @pytest.mark.parametrize("listen", ["", "9480", "127.0.0.1:99999", "127.0.0.1:x"])
    def test_no_address(self, file: Path, listen: str) -> None:
        """What is no address is no address."""
        with pytest.raises(SettingsError):
            run(Settings(servers=["a:1"], metrics=[], callers=file, listen=listen))

    def test_taken(self, file: Path) -> None:
        """A port that is taken is told, not taken over."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            settings = Settings(servers=[], metrics=[], callers=file, listen=f"127.0.0.1:{taken.getsockname()[1]}")
            with pytest.raises(SettingsError, match="cannot listen"):
                run(settings)

    def test_half_a_pair(self, file: Path) -> None:
        """A certificate needs its key."""
        with pytest.raises(SettingsError, match="needs its key"):
            run(Settings(servers=["a:1"], metrics=[], callers=file, listen="127.0.0.1:0", cert=file))

    def test_callers(self, file: Path) -> None:
        """A callers file that others can write, or with a mistake in it, lets nobody start."""
        file.chmod(0o666)
        with pytest.raises(CallersFileError):
            run(Settings(servers=["a:1"], metrics=[], callers=file, listen="127.0.0.1:0"))

    def test_packages(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the extra it says what to install."""
        monkeypatch.setitem(sys.modules, "starlette", None)
        with pytest.raises(SettingsError) as told:
            command.console(callers=file)

        assert "pip install 'iyscheck[console]'" in told.value.fix


def test_variables() -> None:
    """Whatever the console reads of the environment may stand there when a server starts."""
    parameters = typer.main.get_command(app).commands["console"].params  # type: ignore[attr-defined] # it has several
    read = {str(each.envvar) for each in parameters if each.envvar}

    assert "IYSCHECK_CONSOLE_LISTEN" in read
    assert read <= OTHER_VARIABLES | {PREFIX + name.upper() for name in ServerSettings.model_fields}


def test_process(file: Path, tmp_path: Path) -> None:
    """It says where it is, takes a log-in, and ends when told, whoever looks; the log has no key."""
    log = tmp_path / "log"
    arguments = [f"--callers={file}", "--listen=127.0.0.1:0", "--server=127.0.0.1:1"]
    with log.open("wb") as written:
        process = subprocess.Popen([sys.executable, "-m", "iyscheck", "console", *arguments], stderr=written)
    try:
        port = _port_in(log, process)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        form = {"content-type": "application/x-www-form-urlencoded", "origin": f"http://127.0.0.1:{port}"}
        connection.request("POST", "/login", f"key={KEYS['looker'].text}", form)
        reply = connection.getresponse()
        reply.read()
        cookie = str(reply.headers["set-cookie"]).partition(";")[0]
        connection.request("GET", "/overview/live", headers={"cookie": cookie})
        live = connection.getresponse()
        first = live.readline()
        process.send_signal(signal.SIGTERM)
        code = process.wait(START_S)
        rest = live.read()
        connection.close()
    finally:
        process.kill()
        process.wait()

    assert (reply.status, code) == (303, 0)
    assert first.startswith(b"id: ")
    assert rest
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert events == ["console_ready", "logged_in", "console_ended"]
    assert KEYS["looker"].text not in log.read_text()


@pytest.mark.parametrize("ends_by", [signal.SIGTERM, signal.SIGINT])
def test_service_manager(file: Path, tmp_path: Path, ends_by: signal.Signals) -> None:
    """Systemd is told when it takes connections, again and again that it lives, and once that it ends."""
    arguments = [f"--callers={file}", "--listen=127.0.0.1:0", "--server=127.0.0.1:1"]
    with notified(tmp_path) as told, (tmp_path / "log").open("wb") as log:
        asked = {"NOTIFY_SOCKET": told.address, "WATCHDOG_USEC": "500000"}
        process = subprocess.Popen(
            [sys.executable, "-m", "iyscheck", "console", *arguments], stderr=log, env=os.environ | asked
        )
        try:
            where = told.wait_for("READY")["STATUS"].removeprefix("at http://").rstrip("/")
            connection = http.client.HTTPConnection(where, timeout=30)
            connection.request("GET", "/login")
            assert connection.getresponse().status == 200
            connection.close()
            told.wait_for("WATCHDOG", 3)
            process.send_signal(ends_by)
            assert process.wait(START_S) == 0
            told.wait_for("STOPPING")
        finally:
            process.kill()
            process.wait()

    assert told.order == ["READY", "STOPPING"]


def _port_in(log: Path, process: "subprocess.Popen[bytes]") -> int:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text().splitlines():
            if "console_ready" in line:
                return int(json.loads(line)["address"].rstrip("/").rpartition(":")[2])
        time.sleep(0.02)
    raise AssertionError(log.read_text())


def test_certificate(file: Path, tmp_path: Path) -> None:
    """Over TLS the cookie is for TLS only, and a new certificate is shown to the next connection."""
    dev(tmp_path / "one")
    dev(tmp_path / "two")
    cert, key = tmp_path / "one" / "server.pem", tmp_path / "one" / "server.key"
    certificates = Certificates(cert, key, None)
    callers = CallersWatch(file)
    watch = Watch([], [])
    log = open_log("error", sys.stderr)
    console = Console(watch, callers, log, secure=True, near=True)
    ready = threading.Event()
    with open_port("127.0.0.1:0") as port:
        server = ConsoleServer(configuration(console, certificates), watch, ready.set)
        thread = threading.Thread(target=server.run, args=([port],))
        thread.start()
        try:
            assert ready.wait(30)
            number = port.getsockname()[1]
            first, cookie = _seen(number, tmp_path / "one" / "ca.pem")
            for name in ("server.pem", "server.key"):
                (tmp_path / "two" / name).replace(tmp_path / "one" / name)
            second, _ = _seen(number, tmp_path / "two" / "ca.pem")
        finally:
            server.should_exit = True
            thread.join(30)

    assert first != second
    assert cookie.startswith("__Host-iyscheck-console=")
    assert "Secure" in cookie


def _seen(port: int, ca: Path) -> tuple[bytes | None, str]:
    """Log in over TLS; gives the certificate that was shown, and the cookie."""
    connection = http.client.HTTPSConnection(
        "localhost", port, timeout=30, context=ssl.create_default_context(cafile=ca)
    )
    form = {"content-type": "application/x-www-form-urlencoded", "origin": f"https://localhost:{port}"}
    connection.request("POST", "/login", f"key={KEYS['both'].text}", form)
    shown = connection.sock.getpeercert(binary_form=True)
    cookie = str(connection.getresponse().headers["set-cookie"])
    connection.close()
    return shown, cookie
