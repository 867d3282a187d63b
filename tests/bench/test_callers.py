"""Load generators ask a real server, notice wrong answers, and count what came back."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path

import grpc
import pytest

from bench import echo, product
from bench.callers import StreamCaller, UnaryCaller, Watcher, WrongAnswersError
from bench.frames import Kind
from bench.peers import plain
from bench.processes import HERE, ProcessError, Remote, Serving, running, serving
from iyscheck.server.calls import SERVICE

CONSENTS = 2_000
CORE = 0


pytestmark = pytest.mark.thorough
"""What measures is changed seldom, and takes long to try."""


@pytest.fixture(name="site", scope="module")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with keys and a filled store."""
    folder = tmp_path_factory.mktemp("bench")
    product.make_keys(folder / "keys")
    product.Builder().fill(str(folder / "store"), str(folder / "keys"), CONSENTS)
    return folder


@pytest.fixture(name="server", scope="module")
def _server(site: Path) -> Iterator[Serving]:
    """The real server over that store."""
    command = HERE.command(*product.serve_arguments(site / "store", site / "keys"))
    with serving(command, core=CORE, log=site / "server.log") as server:
        yield server


@pytest.fixture(name="bare", scope="module")
def _bare() -> Iterator[str]:
    """The echo server."""
    server, port = echo.serve("127.0.0.1:0", 8)
    yield f"127.0.0.1:{port}"
    server.stop(0).wait()


@contextmanager
def refusing(every: int) -> Iterator[str]:
    """An echo server that refuses each so-manieth question, and ends a stream after so many frames."""
    numbers = count(1)

    def check(data: bytes, context: grpc.ServicerContext) -> bytes:
        if next(numbers) % every == 0:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")
        return echo.check(data, context)

    def stream_check(frames: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        yield from echo.stream_check(islice(frames, every), context)
        context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    server = grpc.server(ThreadPoolExecutor(1))
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Check": grpc.unary_unary_rpc_method_handler(check),
        "StreamCheck": grpc.stream_stream_rpc_method_handler(stream_check),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def streamer(target: str, site: Path, kind: Kind = "tokens") -> StreamCaller:
    """Make a generator of small frames."""
    return StreamCaller(
        target=target, kind=kind, consents=CONSENTS, keys=str(site / "keys"), size=50, hit_rate=0.9, recipients=1_000
    )


def asker(target: str, site: Path, kind: Kind = "tokens") -> UnaryCaller:
    """Make a generator of single checks."""
    return UnaryCaller(target=target, kind=kind, consents=CONSENTS, keys=str(site / "keys"), hit_rate=0.9, count=200)


class TestStream:
    """Frames over streams."""

    @pytest.mark.parametrize("kind", ["tokens", "phones", "spellings"])
    def test_verified(self, server: Serving, site: Path, kind: Kind) -> None:
        """Every reason of the real server is the one that the cohort says."""
        assert streamer(server.target, site, kind).verify()["frames"] == 20

    def test_wrong(self, bare: str, site: Path) -> None:
        """The echo server's constant answers are noticed to be wrong."""
        with pytest.raises(WrongAnswersError):
            streamer(bare, site).verify()

    @pytest.mark.parametrize("kind", ["tokens", "phones"])
    def test_echo(self, bare: str, server: Serving, site: Path, kind: Kind) -> None:
        """The echo server answers each recipient, in replies about as large as the real ones."""
        theirs = streamer(bare, site, kind).verify(exactly=False)["reply_bytes"]
        ours = streamer(server.target, site, kind).verify()["reply_bytes"]

        assert theirs == pytest.approx(ours, abs=20)

    @pytest.mark.parametrize(("streams", "window"), [(1, 1), (2, 4)])
    def test_closed(self, bare: str, site: Path, streams: int, window: int) -> None:
        """A closed loop reports as many recipients as it got replies for, and how long frames took."""
        found = streamer(bare, site).closed(seconds=0.2, warm_s=0.05, window=window, streams=streams)

        assert found["frames"] > 0
        assert found["rate"] == pytest.approx(found["frames"] * 50 / 0.2)
        assert found["p50"] <= found["max"]

    def test_once(self, bare: str, site: Path) -> None:
        """A first pass sends each of its frames once."""
        assert streamer(bare, site).once(frames=20, window=4)["rate"] > 0

    def test_paced(self, bare: str, site: Path) -> None:
        """An open loop sends what its rate says, warm-up included."""
        found = streamer(bare, site).paced(rate=5_000, seconds=0.2, warm_s=0.1, exactly=False)

        assert found["frames"] == 30
        assert found["asked"] == 20
        assert found["rate"] == pytest.approx(5_000)
        assert found["p50"] > 0

    def test_paced_wrong(self, bare: str, server: Serving, site: Path) -> None:
        """An open loop compares each answer, also when it sends its frames a second time."""
        streamer(server.target, site).paced(rate=10_000, seconds=0.2, warm_s=0.0)

        with pytest.raises(WrongAnswersError):
            streamer(bare, site).paced(rate=10_000, seconds=0.2, warm_s=0.0)

    def test_cut(self, site: Path) -> None:
        """Frames after the end of a stream count as not answered, with the status that ended it."""
        with refusing(every=15) as target:
            found = streamer(target, site).paced(rate=5_000, seconds=0.2, warm_s=0.1, exactly=False)

        assert found["asked"] == 20
        assert found["unanswered UNAVAILABLE"] == 15
        assert found["rate"] == pytest.approx(1_250)

    def test_gone(self, site: Path) -> None:
        """A server that is not there fails the loop instead of giving a rate of nothing."""
        with pytest.raises(grpc.RpcError):
            streamer("127.0.0.1:1", site).closed(seconds=0.1, warm_s=0.0, window=1)


class TestUnary:
    """Single checks."""

    @pytest.mark.parametrize("kind", ["tokens", "phones"])
    def test_verified(self, server: Serving, site: Path, kind: Kind) -> None:
        """Reasons and evidence of the real server are those that the cohort says."""
        assert asker(server.target, site, kind).verify(count=100)["questions"] == 100

    def test_wrong(self, bare: str, site: Path) -> None:
        """The echo server's constant answers are noticed to be wrong."""
        with pytest.raises(WrongAnswersError):
            asker(bare, site).verify()

    def test_echo(self, bare: str, server: Serving, site: Path) -> None:
        """The echo server's answers are about as large as the real ones."""
        theirs = asker(bare, site).verify(exactly=False, count=100)["reply_bytes"]
        ours = asker(server.target, site).verify(count=100)["reply_bytes"]

        assert theirs == pytest.approx(ours, abs=25)

    def test_loops(self, bare: str, site: Path) -> None:
        """All three loops come to an end and report latencies."""
        caller = asker(bare, site)

        alone = caller.one_by_one(seconds=0.1, warm_s=0.05)
        many = caller.closed(concurrency=8, seconds=0.1, warm_s=0.05)
        paced = caller.paced(rate=200, seconds=0.2, warm_s=0.1, exactly=False)

        assert all(found["rate"] > 0 and found["p50"] > 0 for found in (alone, many, paced))
        assert paced["asked"] == 40
        assert paced["rate"] == pytest.approx(200)

    def test_refused(self, site: Path) -> None:
        """Questions that are refused are counted, and the rate is that of the others."""
        with refusing(every=4) as target:
            found = asker(target, site).paced(rate=200, seconds=0.4, warm_s=0.2, exactly=False)

        assert found["asked"] == 80
        assert found["unanswered RESOURCE_EXHAUSTED"] == 20
        assert found["rate"] == pytest.approx(150)

    def test_paced_wrong(self, bare: str, server: Serving, site: Path) -> None:
        """An open loop compares each answer, also when it asks its questions a second time."""
        asker(server.target, site).paced(rate=1_000, seconds=0.3, warm_s=0.0)

        with pytest.raises(WrongAnswersError):
            asker(bare, site).paced(rate=1_000, seconds=0.3, warm_s=0.0)

    def test_paced_gone(self, site: Path) -> None:
        """A server that is not there is no measurement."""
        with pytest.raises(ValueError, match="none of 20 requests was answered"):
            asker("127.0.0.1:1", site).paced(rate=100, seconds=0.2, warm_s=0.0)

    def test_gone(self, site: Path) -> None:
        """A server that is not there fails the loop instead of counting errors as answers."""
        with pytest.raises(WrongAnswersError):
            asker("127.0.0.1:1", site).closed(concurrency=2, seconds=5.0, warm_s=0.0)


class TestChanges:
    """Changes to a copy of the store."""

    def test_visible(self, site: Path, tmp_path: Path) -> None:
        """A watcher sees the position move, and answers that changed are noticed."""
        keys = str(site / "keys")
        command = HERE.command(*product.serve_arguments(tmp_path / "store", site / "keys"))
        product.Builder().fill(str(tmp_path / "store"), keys, CONSENTS)
        with serving(command, core=CORE, log=tmp_path / "server.log") as other:
            before = Watcher(target=other.target, consents=CONSENTS, keys=keys).sequence()["sequence"]
            changer = product.Changer(str(tmp_path / "store"), keys, CONSENTS, str(tmp_path / "plain"))
            changed = changer.apply(500, 1, keep=True)
            put = changer.put()
            after = Watcher(target=other.target, consents=CONSENTS, keys=keys).sequence()["sequence"]

            with pytest.raises(WrongAnswersError):
                streamer(other.target, site).verify()
            with pytest.raises(WrongAnswersError):
                asker(other.target, site).verify()

        assert changed["changes"] == put["changes"] == 500
        assert after - before == 500
        changer.close()
        with plain.opened(str(tmp_path / "plain")) as env, env.begin() as txn:
            assert txn.stat()["entries"] == 500

    def test_plain_copy(self, site: Path, tmp_path: Path) -> None:
        """The plain file holds every record, and its reader finds the hit rate that was asked for."""
        product.Builder().plain(str(site / "store"), str(tmp_path / "plain"))
        reader = plain.PlainReader(str(tmp_path / "plain"))

        entries = reader.draw(100, hit_rate=0.9, seed=1)["entries"]

        assert entries == CONSENTS
        assert reader.gets()["hits"] == pytest.approx(0.9)


class TestRemote:
    """Objects in processes of their own."""

    def test_error(self, tmp_path: Path) -> None:
        """What a method raises there is raised here, and the process goes on answering."""
        with Remote("bench.product:Builder", {}, core=CORE, log=tmp_path / "log") as remote:
            with pytest.raises(ProcessError, match="AttributeError"):
                remote.call("no_such_method")

            assert "format" in str(remote.call("recipe"))

    def test_dead(self, tmp_path: Path) -> None:
        """A process that cannot make its object is an error that names the log."""
        with pytest.raises(ProcessError, match="log"):
            Remote("bench.product:Nothing", {}, core=CORE, log=tmp_path / "log")

    def test_ended(self, tmp_path: Path) -> None:
        """A program that is run for a block is gone after it."""
        with running(["/bin/sleep", "60"], core=CORE, log=tmp_path / "log") as process:
            assert process.poll() is None

        assert process.poll() is not None
