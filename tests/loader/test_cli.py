import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from iyscheck.server.settings import OTHER_VARIABLES, PREFIX, Settings
from iyscheck.store import layout
from iyscheck.store.deliveries import DAY_S
from iyscheck.store.environment import open_writer
from iyscheck.store.snapshot import Store
from loader.cli.app import app
from tests.loader.feeds import Command, brand_row, consent, lines, position, watermark_row
from tests.notified import notified

FAILING = 'consent_feed_state{consent_feed_state="failing"} 1.0'
"""A line of the metrics."""


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    """The command in a directory of its own; nothing of it runs on when the test ends."""
    command = Command(tmp_path)
    yield command
    command.stop()


def write(command: Command, name: str, *rows: dict[str, object] | bytes) -> str:
    """Write a feed file beside the store."""
    (command.path / name).parent.mkdir(exist_ok=True)
    (command.path / name).write_bytes(lines(rows))
    return name


def until(condition: Callable[[], bool]) -> None:
    """Wait for something, at most half a minute."""
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it never came true")


class TestLoad:
    """`load` and what belongs to it."""

    def test_day(self, command: Command) -> None:
        """A feed with rejects is loaded, shown, accepted and verified."""
        write(command, "a.jsonl", brand_row(), consent(), consent(recipient="?"), watermark_row())

        loaded = command.run("load", "a.jsonl")
        status = json.loads(command.run("status", "--json").stdout)
        accepted = command.run("accept-rejects", "a.jsonl", "--json")
        again = command.run("load", "a.jsonl", "--json")

        assert (loaded.returncode, accepted.returncode, again.returncode) == (1, 0, 0)
        assert b"4 rows read: 1 applied, 0 superseded, 0 skipped, 1 rejected" in loaded.stdout
        assert status["sources"][0]["holds"] == [1]
        assert json.loads(accepted.stdout)["watermarks"] == {"1": "2026-01-01T00:00:00Z"}
        assert json.loads(again.stdout)["unchanged"] == 1
        assert command.run("verify").stdout == b"1 records read, 0 faults.\n"
        assert command.run("verify", "--json").returncode == 0
        assert b"complete until 2026-01-01T00:00:00Z" in command.run("status").stdout

    def test_odd_names(self, command: Command) -> None:
        """Whatever a file, a source or a reason is called, nothing that the commands say of it steers a terminal."""
        odd = "a\x1b]0;x\x07\n\u202e.jsonl"
        (command.path / odd).write_bytes(lines([brand_row(), consent(recipient="?"), watermark_row()]))
        held = ("load", odd, "--source", odd, "--rejects", odd + ".rejects")
        said = [command.run(*held), command.run("status"), command.run("accept-rejects", odd)]
        (command.path / odd).write_bytes(lines([brand_row(2), consent()]))
        said += [command.run(*held), command.run("load", odd), command.run("load", odd + "x")]
        said += [command.run("accept-gap", "1", "--until", "2026-01-03", "--reason", odd), command.run("status")]

        assert [each.returncode for each in said] == [1, 0, 0, 2, 0, 2, 0, 0]
        for each in said:
            told = (each.stdout + each.stderr).decode()
            assert all(line.isprintable() for line in told.split("\n")), told
        assert sum("a\\x1b]0;x\\x07\\n\\u202e" in (each.stdout + each.stderr).decode() for each in said) == 7
        (again,) = [line for line in said[4].stdout.decode().split("\n") if "--complete-until" in line]
        assert " $'a\\x1b]0;x\\x07\\n\\u202e.jsonl' " in again

    def test_rebuild_index(self, command: Command) -> None:
        """A damaged page is found by `verify`, which says what mends it, and that mends it."""
        write(command, "a.jsonl", brand_row(), *(consent(recipient=f"+90532{n:07d}") for n in range(300)))
        command.run("load", "a.jsonl")
        environment = open_writer(command.path / "store")
        with environment.lmdb.begin(write=True) as txn, txn.cursor(environment.databases[layout.INDEX]) as cursor:
            assert cursor.last()
            cursor.put(cursor.key(), bytes(4080))
        environment.close()

        found = command.run("verify")
        rebuilt = command.run("rebuild-index")
        again = json.loads(command.run("rebuild-index", "--json").stdout)

        assert found.returncode == 1
        assert b"is damaged: run 'iyscheck-loader rebuild-index'" in found.stdout
        assert rebuilt.returncode == 0
        assert rebuilt.stdout.startswith(b"The index has 300 consents in 16 pages (65,536 bytes); built in ")
        assert (again["consents"], again["shards"], again["bytes"]) == (300, 16, 65_536)
        assert command.run("verify").stdout == b"300 records read, 0 faults.\n"

    def test_no_watermark(self, command: Command) -> None:
        """A load that moved no watermark prints the command that would, and that one does."""
        write(command, "a.jsonl", brand_row(), consent())

        said = command.run("load", "a.jsonl").stdout.decode()
        (line,) = [line for line in said.splitlines() if "--complete-until" in line]
        moved = command.run("load", "a.jsonl", "--complete-until", "2025-12-01 00:00:00", "--json")

        assert line.strip().startswith("iyscheck-loader load a.jsonl --store")
        assert json.loads(moved.stdout)["watermarks"] == {"1": "2025-11-30T21:00:00Z"}

    def test_waiting_watermark(self, command: Command) -> None:
        """A watermark that waits for rejects is never said to have moved already; one that has moved is."""
        write(command, "a.jsonl", brand_row(), consent(recipient="?"))
        until = ("--complete-until", "2025-12-01 00:00:00")
        for _ in range(2):
            assert b"reached that time already" not in command.run("load", "a.jsonl", *until).stdout
        write(command, "b.jsonl", brand_row(2))
        command.run("load", "b.jsonl", "--brand", "2", *until)

        assert b"reached that time already" in command.run("load", "b.jsonl", "--brand", "2", *until).stdout

    def test_wrong_option(self, command: Command) -> None:
        """A command line that cannot be right is an object, too, for a program that asks for one."""
        ended = command.run("load", "--json")

        assert ended.returncode == 2
        assert json.loads(ended.stdout)["error"]["reason"] == "USAGE"

    def test_help_on_a_full_disk(self) -> None:
        """Help that cannot be printed ends with a sentence, not with a traceback."""
        with Path("/dev/full").open("wb") as full:
            ended = subprocess.run(
                [sys.executable, "-m", "loader", "--help"], stdout=full, stderr=subprocess.PIPE, check=False
            )

        assert ended.returncode == 2
        assert ended.stderr.startswith(b"iyscheck-loader: The system refused something: No space left")

    def test_day_of_daily_file(self, command: Command) -> None:
        """--date with a proof makes a daily file complete until the next midnight in Turkey."""
        (command.path / "d.csv").write_text("2025-06-01 12:00:00,,+905321000001,BIREYSEL,MESAJ,RET,,HS_WEB\n")

        write(command, "a.jsonl", brand_row(7))
        command.run("load", "a.jsonl", "--brand", "7", "--complete-until", "2025-06-01 00:00:00")

        about = ("--feed", "daily", "--every", "24h", "--promise", "90m")
        loaded = command.run("load", "d.csv", "--brand", "7", "--date", "2025-06-01", "--whole", "--json", *about)

        assert json.loads(loaded.stdout)["watermarks"] == {"7": "2025-06-01T21:00:00Z"}
        with Store.open(command.path / "store") as store, store.snapshot() as snapshot:
            daily, load = snapshot.feeds()
        assert (daily.name, daily.interval, load.name, load.interval) == ("daily", DAY_S, "load", 0)
        assert (daily.refusals, daily.late) == (1, 1)

    def test_stdin(self, command: Command) -> None:
        """Standard input starts from its beginning each time, and earlier rejects keep their hold."""
        first = command.run("load", "-", "--json", stdin=lines([brand_row(), consent(recipient="?")]))
        second = command.run("load", "-", "--json", stdin=lines([consent(), watermark_row()]))

        assert json.loads(first.stdout)["read"] == 2
        assert json.loads(second.stdout)["read"] == 2
        assert json.loads(second.stdout)["withheld"] == {"1": "2026-01-01T00:00:00Z"}

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (["load", "none"], "SOURCE_UNREADABLE"),
            (["load", "a.jsonl", "--complete-until", "2099-01-01 00:00:00"], "WATERMARK_AHEAD_OF_CLOCK"),
            (["load", "a.jsonl", "--complete-until", "soon"], "INVALID_SETTING"),
            (["load", "a.jsonl", "--date", "2025-01-01"], "INVALID_SETTING"),
            (["load", "a.jsonl", "--brand", "1", "--date", "2025-02-30"], "INVALID_SETTING"),
            (["load", "a.jsonl", "--store-key", "none"], "KEY_FILE_UNUSABLE"),
            (["load", "a.jsonl", "--rejects", "a.jsonl"], "SOURCE_UNREADABLE"),
            (["status"], "STORE_MISSING"),
            (["verify"], "STORE_MISSING"),
            (["accept-rejects", "x"], "SOURCE_UNKNOWN"),
            (["follow", "none"], "INVALID_SETTING"),
            (["load", "a.jsonl", "--feed", "other"], "INVALID_SETTING"),
            (["follow", ".", "--every", "daily"], "INVALID_SETTING"),
            (["follow", ".", "--metrics-listen", "127.0.0.1:99999"], "INVALID_SETTING"),
        ],
    )
    def test_errors(self, command: Command, arguments: list[str], reason: str) -> None:
        """An error is one sentence, beside it a JSON object with reason, field, message and fix, and exit code 2."""
        write(command, "a.jsonl", b"{}}")

        ended = command.run(*arguments, "--json")

        assert ended.returncode == 2
        error = json.loads(ended.stdout)["error"]
        assert error.keys() == {"reason", "field", "message", "fix"}
        assert error["reason"] == reason
        assert bool(error["field"]) == (reason == "INVALID_SETTING")
        assert ended.stderr.decode().startswith("iyscheck-loader: ")
        assert f"{error['message']} {error['fix']}".rstrip() in ended.stderr.decode()

    def test_error_for_people(self, command: Command) -> None:
        """Without --json an error is one line, never a traceback."""
        ended = command.run("load", "none")

        assert ended.returncode == 2
        assert ended.stderr.startswith(b"iyscheck-loader: ")
        assert ended.stderr.count(b"\n") == 1

    def test_no_plaintext(self, command: Command) -> None:
        """Addresses and names of a feed are in the rejects file and nowhere else."""
        row = consent(recipient="+905329998877", citizenName="Ayse Yilmaz")
        write(
            command, "a.jsonl", row, row | {"status": None}, consent(recipient="ayse@ornek.com.tr"), b'{"+905329998877'
        )

        said = command.run("load", "a.jsonl")

        assert said.returncode == 1
        for secret in (b"5329998877", b"ornek", b"Ayse"):
            assert secret not in said.stdout + said.stderr
            assert secret not in (command.path / "store" / "data.mdb").read_bytes()
        (rejects,) = (command.path / "store.rejects").iterdir()
        assert b"5329998877" in rejects.read_bytes()
        assert b"Ayse" not in rejects.read_bytes()

    def test_second_loader(self, command: Command) -> None:
        """A second writer is refused at once."""
        write(command, "a.jsonl", b"{}}")
        (command.path / "inbox").mkdir()
        first = command.start("follow", "inbox")
        until((command.path / "store" / "data.mdb").exists)

        second = command.run("load", "a.jsonl", "--json")
        first.send_signal(signal.SIGTERM)
        first.communicate()

        assert json.loads(second.stdout)["error"]["reason"] == "STORE_BUSY"
        assert first.returncode == 0

    def test_sigterm(self, command: Command) -> None:
        """SIGTERM ends a load after a commit; the next one loads the rest."""
        write(command, "a.jsonl", *[consent(recipient=f"+90532{at:07}") for at in range(20_000)])
        process = command.start("load", "a.jsonl", "--commit-rows", "20", "--json")
        until(lambda: position(command.path / "store") > 0)

        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate()

        assert process.returncode == 0
        assert json.loads(said)["stopped"]
        rest = json.loads(command.run("load", "a.jsonl", "--json").stdout)
        assert rest["read"] == 20_000 - json.loads(said)["read"]
        assert rest["position"]["sequence"] == 20_000


class TestFollow:
    """`follow` and its metrics."""

    def test_bad_file_between(self, command: Command) -> None:
        """A bad file stops neither the rest nor the process, but holds back later watermarks until it is gone.

        A service manager is told of all of it.
        """
        with notified(command.path) as told:
            command.environment |= {"NOTIFY_SOCKET": told.address, "WATCHDOG_USEC": "400000"}
            self.follow_bad_file(command)

        assert told.said[0] == {"READY": "1", "STATUS": "following inbox"}
        states = {message["STATUS"].partition(",")[0] for message in told.said[1:-1] if "STATUS" in message}
        assert states == {"waiting", "failing", "loading"}
        assert {"STATUS": "loading, at 3 rows"} in told.said
        assert told.count("WATCHDOG") > 3
        assert told.order == ["READY", "STOPPING"]

    def follow_bad_file(self, command: Command) -> None:
        """Let a bad file come between two good ones, and go."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        (command.path / "inbox").mkdir()
        process = command.start(
            "follow",
            "inbox",
            "--poll-seconds=0.05",
            "--settle-seconds=0",
            f"--metrics-listen=127.0.0.1:{port}",
            "--json",
        )

        def metrics() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                return str(answer.read().decode())

        until((command.path / "store" / "data.mdb").exists)
        write(command, "inbox/.1.jsonl", brand_row(), consent(), watermark_row("2025-12-01 00:00:00"))
        (command.path / "inbox/.1.jsonl").rename(command.path / "inbox/1.jsonl")
        until(lambda: position(command.path / "store") == 3)
        (command.path / "inbox/2.jsonl.gz").write_bytes(b"not gzip")
        until(lambda: 'consent_feed_source_errors_total{reason="SOURCE_UNREADABLE"} 1.0' in metrics())
        write(command, "inbox/.3", consent(), consent(recipient="+905329998877", status="RET"), watermark_row())
        (command.path / "inbox/.3").rename(command.path / "inbox/3.jsonl")
        until(lambda: position(command.path / "store") == 6)
        # It is committed before it is counted, and the round ends after that.
        until(lambda: {"consent_feed_applied_sequence 6.0", FAILING} <= {*metrics().splitlines()})
        scrape = metrics()
        with Store.open(command.path / "store") as store, store.snapshot() as snapshot:
            held_back = snapshot.watermarks()
        (command.path / "inbox/2.jsonl.gz").unlink()
        until(
            lambda: (
                json.loads(command.run("status", "--json").stdout)["brands"][0]["watermark"] == "2026-01-01T00:00:00Z"
            )
        )
        process.send_signal(signal.SIGTERM)
        said, log = process.communicate()

        assert process.returncode == 0
        with Store.open(command.path / "store") as store, store.snapshot() as snapshot:
            (feed,) = snapshot.feeds()
        assert (feed.name, feed.every, feed.rhythm) == ("follow", 0, DAY_S)
        assert feed.succeeded > 0
        assert held_back == {1: 1764536400}
        assert 'consent_feed_rows_total{outcome="applied"} 2.0' in scrape
        assert 'consent_feed_rows_total{outcome="superseded"} 1.0' in scrape
        assert 'consent_feed_rows_total{outcome="rejected"} 0.0' in scrape
        assert "consent_feed_applied_sequence 6.0" in scrape
        assert 'consent_feed_source_errors_total{reason="STORE_FULL"} 0.0' in scrape
        assert "consent_feed_files_waiting 2.0" in scrape
        assert FAILING in scrape
        assert "consent_feed_commit_seconds_bucket" in scrape
        assert json.loads(said)["read"] == 6
        events = [json.loads(line) for line in log.splitlines()]
        assert [event["reason"] for event in events if event["level"] == "error"] == ["SOURCE_UNREADABLE"]
        assert b"998877" not in log + said + scrape.encode()

    def test_help(self, command: Command) -> None:
        """Every command explains itself with an example."""
        for name in ("load", "follow", "accept-rejects"):
            said = command.run(name, "--help")

            assert b"Example" in said.stdout
            assert b"iyscheck-loader" in said.stdout


def test_variables() -> None:
    """Whatever the loader reads of the environment may stand there when a server starts."""
    names: list[str | list[str]] = []

    def gather(command: Any) -> None:  # noqa: ANN401 - typer's own
        for each in getattr(command, "commands", {}).values():
            gather(each)
        names.extend(each.envvar for each in command.params if each.envvar)

    gather(typer.main.get_command(app))
    read = {name for each in names for name in ([each] if isinstance(each, str) else each)}

    assert {"IYSCHECK_STORE", "IYSCHECK_FEEDS", "IYSCHECK_CLUSTER"} <= read
    assert read <= OTHER_VARIABLES | {PREFIX + name.upper() for name in Settings.model_fields}
