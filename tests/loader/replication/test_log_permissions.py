"""The example of deploy/cluster/nats, run: who has which role may do its work there and nothing else."""

import contextlib
import dataclasses
import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nkeys
import pytest
import structlog.testing

from loader.replication.connection import NatsConnection
from loader.replication.log import NatsLog
from loader.replication.log_objects import NatsObjects
from loader.replication.messages import LogAwayError, LogDeniedError
from tests.loader.replication.servers import BINARY, DEPLOY, Guarded, guarded, patiently, running

KEPT = 100_000_000
BUCKET = "IYS-SNAPSHOTS"
PATIENCE_S = 60.0
HARM_S = 1.0
"""In which harm is done, if any is: with streams and users in one account it was less."""
HEARTBEAT_NS = 100_000_000
FORGOTTEN_NS = 10_000_000_000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Three servers with a log that has a message, and a bucket that has a snapshot."""
    site = guarded(tmp_path_factory.mktemp("nats"))
    with running(*site.cluster.servers):
        with contextlib.closing(NatsLog.connect(site.settings("publisher"))) as log:
            patiently(lambda: log.create_stream(kept_bytes=KEPT))
            log.append(0, b"first")
        with contextlib.closing(NatsObjects.connect(site.settings("publisher"), BUCKET)) as objects:
            patiently(lambda: objects.create_stream(kept_bytes=KEPT))
            objects.put("snapshot", iter([b"content"]))
        yield site


@contextlib.contextmanager
def logs(site: Guarded, role: str, user: str = "") -> Iterator[NatsLog]:
    """Use the log as somebody."""
    with contextlib.closing(NatsLog.connect(site.settings(role, user))) as log:
        yield log


@contextlib.contextmanager
def places(site: Guarded, role: str) -> Iterator[NatsObjects]:
    """Use the bucket as somebody."""
    with contextlib.closing(NatsObjects.connect(site.settings(role), BUCKET)) as objects:
        yield objects


def test_the_example_is_taken_by_the_server(site: Guarded) -> None:
    """As `nats-server -t` says."""
    for server in site.cluster.servers:
        said = subprocess.run([BINARY, "-t", "-c", server.config], capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stderr
        assert "is valid" in said.stderr


def test_each_example_key_must_be_replaced(tmp_path: Path) -> None:
    """Nobody starts it as it is, with users that nobody is."""
    (tmp_path / "nats.conf").write_text(f'include "{DEPLOY / "users.conf"}"\n')
    said = subprocess.run([BINARY, "-t", "-c", tmp_path / "nats.conf"], capture_output=True, text=True, check=False)
    assert said.returncode != 0


@pytest.mark.parametrize("user", ["publisher", "standby"])
def test_publishers_append_and_read(site: Guarded, user: str) -> None:
    """Who is to become the primary too."""
    with logs(site, "publisher", user) as log:
        last = log.ends().last
        assert log.append(last, b"more") == last + 1
        assert log.get(last + 1) == b"more"
        with log.reading(last + 1) as reader:
            assert reader.fetch(10.0) == [(last + 1, b"more")]


@pytest.mark.parametrize("role", ["follower", "maker"])
def test_who_follows_reads_and_does_not_append(site: Guarded, role: str) -> None:
    """The error says what was denied, at once and not when time is up."""
    with logs(site, role) as log:
        last = log.ends().last
        assert log.get(1) == b"first"
        with log.reading(1) as reader:
            assert reader.fetch(10.0)[0] == (1, b"first")
        with pytest.raises(LogDeniedError, match=r"iys\.log\.iys") as caught, structlog.testing.capture_logs() as lines:
            log.append(last, b"forged")
        assert caught.value.subject == "iys.log.iys"
        assert {"event": "nats_denied", "subject": "iys.log.iys", "log_level": "error"} in lines
        assert log.ends().last == last


@pytest.mark.parametrize("role", ["publisher", "follower", "maker"])
@pytest.mark.parametrize(
    "subject",
    [
        "iys.api.STREAM.PURGE.IYS",
        "iys.api.STREAM.DELETE.IYS",
        "iys.api.STREAM.UPDATE.IYS",
        "iys.api.STREAM.MSG.DELETE.IYS",
        "iys.api.STREAM.DELETE.IYS-SNAPSHOTS",
        "iys.api.STREAM.UPDATE.IYS-SNAPSHOTS",
        "iys.api.STREAM.RESTORE.IYS",
        "iys.api.STREAM.SNAPSHOT.IYS",
        "iys.api.STREAM.PEER.REMOVE.IYS",
        "iys.api.STREAM.LEADER.STEPDOWN.IYS",
        "iys.api.STREAM.CREATE.OTHER",
        "iys.api.CONSUMER.DURABLE.CREATE.IYS.lasting",
        "iys.api.STREAM.LIST",
        "iys.api.INFO",
        "$JS.API.STREAM.INFO.IYS",
        "$JS.API.STREAM.DELETE.IYS",
        "iys.log.OTHER",
        "_INBOX_publisher.forged",
        "$SYS.REQ.SERVER.PING",
    ],
)
def test_nobody_does_what_no_role_needs(site: Guarded, role: str, subject: str) -> None:
    """Neither the log nor what NATS has for it can be changed by who uses it."""
    connection = NatsConnection(site.settings(role))
    with contextlib.closing(connection), pytest.raises(LogDeniedError, match="deploy/cluster/nats") as caught:
        connection.ask(subject, b"{}", timeout_s=10)
    assert caught.value.subject == subject.lower()


def test_followers_make_no_stream(site: Guarded) -> None:
    """Only who is or will be the primary may."""
    with logs(site, "follower") as log, pytest.raises(LogDeniedError, match=r"stream\.create"):
        log.create_stream(kept_bytes=KEPT)


def test_makers_make_the_place_of_snapshots_anew(site: Guarded) -> None:
    """A stream with one copy may be lost. They make no other one."""
    for role in ("maker", "publisher"):
        with places(site, role) as objects:
            objects.create_stream(kept_bytes=KEPT)
    with logs(site, "maker") as log, pytest.raises(LogDeniedError, match=r"stream\.create"):
        log.create_stream(kept_bytes=KEPT)


def test_publishers_do_not_change_a_stream_by_making_it(site: Guarded) -> None:
    """NATS says that there is a different one."""
    with logs(site, "publisher") as log:
        log.create_stream(kept_bytes=KEPT)
        with pytest.raises(LogAwayError, match="different configuration"):
            log.create_stream(kept_bytes=KEPT, kept_hours=1)


def test_makers_keep_snapshots_that_followers_take(site: Guarded) -> None:
    """And followers neither put nor delete one."""
    with places(site, "maker") as maker, places(site, "follower") as follower:
        maker.put("new", iter([b"made"]))
        assert b"".join(follower.get("new")) == b"made"
        assert follower.names() == ["new", "snapshot"]
        forbidden: list[Callable[[], object]] = [
            lambda: follower.put("forged", iter([b"x"])),
            lambda: follower.delete("new"),
        ]
        for act in forbidden:
            with pytest.raises(LogDeniedError, match="purge"):
                act()
        maker.delete("new")
        assert follower.names() == ["snapshot"]


REPLIES = {
    "the log": "iys.log.IYS",
    "the bucket": "iys.snapshots.IYS-SNAPSHOTS.whole.forged",
    **{
        f"{request} as {api}": f"{api}.{request}"
        for api in ("$JS.API", "iys.api")
        for request in (
            "STREAM.DELETE.IYS",
            "STREAM.PURGE.IYS",
            "STREAM.DELETE.IYS-SNAPSHOTS",
            "STREAM.PURGE.IYS-SNAPSHOTS",
        )
    },
}
"""Where somebody has answers sent to whom they would do harm: NATS does not check that."""
OWN = {
    "publisher": {"iys.log.IYS", "iys.snapshots.IYS-SNAPSHOTS.whole.forged", "iys.api.STREAM.PURGE.IYS-SNAPSHOTS"},
    "maker": {"iys.snapshots.IYS-SNAPSHOTS.whole.forged", "iys.api.STREAM.PURGE.IYS-SNAPSHOTS"},
    "follower": set[str](),
}
"""What a role may do to both anyway."""


@pytest.mark.parametrize("role", ["publisher", "maker", "follower"])
def test_no_answer_does_harm(site: Guarded, role: str) -> None:
    """Whoever asks says where the answer goes. It goes nowhere but into the account of its own role.

    Answers are JSON, stored messages, and empty ones, which JetStream would take for a request.
    """
    with logs(site, "publisher") as log, places(site, "publisher") as objects:
        before = log.ends(), objects.names()
        with contextlib.closing(NatsConnection(site.settings(role))) as stolen:
            for stream in ("IYS", BUCKET):
                for name, policy in (("all", "all"), ("none", "new")):
                    make_reader(stolen, stream, f"{role}-{name}", deliver_policy=policy)
                for reply in REPLIES.values():
                    if reply not in OWN[role]:
                        have_answered(stolen, f"iys.api.STREAM.INFO.{stream}", b"", reply)
                        for name in ("all", "none"):
                            subject = f"iys.api.CONSUMER.MSG.NEXT.{stream}.{role}-{name}"
                            have_answered(stolen, subject, b'{"batch": 1, "no_wait": true}', reply)
            time.sleep(HARM_S)
        assert (log.ends(), objects.names()) == before
        assert b"".join(objects.get("snapshot")) == b"content"


@pytest.mark.parametrize("role", ["maker", "follower"])
def test_nothing_delivered_does_harm(site: Guarded, role: str) -> None:
    """Who makes a reader may say where a server sends what it reads, and its signs of life, which are empty."""
    with logs(site, "publisher") as log, places(site, "publisher") as objects:
        before = log.ends(), objects.names()
        with contextlib.closing(NatsConnection(site.settings(role))) as stolen:
            for stream in ("IYS", BUCKET):
                for number, target in enumerate(REPLIES.values()):
                    make_reader(stolen, stream, f"{role}-h{number}", deliver_subject=target, headers_only=True)
                    signs = {"deliver_policy": "new", "idle_heartbeat": HEARTBEAT_NS}
                    make_reader(stolen, stream, f"{role}-s{number}", deliver_subject=target, **signs)
            time.sleep(HARM_S)
        assert (log.ends(), objects.names()) == before
        assert b"".join(objects.get("snapshot")) == b"content"


def test_no_trace_does_harm(site: Guarded) -> None:
    """Who sends a message may say where NATS tells of its way. NATS itself asks then whether he may speak there."""
    with logs(site, "publisher") as log, places(site, "publisher") as objects:
        before = log.ends(), objects.names()
        with contextlib.closing(NatsConnection(site.settings("follower"))) as stolen:
            for reply in REPLIES.values():
                have_answered(stolen, "iys.api.STREAM.INFO.IYS", b"", "", {"Nats-Trace-Dest": reply})
            time.sleep(HARM_S)
        assert (log.ends(), objects.names()) == before


def make_reader(connection: NatsConnection, stream: str, name: str, **more: object) -> None:
    """Have a server read a stream."""
    config = {"name": name, "deliver_policy": "all", "ack_policy": "none", "mem_storage": True} | more
    config["inactive_threshold"] = FORGOTTEN_NS
    request = {"stream_name": stream, "config": config, "action": "create"}
    connection.ask(f"{connection.api}.CONSUMER.CREATE.{stream}.{name}", json.dumps(request).encode(), timeout_s=5)


def have_answered(
    connection: NatsConnection, subject: str, payload: bytes, reply: str, headers: dict[str, str] | None = None
) -> None:
    """Ask, and have the answer sent to somebody else."""

    async def ask() -> None:
        client = await connection._connected(5)
        await client.publish(subject, payload, reply=reply, headers=headers)
        await client.flush()

    connection.run(ask(), timeout_s=5)


def test_the_guide_makes_nkeys(tmp_path: Path) -> None:
    """Its lines give a seed that nobody else can read, and print the public half."""
    text = (DEPLOY.parents[2] / "docs" / "replicas.md").read_text()
    begin = text.index("    import nkeys")
    program = textwrap.dedent(text[begin : text.index("    END\n", begin)])
    run = subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, capture_output=True, text=True)
    assert (tmp_path / "nats.nk").stat().st_mode & 0o777 == 0o600
    assert nkeys.from_seed(bytearray((tmp_path / "nats.nk").read_bytes())).public_key.decode() == run.stdout.strip()
    assert run.stdout.startswith("U")


def test_nobody_hears_the_answers_of_others(site: Guarded) -> None:
    """A client with the name of another role is told so, whatever it asks."""
    with logs(site, "publisher", "follower") as log:
        for act in (log.ends, lambda: log.get(1)):
            with pytest.raises(LogDeniedError, match=r"_inbox_publisher\."):
                act()


def test_who_has_no_nkey_is_not_let_in(site: Guarded) -> None:
    """The reason is NATS's own."""
    settings = dataclasses.replace(site.settings("follower"), nkey=None, connect_timeout_s=1.0)
    with (
        contextlib.closing(NatsLog.connect(settings)) as log,
        pytest.raises(LogAwayError, match=r"Authorization Violation.*users\.conf"),
    ):
        log.ends()


@pytest.mark.parametrize("missing", [("cert", "key"), ("ca",)])
def test_who_has_no_certificate_or_asks_for_none_is_not_let_in(site: Guarded, missing: tuple[str, ...]) -> None:
    """Neither without a certificate of its own, nor without TLS."""
    settings = site.settings("follower", without=missing, connect_timeout_s=1.0)
    with contextlib.closing(NatsLog.connect(settings)) as log, pytest.raises(LogAwayError, match="not connected"):
        log.ends()


def test_a_server_that_is_not_ours_is_told_nothing(site: Guarded, tmp_path: Path) -> None:
    """Its certificate is of another authority."""
    stranger = guarded(tmp_path)
    settings = site.settings("follower", connect_timeout_s=1.0, ca=stranger.folder / "ca.pem")
    with contextlib.closing(NatsLog.connect(settings)) as log, pytest.raises(LogAwayError, match="certificate"):
        log.ends()


def test_who_is_put_out_comes_back_when_let_in(site: Guarded) -> None:
    """The client of NATS gives up there for good; ours does not."""
    settings = site.settings("publisher", "standby", connect_timeout_s=1.0)
    with contextlib.closing(NatsLog.connect(settings)) as log:
        last = log.ends().last
        site.users(without="standby")
        deadline = time.monotonic() + PATIENCE_S
        while "users.conf" not in said(log):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        site.users()
        while said(log) != f"ends at {last}":
            assert time.monotonic() < deadline
            time.sleep(0.05)


def said(log: NatsLog) -> str:
    """Ask where a log ends, and return what is said of it."""
    try:
        return f"ends at {log.ends().last}"
    except LogAwayError as error:
        return str(error)


def test_no_line_tells_a_secret(site: Guarded) -> None:
    """Neither when all goes well nor when it does not."""
    seeds = [path.read_text() for path in site.folder.glob("*.nk")]
    with structlog.testing.capture_logs() as lines:
        for role, user in (("publisher", ""), ("publisher", "follower")):
            with logs(site, role, user) as log, contextlib.suppress(LogAwayError):
                log.ends()
        settings = dataclasses.replace(site.settings("follower"), ca=None, connect_timeout_s=0.5)
        with contextlib.closing(NatsLog.connect(settings)) as log, contextlib.suppress(LogAwayError):
            log.ends()
    said = json.dumps(lines, default=str)
    assert "nats_connected" in said
    assert "nats_denied" in said
    assert not any(seed in said for seed in seeds)
