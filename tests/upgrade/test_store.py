"""Yesterday's store under today's programs, and today's store under yesterday's: read, upgraded, refused."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from iyscheck.consent import Channel, MessageClass, RecipientType
from iyscheck.engine import Engine
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.question import Answer, Context, Question
from iyscheck.store import layout
from tests.server.processes.running import eventually
from tests.upgrade.machines import Machine
from tests.upgrade.versions import PACKAGES, Version

OLDER_FORMAT = 3
SENTENCE = f"was upgraded from format {OLDER_FORMAT} to {layout.FORMAT_VERSION}; versions of iyscheck"
REFUSAL = f"has format {layout.FORMAT_VERSION}; this iyscheck reads up to {OLDER_FORMAT}"
FIX = "Use the iyscheck that wrote it, or a newer one."


def embedded(machine: Machine) -> list[int]:
    """Ask an engine in this process."""
    keys = {
        "store_key": StoreKey.load(machine.folder / "store.key"),
        "address_key": AddressKey.load(machine.folder / "address.key"),
    }
    questions = [
        Question(
            context=Context(
                brand=ask.brand,
                channel=Channel[ask.channel],
                recipient_type=RecipientType[ask.kind],
                message_class=MessageClass.SECURITY_CODE if ask.exempt else MessageClass.COMMERCIAL,
                retailer=ask.retailer,
            ),
            address=ask.spelt,
        )
        for ask in machine.asks()
    ]
    with Engine.open(machine.store, **keys) as engine:  # type: ignore[arg-type] # keywords in a dict
        return [int(item.reason) for item in engine.check_many(questions) if isinstance(item, Answer)]


@pytest.mark.thorough
def test_readers_take_it_as_it_is(machine: Machine, yesterday: Version, today: Version) -> None:
    """Today's server and engine answer from yesterday's store what is right, as yesterday's did, and change no byte."""
    before = machine.stored()
    with machine.serving(yesterday) as server:
        was = machine.told(yesterday, server.target)
    with machine.serving(today) as server:
        becomes = machine.told(today, server.target)
    machine.assert_right(was)
    machine.assert_right(becomes)
    assert embedded(machine) == machine.right()
    for command in ("status", "verify"):
        done = machine.loader(today, command)
        assert done.returncode == 0, done.stderr
    assert machine.stored() == before


@pytest.mark.thorough
def test_loader_upgrades_it(machine: Machine, today: Version) -> None:
    """Today's loader gives it today's format, says so once, and goes on where yesterday's had come to."""
    assert SENTENCE in machine.load(today, machine.write()).stderr
    done = machine.loader(today, "load", str(machine.folder / machine.write()), "--json")
    assert json.loads(done.stdout)["upgraded_from"] is None
    assert SENTENCE not in done.stderr
    verified = machine.loader(today, "verify")
    assert verified.returncode == 0, verified.stdout
    with machine.serving(today) as server:
        machine.assert_right(machine.told(today, server.target))


@pytest.mark.thorough
def test_upgraded_below_a_server(machine: Machine, yesterday: Version, today: Version) -> None:
    """Yesterday's server that has the store open goes on, also with what comes later. No new worker of it starts."""
    with machine.serving(yesterday, "--workers=2") as server:
        server.wait_for("worker_answers", 2)
        machine.assert_right(machine.told(yesterday, server.target))
        assert SENTENCE in machine.load(today, machine.write()).stderr
        machine.assert_right(machine.told(yesterday, server.target))
        assert server.metric("consent_check_decisions_total") > 0

        server.process.send_signal(signal.SIGHUP)
        server.wait_for("rolling_restart_failed")
        assert REFUSAL in server.log.read_text()
        machine.assert_right(machine.told(today, server.target))


@pytest.mark.thorough
def test_installed_below_a_server(machine: Machine, yesterday: Version, today: Version, tmp_path: Path) -> None:
    """Where today's version is installed over yesterday's, SIGHUP to yesterday's supervisor brings today's workers."""
    installed = Version(name="installed", root=tmp_path / "installed")
    for package in PACKAGES:
        shutil.copytree(yesterday.root / package, installed.root / package)
    with machine.serving(installed, "--workers=2") as server:
        server.wait_for("worker_answers", 2)
        machine.assert_right(machine.told(yesterday, server.target))
        for package in PACKAGES:
            shutil.rmtree(installed.root / package)
            shutil.copytree(today.root / package, installed.root / package)
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("rolled")
        assert SENTENCE in machine.load(installed, machine.write()).stderr
        for version in (yesterday, today):
            machine.assert_right(machine.told(version, server.target))
        os.kill(server.pids()[0], signal.SIGKILL)
        server.wait_for("worker_answers", 5)
        machine.assert_right(machine.told(today, server.target))
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0


@pytest.mark.thorough
def test_older_loader_is_refused(machine: Machine, yesterday: Version, today: Version) -> None:
    """Yesterday's programs say of today's store what it is and what to do, and change no byte of it."""
    machine.load(today, machine.write())
    before = machine.stored()
    name = machine.write()
    for command in (["load", str(machine.folder / name)], ["status"], ["rebuild-index"]):
        done = machine.loader(yesterday, *command)
        assert (done.returncode, done.stdout) == (2, "")
        assert REFUSAL in done.stderr
        assert FIX in done.stderr
    with machine.serving(yesterday) as server:
        eventually(lambda: server.process.poll() is not None, "an older server that ends")
        assert server.process.returncode == 2
        assert REFUSAL in server.log.read_text()
    assert machine.stored() == before
    machine.load(today, name)
    with machine.serving(today) as server:
        machine.assert_right(machine.told(today, server.target))
