"""Whoever means harm, with credentials and without, and a disk that takes nothing."""

import asyncio
import json
import resource
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from iyscheck.errors import SettingsError
from loader.archive.container import HEADER_BYTES, Seal
from loader.push import serving
from loader.push.bodies import KEYS, rows_of, sorted_out
from loader.push.credentials import Made
from loader.push.journal import Entry
from loader.push.keeping import MOST_BYTES, FullError, Keeping
from loader.push.quarantine import Quarantine
from tests.builders import ADDRESS_KEY
from tests.dice import often
from tests.loader.push.receiving import BRAND, IYS_CODE, Receiving, body, received, row
from tests.loader.push.test_bodies import CREDENTIAL
from tests.loader.push.test_journal import entry


@pytest.fixture(scope="module")
def receiving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiving]:
    """A receiver that runs, shared by the tests of this module: each has rows of its own."""
    with received(tmp_path_factory.mktemp("receiver")) as running:
        yield running


@pytest.fixture(scope="module")
def made(receiving: Receiving) -> Made:
    """Credentials that somebody has found."""
    return receiving.credential()


def kept(receiving: Receiving, number: int) -> bool:
    """Say whether a row is in the journal."""
    return row(number)["transactionId"] in {each["transactionId"] for each in receiving.journalled()}


def connected(receiving: Receiving, stack: ExitStack) -> ssl.SSLSocket:
    """Connect to the receiver, and say nothing yet."""
    context = ssl.create_default_context()
    receiving.authority.configure_trust(context)
    plain = stack.enter_context(socket.create_connection(("127.0.0.1", receiving.port)))
    plain.settimeout(60)
    return stack.enter_context(context.wrap_socket(plain, server_hostname="localhost"))


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text()
    | st.text("0123456789", min_size=1)
    | st.just("9" * 5_000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
any_rows = st.lists(st.dictionaries(st.sampled_from([*KEYS, "citizenName", "kind", "x"]), values), max_size=4)


class TestRows:
    """What a row may hold."""

    @settings(max_examples=often(300), deadline=None)
    @given(any_rows)
    def test_any_values(self, given_rows: list[dict[str, object]]) -> None:
        """Whatever values rows have, what is left of them can be written into the journal and read as a feed."""
        rows = rows_of(json.dumps({"list": given_rows}).encode())

        assert rows is None or len(rows) == len(given_rows)
        for each in rows or ():
            assert set(each) <= set(KEYS)
            assert msgspec.msgpack.decode(msgspec.msgpack.encode(each)).keys() == each.keys()
            msgspec.json.encode(each)
        sorted_out(rows or (), CREDENTIAL)

    def test_too_large_for_any_form(self, receiving: Receiving, made: Made) -> None:
        """A number that the journal has no form for keeps nobody waiting, and no other row from being kept."""
        with receiving.client(made) as client:
            sent = body([row(20, transactionId=2**70), row(21), row(22, brandCode="9" * 5_000)])
            assert client.post("/push", json=sent).status_code == 200
        assert kept(receiving, 21)

    def test_said_twice(self) -> None:
        """A key that stands in a row twice says nothing: of two statuses none permits, of two brands none is right."""
        codes = f'"iysCode":{IYS_CODE},"brandCode":{BRAND}'
        body = f'{{"list":[{{{codes},"status":"RET","status":"ONAY"}},{{{codes},"brandCode":{BRAND}}}]}}'
        rows = rows_of(body.encode())

        assert rows == [
            {"iysCode": IYS_CODE, "brandCode": BRAND, "status": None},
            {"iysCode": IYS_CODE, "brandCode": None},
        ]
        assert sorted_out(rows, CREDENTIAL).rows == rows[:1]


class TestQuarantine:
    """What is set aside."""

    @pytest.mark.parametrize(
        "content", [b'{"citizenName":"Somebody"', b'{"CITIZEN_NAME":"Somebody"', b'{"\\u0063itizenName":"Somebody"']
    )
    def test_nameless(self, tmp_path: Path, content: bytes) -> None:
        """Of a body that may name somebody nothing is kept, even encrypted; of any other it is."""
        quarantine = Quarantine(tmp_path, ADDRESS_KEY)
        quarantine.keep("malformed", "c", content)
        quarantine.keep("malformed", "c", b"[1")
        quarantine.close()

        (path,) = tmp_path.iterdir()
        with path.open("rb") as file:
            seal = Seal.of(file.read(HEADER_BYTES), ADDRESS_KEY)
            assert seal is not None
            frames = seal.frames(file)
            found = [msgspec.json.decode(next(frames).content)["content"] for _ in range(2)]
        assert found == ["", "[1"]


class TestStrangers:
    """Who has no credentials."""

    @pytest.mark.thorough
    @pytest.mark.slow
    def test_endless_body(self, receiving: Receiving) -> None:
        """Who is not let in is told so before the body, and does not go on sending it for ever."""
        with ExitStack() as stack:
            stranger = connected(receiving, stack)
            stranger.sendall(b"POST /push HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n{")
            answer = b""
            with suppress(OSError):  # the end is not a polite one
                while piece := stranger.recv(4096):
                    answer += piece
                    stranger.sendall(b" " * 1000)
        assert answer.startswith(b"HTTP/1.1 401")

    @pytest.mark.thorough
    @pytest.mark.slow
    def test_silent(self, receiving: Receiving, made: Made) -> None:
        """Connections that say nothing have no place for ever: after a while İYS is answered again."""
        with ExitStack() as stack:
            for _ in range(256):
                connected(receiving, stack)
            last = connected(receiving, stack)
            last.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            assert last.recv(4096).startswith(b"HTTP/1.1 503")
            first_ends = connected(receiving, stack)
            assert first_ends.recv(1) == b"", "the receiver ends it"
            with receiving.client(made) as client:
                assert client.get("/push").status_code == 200

    @pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.com"])  # noqa: S104 - refused
    def test_in_the_clear(self, tmp_path: Path, host: str) -> None:
        """Without a certificate, other machines are not listened to: passwords would travel in plain text."""
        plain = serving.Settings(host=host, port=0, folder=tmp_path / "push", address_key=ADDRESS_KEY)
        with pytest.raises(SettingsError, match="plain text"):
            serving.run(plain, structlog.get_logger(), CollectorRegistry(), lambda _: None)


class TestRoom:
    """How much may be under way."""

    def test_bounded(self) -> None:
        """Bodies under way have 64 MiB together; who ends makes room, also where he failed."""

        class Nowhere:
            def append(self, entries: list[Entry], now_s: float) -> None:
                pass

        keeping = Keeping(Nowhere(), took=lambda _: None)
        with keeping.room(MOST_BYTES - 1), pytest.raises(FullError), keeping.room(2):
            pass
        with pytest.raises(RuntimeError), keeping.room(MOST_BYTES):
            raise RuntimeError
        with keeping.room(MOST_BYTES):
            pass


def test_disk_full(tmp_path: Path) -> None:
    """While the disk takes nothing, İYS is told 503, and so is health; nothing that was told kept is lost.

    When it takes something again, pushes are kept again; and no empty segments are left.
    """
    with received(tmp_path) as receiving, receiving.client(receiving.credential()) as client:
        assert receiving.process is not None
        pid = receiving.process.pid
        assert client.post("/push", json=body([row(1)])).status_code == 200
        _, hard = before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
        for number in range(2, 12):
            assert client.post("/push", json=body([row(number)])).status_code == 503
        assert client.get("/health").status_code == 503
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
        assert client.post("/push", json=body([row(12)])).status_code == 200
        assert client.get("/health").status_code == 200
        assert [each["transactionId"] for each in receiving.journalled()] == [row(n)["transactionId"] for n in (1, 12)]
        assert len(list((receiving.push / "journal").glob("*.journal"))) == 2


def test_told_of_any_failure() -> None:
    """Who waits for the journal hears of whatever goes wrong there, not only of a full disk."""

    class Broken:
        def append(self, entries: list[Entry], now_s: float) -> None:
            raise OverflowError(len(entries), now_s)

    async def waited() -> None:
        keeping = Keeping(Broken(), took=lambda _: None)
        async with asyncio.timeout(60):
            with pytest.raises(OverflowError):
                await keeping.keep(entry(1))
        assert keeping.is_failing

    asyncio.run(waited())


def test_failing_ends() -> None:
    """A failure counts for a while only: nobody would push to who says for ever that he cannot take anything."""

    class Broken:
        def append(self, entries: list[Entry], now_s: float) -> None:
            raise OSError(len(entries), str(now_s))

    async def failed(seconds: float) -> bool:
        keeping = Keeping(Broken(), took=lambda _: None, failing_s=seconds)
        with pytest.raises(OSError, match="1"):
            await keeping.keep(entry(1))
        return keeping.is_failing

    assert asyncio.run(failed(3_600.0))
    assert not asyncio.run(failed(0.0))
