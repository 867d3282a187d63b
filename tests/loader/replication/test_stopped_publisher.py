"""A publisher that has stopped for good can be asked why: where somebody watches it, it stays."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from bench.soak.site import free_port
from iyscheck.store.snapshot import Store
from loader.replication.log import NatsLog
from tests.loader.feeds import ROOT, Command
from tests.loader.replication.servers import one_server
from tests.loader.replication.sites import PATIENCE_S, PrimarySite, until

FENCED = 'consent_publisher_state{consent_publisher_state="fenced"} 1.0'


@pytest.fixture
def site(tmp_path: Path) -> Iterator[PrimarySite]:
    """A primary in whose log somebody else has written."""
    with one_server(tmp_path / "nats") as nats:
        site = PrimarySite(Command(tmp_path), [nats.url])
        made = site.command.run("create-log", "--cluster", "cluster.toml", "--replicas", "1", "--kept-gb", "1")
        assert made.returncode == 0, made.stderr
        with Store.open(site.store) as store, store.snapshot() as snapshot:
            (ours,) = snapshot.outbox_messages(1)
        with closing(NatsLog.connect(nats.settings())) as log:
            log.append(0, b"what is no message of a log is passed over")
            log.append(
                1, ours[:-1] + bytes([ours[-1] ^ 1])
            )  # nobody of ours has signed this, and it says that it is ours
        yield site
        site.command.stop()


def publishing(site: PrimarySite, *flags: str) -> "subprocess.Popen[bytes]":
    """Start the publisher."""
    command = [sys.executable, "-m", "loader", "publish", f"--store={site.store}", f"--cluster={site.cluster}", *flags]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)


def test_unwatched(site: PrimarySite) -> None:
    """It ends at once, with a code of its own."""
    with publishing(site) as process:
        _, said = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 3
    (line,) = [json.loads(line) for line in said.splitlines() if b"publisher_fenced" in line]
    assert line["fix"]
    assert line["fix"] not in line["message"]


@pytest.mark.thorough
def test_watched(site: PrimarySite) -> None:
    """It shows its state until it is told to end, and keeps others from its store; then it ends with that code."""
    port = free_port()
    with publishing(site, f"--metrics-listen=127.0.0.1:{port}") as process:
        try:

            def told() -> bool:
                with (
                    suppress(urllib.error.URLError),
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page,
                ):
                    return FENCED in page.read().decode()
                return False

            until(told, "the state")
            assert process.poll() is None
            second = site.command.run("publish", "--cluster", "cluster.toml")
            early = site.command.run("promote", "--cluster", "cluster.toml")
            process.terminate()
            process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()

    assert process.returncode == 3
    assert (second.returncode, early.returncode) == (2, 2)
    assert b"One publisher is enough" in second.stderr
    assert b"Stop 'iyscheck-loader publish' on this machine first" in early.stderr
    promoted = site.command.run("promote", "--cluster", "cluster.toml", "--rebase", "--yes")
    assert promoted.returncode == 0, promoted.stderr
