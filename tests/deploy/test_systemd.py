"""The units of systemd: what they name is there, their times are ours, and systemd's own tools have nothing to say."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer

from iyscheck.cli.app import app
from iyscheck.client import Client
from iyscheck.consent import Channel, RecipientType
from iyscheck.console import serving
from iyscheck.server.processes import child, supervisor
from iyscheck.server.settings import PREFIX, Settings
from tests.console.world import callers_text
from tests.deploy.conftest import (
    DEPLOY,
    LOADER_PORT,
    METRICS_PORT,
    PUBLISHER_PORT,
    REPLICA_PORT,
    ROOT,
    SERVER_PORT,
    assert_follows,
    directives,
    loader_flags,
    program,
    ran,
)
from tests.loader.feeds import Command
from tests.loader.replication.servers import configured
from tests.loader.replication.sites import PrimarySite, until
from tests.notified import notified
from tests.processes import Site, turkish_now

UNITS = (
    "iyscheck.service",
    "iyscheck-loader.service",
    "iyscheck-console.service",
    "iyscheck-publisher.service",
    "iyscheck-replica.service",
    "iyscheck-maker.service",
    "nats-server.service",
)
SERVER, LOADER, CONSOLE, PUBLISHER, REPLICA, MAKER, NATS = (directives(DEPLOY / "systemd" / name) for name in UNITS)
OURS = re.compile(rf"^{PREFIX}\w+")


def seconds(unit: dict[str, list[str]], name: str) -> float:
    """Read a time, which stands in seconds."""
    (value,) = unit[name]
    return float(value)


def variables(unit: dict[str, list[str]]) -> dict[str, str]:
    """Read what a unit sets."""
    return dict(each.split("=", 1) for line in unit["Environment"] for each in line.split())


def test_server() -> None:
    """The server's command has no flag that there is not, and each variable of ours is a setting."""
    (command,) = SERVER["ExecStart"]
    flags = {f"--{name.replace('_', '-')}" for name in Settings.model_fields}

    assert command.split()[:2] == ["/opt/iyscheck/bin/iyscheck", "serve"]
    assert {each.partition("=")[0] for each in command.split()[2:] if each.startswith("--")} <= flags
    assert {name for name in variables(SERVER) if OURS.match(name)} <= {
        PREFIX + name.upper() for name in Settings.model_fields
    }


def test_loader() -> None:
    """So it is with the loader's; both open the same store, and both keep compiled loops."""
    (command,) = LOADER["ExecStart"]
    where, *arguments = command.split()
    assert where == "/opt/iyscheck/bin/iyscheck-loader"
    assert_follows(arguments)
    assert f"127.0.0.1:{LOADER_PORT}" in arguments
    ours = {name: value for name, value in variables(LOADER).items() if OURS.match(name)}
    assert ours.keys() <= loader_flags()[1]
    for name in ("IYSCHECK_STORE", "IYSCHECK_STORE_KEY", "NUMBA_CACHE_DIR"):
        assert variables(SERVER)[name] == variables(LOADER)[name]
    for unit in (SERVER, LOADER):
        assert variables(unit)["IYSCHECK_STORE"].startswith(f"/var/lib/{unit['StateDirectory'][0]}/")
        assert variables(unit)["NUMBA_CACHE_DIR"] == f"/var/cache/{unit['CacheDirectory'][0]}"


def test_console() -> None:
    """The console's flags and variables are its own; it finds the server and its metrics where they listen."""
    (command,) = CONSOLE["ExecStart"]
    parameters: Any = typer.main.get_command(app)
    options = parameters.commands["console"].params
    flags = {flag for option in options for flag in option.opts}
    ours = {name: value for name, value in variables(CONSOLE).items() if OURS.match(name)}

    assert command.split()[:2] == ["/opt/iyscheck/bin/iyscheck", "console"]
    assert {each.partition("=")[0] for each in command.split()[2:]} <= flags
    assert ours.keys() <= {option.envvar for option in options}
    assert ours["IYSCHECK_SERVER"] == f"127.0.0.1:{SERVER_PORT}"
    assert ours["IYSCHECK_CONSOLE_METRICS"] == f"http://127.0.0.1:{METRICS_PORT}/metrics"
    assert ours["IYSCHECK_CALLERS"].startswith("/etc/iyscheck/")
    (key,) = CONSOLE["LoadCredential"]
    assert ours["IYSCHECK_API_KEY_FILE"] == f"%d/{key.partition(':')[0]}"


def test_console_apart() -> None:
    """Who takes the console over is not the user of the keys, and finds neither store, feed nor what is compiled."""
    (hidden,) = CONSOLE["InaccessiblePaths"]
    (feed,) = LOADER["RequiresMountsFor"]

    assert CONSOLE["DynamicUser"] == ["yes"]
    assert "User" not in CONSOLE
    assert not {name for name in variables(CONSOLE) if name.endswith(("STORE", "STORE_KEY", "ADDRESS_KEY"))}
    for kept in (f"/var/lib/{SERVER['StateDirectory'][0]}", f"/var/cache/{SERVER['CacheDirectory'][0]}", feed):
        assert f"-{kept}" in hidden.split()


@pytest.mark.parametrize(("unit", "name"), [(PUBLISHER, "publish"), (REPLICA, "replicate"), (MAKER, "replicate")])
def test_of_a_log(unit: dict[str, list[str]], name: str) -> None:
    """What publishes or follows has flags and variables that there are, and the store of loader and server."""
    (command,) = unit["ExecStart"]
    flags, known = loader_flags(name)
    ours = {name: value for name, value in variables(unit).items() if OURS.match(name)}

    assert command.split()[:2] == ["/opt/iyscheck/bin/iyscheck-loader", name]
    assert {each for each in command.split()[2:] if each.startswith("--")} <= flags
    assert command.split()[-1] == f"127.0.0.1:{PUBLISHER_PORT if unit is PUBLISHER else REPLICA_PORT}"
    assert ("--snapshots" in command.split()) == (unit is MAKER)
    assert ours.keys() <= known
    assert ours["IYSCHECK_STORE"] == variables(SERVER)["IYSCHECK_STORE"]
    assert unit["StateDirectory"] == SERVER["StateDirectory"]


@pytest.mark.parametrize("unit", [PUBLISHER, REPLICA, MAKER])
def test_no_keys_of_consents(unit: dict[str, list[str]]) -> None:
    """Who moves sealed batches is started with neither key of consents, and does not even find them."""
    (hidden,) = unit["InaccessiblePaths"]

    assert variables(unit).keys().isdisjoint({"IYSCHECK_STORE_KEY", "IYSCHECK_ADDRESS_KEY"})
    for name in ("IYSCHECK_STORE_KEY", "IYSCHECK_ADDRESS_KEY"):
        assert f"-{variables(LOADER)[name]}" in hidden.split()
    assert f"-{variables(PUBLISHER)['IYSCHECK_CLUSTER']}" not in hidden.split()
    assert len({variables(each)["IYSCHECK_CLUSTER"] for each in (PUBLISHER, REPLICA, MAKER)}) == 1


def test_always_again() -> None:
    """What of a log has ended is started again, whatever it said: nobody is at a replica at night."""
    assert all(unit["Restart"] == ["always"] for unit in (PUBLISHER, REPLICA, MAKER, NATS))
    assert MAKER["Conflicts"] == ["iyscheck-replica.service"]


def test_patience() -> None:
    """The manager waits longer than the supervisor does: for the start, for the drain, and for a worker that hangs."""
    drains = float(Settings.model_fields["drain_seconds"].default)

    assert seconds(SERVER, "TimeoutStartSec") > child._START_S
    assert seconds(SERVER, "TimeoutStopSec") > drains + supervisor._LAST_S
    assert seconds(SERVER, "WatchdogSec") > supervisor._HANGS_S + 10
    assert seconds(CONSOLE, "TimeoutStopSec") > serving._ENDING_S
    assert SERVER["KillMode"] == ["mixed"]
    assert all(unit["Type"] == ["notify"] for unit in (SERVER, LOADER, CONSOLE, PUBLISHER, REPLICA, MAKER))


@pytest.mark.parametrize("name", UNITS)
def test_verified(name: str, tmp_path: Path) -> None:
    """Its own tool understands every line, where the programs are in their places; and says so where it does not."""
    analyze = program("systemd-analyze")
    text = (DEPLOY / "systemd" / name).read_text()
    text = re.sub(r"/opt/iyscheck/bin/|/usr/local/bin/", f"{Path(sys.executable).parent}/", text)
    unit = tmp_path / name
    unit.write_text(text)
    said = ran(analyze, "verify", unit)
    assert (said.returncode, said.stdout + said.stderr) == (0, "")

    unit.write_text(text.replace("TimeoutStopSec=", "TimeoutStopSecs="))
    assert "TimeoutStopSecs" in ran(analyze, "verify", unit).stderr


@pytest.mark.parametrize(("name", "most"), [*zip(UNITS, (13, 10, 10, 11, 11, 11, 11), strict=True)])
def test_exposure(name: str, most: int) -> None:
    """What a process could do that was taken over, as systemd rates it (in tenths), stays little."""
    said = ran(
        program("systemd-analyze"), "security", "--offline=true", f"--threshold={most}", DEPLOY / "systemd" / name
    )

    assert said.returncode == 0, said.stdout[-300:] + said.stderr


ROWS: list[dict[str, object]] = [
    {"kind": "brand", "brandCode": 1, "iysCode": 1, "active": True, "creationDate": "2024-01-01 09:00:00"},
    {
        "brandCode": 1,
        "recipient": "+905321000001",
        "recipientType": "BIREYSEL",
        "type": "MESAJ",
        "status": "ONAY",
        "source": "HS_WEB",
        "consentDate": "2024-05-02 10:00:00",
        "creationDate": "2024-05-02 10:05:00",
    },
]
PATIENCE_S = 120.0


def logged(log: Path, event: str) -> dict[str, object]:
    """Wait until something is logged, also where compiled loops are made first."""
    until = time.monotonic() + PATIENCE_S
    while True:
        for line in log.read_text().rpartition("\n")[0].splitlines():  # a line may be there in part
            if line.startswith("{") and f'"event": "{event}"' in line:
                return dict(json.loads(line))
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.1)


CONFINED = str(Path(__file__).parent / "confined.py")


@pytest.mark.thorough
def test_filters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the filters of the units the loader follows, and two workers serve, are replaced, and drain."""
    program("systemd-analyze")
    pytest.importorskip("pyseccomp", reason="NOT TESTED: there is no pyseccomp here; scripts/test-deploy installs it")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    site = Site.make(tmp_path)
    (tmp_path / "in").mkdir()
    loader = [sys.executable, CONFINED, str(DEPLOY / "systemd" / UNITS[1]), sys.executable, "-m", "loader", "follow"]
    loader += [str(tmp_path / "in"), "--metrics-listen=127.0.0.1:0", "--settle-seconds=0", *site.flags]
    with subprocess.Popen(loader, stderr=subprocess.PIPE, text=True) as following:
        site.feed("in/.rows", [*ROWS, {"kind": "watermark", "completeUntil": turkish_now()}])
        (tmp_path / "in" / ".rows").rename(tmp_path / "in" / "rows.jsonl")
        assert following.stderr is not None
        try:
            while '"source loaded"' not in (line := following.stderr.readline()):
                assert line, "the loader has ended"
            following.send_signal(signal.SIGTERM)
            assert following.wait(60) == 0
        finally:
            following.kill()

    log = tmp_path / "log"
    server = [sys.executable, CONFINED, str(DEPLOY / "systemd" / UNITS[0]), sys.executable, "-m", "iyscheck", "serve"]
    server += [*site.flags, "--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", "--workers=2"]
    server += [f"--listen=unix:{tmp_path / 'socket'}"]
    with log.open("w") as stderr, subprocess.Popen(server, stderr=stderr) as serving:
        try:
            said = logged(log, "serving")
            target = str(said["listen"]).partition(",")[0]
            who: dict[str, Any] = {"brand": 1, "channel": Channel.MESAJ, "recipient_type": RecipientType.BIREYSEL}
            with Client(target, timeout_s=20) as client:
                assert client.check(**who, address="+905321000001").permitted
                column = client.check_column(**who, recipients=["+905321000001"] * 50, frame_size=10)
                assert column.permitted.all()
            os.kill(serving.pid, signal.SIGHUP)
            logged(log, "rolled")
            serving.send_signal(signal.SIGTERM)
            assert serving.wait(60) == 0, log.read_text()
        finally:
            serving.kill()
    assert '"level": "error"' not in log.read_text()


@pytest.mark.thorough
def test_console_filters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the filters of its unit, and without memory that is written and then run, the console shows a page."""
    program("systemd-analyze")
    pytest.importorskip("pyseccomp", reason="NOT TESTED: there is no pyseccomp here; scripts/test-deploy installs it")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "callers.toml").write_text(callers_text())
    console = [sys.executable, CONFINED, str(DEPLOY / "systemd" / UNITS[2]), sys.executable, "-m", "iyscheck"]
    console += ["console", f"--callers={tmp_path / 'callers.toml'}", "--server=127.0.0.1:1", "--listen=127.0.0.1:0"]
    with notified(tmp_path) as told:
        monkeypatch.setenv("NOTIFY_SOCKET", told.address)
        with subprocess.Popen(console, stderr=subprocess.PIPE, text=True) as showing:
            try:
                where = told.wait_for("READY")["STATUS"].removeprefix("at http://").rstrip("/")
                connection = http.client.HTTPConnection(where, timeout=30)
                connection.request("GET", "/login")
                assert connection.getresponse().status == 200
                connection.close()
                showing.send_signal(signal.SIGTERM)
                assert showing.wait(60) == 0
            finally:
                showing.kill()


@pytest.mark.thorough
def test_log_filters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the filters of their units a nats-server carries, a publisher appends, and a replica becomes the same.

    The publisher has no memory that is written and then run, and neither has the nats-server.
    """
    program("systemd-analyze")
    program("nats-server")
    pytest.importorskip("pyseccomp", reason="NOT TESTED: there is no pyseccomp here; scripts/test-deploy installs it")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    server = configured(tmp_path / "nats")
    site = PrimarySite(Command(tmp_path), [server.url], more='[snapshots]\ndirectory = "snapshots"\n')
    store, replica = tmp_path / "store", tmp_path / "replica" / "store"

    def confined(unit: str, *command: str) -> "subprocess.Popen[bytes]":
        whole = [sys.executable, CONFINED, str(DEPLOY / "systemd" / unit), *command]
        with (tmp_path / f"{unit}.log").open("ab") as log:
            return subprocess.Popen(whole, cwd=tmp_path, stderr=log)

    def loader(unit: str, *command: str) -> "subprocess.Popen[bytes]":
        return confined(unit, sys.executable, "-m", "loader", *command, f"--cluster={site.cluster}")

    def equal() -> bool:
        ran = [site.command.run("digest", "--json", "--store", str(each)) for each in (store, replica)]
        first, second = ({**json.loads(each.stdout or b"{}"), "role": ""} for each in ran)
        return "digest" in first and first == second

    processes = [confined("nats-server.service", program("nats-server"), "-c", str(server.config))]
    try:
        server.process = processes[0]
        server.wait()
        for arguments in (["create-log", "--replicas=1", "--kept-gb=1"], ["snapshot"]):
            made = site.command.run(*arguments, f"--cluster={site.cluster}")
            assert made.returncode == 0, made.stderr
        processes.append(loader("iyscheck-publisher.service", "publish", f"--store={store}"))
        processes.append(loader("iyscheck-replica.service", "replicate", f"--store={replica}"))
        until((replica / "data.mdb").exists, "a replica")
        site.commit(3)
        until(equal, "an equal replica")
        maker = processes.pop()
        maker.send_signal(signal.SIGTERM)
        assert maker.wait(60) == 0
        processes.append(loader("iyscheck-maker.service", "replicate", "--snapshots", f"--store={replica}"))
        site.commit(1)
        until(equal, "an equal maker")
        for process, asked in zip(reversed(processes), (signal.SIGTERM, signal.SIGTERM, signal.SIGUSR2), strict=True):
            process.send_signal(asked)
            assert process.wait(60) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
