"""The Node.js example, whose stubs are made of the contract alone, says what the Python client says."""

import json
import queue
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from iyscheck.client import Client
from iyscheck.consent import Channel, MessageClass, Reason, RecipientType, permits
from iyscheck.keys import AddressKey
from iyscheck.question import Answer
from iyscheck.v1 import consent_check_pb2 as pb
from tests.client.fake_server import Service, abort, envelope, frame_reply, serving
from tests.examples.conftest import BRAND, EXAMPLE, INACTIVE, STALE, Gateway, Served, json_lines

COLUMN = [
    "+905321234567",
    "0 532 100 00 02",
    "05321000003",
    "(0532) 100-00-04",
    "5321000006",
    "05321000009",
    "someone@example.org",
    "SomeOne@Example.org",
    "nobody",
    "",
    " ",
    "\t05321234567 ",
    "0532\u2028123 45 67",  # node:readline would make two lines of it
    "0532\x85123 45 67",
    "\ufeff05321234567",
    "٠٥٣٢١٢٣٤٥٦٧",
    "😀",
    "0" * 600,
]
CONTEXTS: dict[str, dict[str, object]] = {
    "MESAJ": {},
    "TACIR": {"recipient_type": RecipientType.TACIR},
    "EPOSTA": {"channel": Channel.EPOSTA},
    "ARAMA": {"channel": Channel.ARAMA},
    "exempt": {"message_class": MessageClass.SECURITY_CODE},
    "inactive": {"brand": INACTIVE},
    "stale": {"brand": STALE},
    "unregistered": {"brand": 1},
}


class Asking:
    """One context, asked through both clients."""

    def __init__(self, served: Served, context: dict[str, object]) -> None:
        self._served = served
        self._context = {
            "brand": BRAND,
            "channel": Channel.MESAJ,
            "recipient_type": RecipientType.BIREYSEL,
            "message_class": MessageClass.COMMERCIAL,
            **context,
        }

    @property
    def flags(self) -> list[str]:
        """The context as the example's flags."""
        values = {name: getattr(value, "name", value) for name, value in self._context.items()}
        return [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]

    def column(self, recipients: list[str]) -> list[Reason]:
        """Ask from Python, in tokens."""
        with self._client() as client:
            column = client.check_column(recipients=recipients, **self._context)  # type: ignore[arg-type] # keywords
        return [Reason(number) for number in column.reasons.tolist()]

    def singles(self, recipients: list[str]) -> list[Answer]:
        """Ask from Python one by one."""
        with self._client() as client:
            return [client.check(address=text, **self._context) for text in recipients]  # type: ignore[arg-type] # keywords

    def _client(self) -> Client:
        return Client(self._served.target, address_key=AddressKey.load(self._served.address_key), timeout_s=5)


@pytest.fixture(params=list(CONTEXTS.values()), ids=list(CONTEXTS))
def asking(request: pytest.FixtureRequest, served: Served) -> Asking:
    """Each of the contexts."""
    return Asking(served, request.param)


def lines_of(reasons: list[Reason]) -> str:
    """What the example writes for reasons."""
    verdicts = (("send" if permits(reason) else "skip", reason.name) for reason in reasons)
    return "".join(f"{number}\t{verdict}\t{name}\n" for number, (verdict, name) in enumerate(verdicts, 1))


class TestSameAnswers:
    """Over a real server, both clients say the same of every kind of recipient."""

    def test_stream(self, gateway: Gateway, served: Served, asking: Asking, tmp_path: Path) -> None:
        """Many small frames of plain addresses are answered as the column of tokens is, in order."""
        column, written = COLUMN * 20, tmp_path / "verdicts"

        ran = gateway.asked("stream", served.target, *asking.flags, "--frame=7", f"--verdicts={written}", lines=column)

        reasons = asking.column(column)
        assert ran.returncode == 0, ran.stderr
        assert written.read_text() == lines_of(reasons)
        assert written.stat().st_mode & 0o077 == 0
        said = json.loads(ran.stdout)
        assert said["recipients"] == len(column)
        assert said["permitted"] == sum(map(permits, reasons))
        assert said["reasons"] == Counter(reason.name for reason in reasons)

    def test_check(self, gateway: Gateway, served: Served, asking: Asking) -> None:
        """Single answers have the same reason, evidence and age."""
        before = time.time()

        ran = gateway.asked("check", served.target, *asking.flags, lines=COLUMN)

        answers, after = asking.singles(COLUMN), time.time()
        said = json_lines(ran.stdout)
        assert ran.returncode == (0 if all(answer.permitted for answer in answers) else 1), ran.stderr
        assert [line["line"] for line in said] == list(range(1, len(COLUMN) + 1))
        assert [(line["permitted"], line["reason"]) for line in said] == [
            (answer.permitted, answer.reason.name) for answer in answers
        ]
        assert [line["evidence"] for line in said] == [evidence_of(answer) for answer in answers]
        for line, answer in zip(said, answers, strict=True):
            as_of, age = answer.envelope.as_of, line["ageSeconds"]
            assert (age is None) == (as_of is None)
            assert as_of is None or int(before - as_of) <= int(str(age)) <= int(after - as_of)

    def test_kinds(self, served: Served) -> None:
        """What is compared here has every reason that a server with default settings gives without retailers."""
        reasons = {reason for context in CONTEXTS.values() for reason in Asking(served, context).column(COLUMN)}

        left_out = {"UNSPECIFIED", "RETAILER_NOT_AUTHORISED", "MERCHANT_NOT_RECORDED", "LOCALLY_SUPPRESSED"}
        assert {reason.name for reason in reasons} == {reason.name for reason in Reason} - left_out

    def test_bytes(self, gateway: Gateway, served: Served, tmp_path: Path) -> None:
        """Lines of Windows, bytes that are no text and a last line without its end are a recipient each."""
        (tmp_path / "in").write_bytes(b"05321234567\r\n\xff05321234567\n\r\n05321234567")

        ran = gateway.run("check", f"--brand={BRAND}", f"--server={served.target}", str(tmp_path / "in"))

        reasons = [line["reason"] for line in json_lines(ran.stdout)]
        assert reasons == ["CONSENTED", "INVALID_ADDRESS", "INVALID_ADDRESS", "CONSENTED"], ran.stderr

    def test_giant(self, gateway: Gateway, served: Served) -> None:
        """A line longer than any message is denied and harms nobody beside it."""
        ran = gateway.asked("stream", served.target, lines=["05321234567", "0" * 9_000_000, "05321234567"])

        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout)["reasons"] == {"CONSENTED": 2, "INVALID_ADDRESS": 1}

    def test_nobody(self, gateway: Gateway, served: Served) -> None:
        """Nobody to check is an error and no permission; nobody in a stream is nobody."""
        single = gateway.asked("check", served.target, lines=[])
        stream = gateway.asked("stream", served.target, lines=[])

        assert (single.returncode, single.stdout) == (2, "")
        assert json.loads(stream.stdout) == {"recipients": 0, "permitted": 0, "reasons": {}, "ageSeconds": None}


def evidence_of(answer: Answer) -> dict[str, str] | None:
    """Evidence as JSON of the contract, where what is empty is absent."""
    found = answer.evidence
    if found is None:
        return None
    fields = {
        "status": f"CONSENT_STATUS_{found.status.name}",
        "source": found.source,
        "consentTime": found.consent_time,
        "registrationTime": found.registration_time,
        "transactionId": found.transaction_id,
    }
    return {name: value for name, value in fields.items() if value}


class TestMixed:
    """One frame for many brands, answered as each brand alone; a server without groups is asked for each."""

    BRANDS = (BRAND, INACTIVE, STALE, 1)

    def lines(self) -> list[tuple[int, str]]:
        """Each recipient for each brand, in turn."""
        return [(brand, text) for text in COLUMN if len(text) < 500 for brand in self.BRANDS]

    def test_real(self, gateway: Gateway, served: Served) -> None:
        """Over a real server each line has the reason that its brand's column gives from Python."""
        asked = self.lines()
        columns = {
            brand: dict(zip(COLUMN, Asking(served, {"brand": brand}).column(COLUMN), strict=True))
            for brand in self.BRANDS
        }

        ran = gateway.run("mixed", f"--server={served.target}", lines=[f"{brand}\t{text}" for brand, text in asked])

        assert ran.returncode == 1, ran.stderr
        said = json_lines(ran.stdout)
        assert [(line["line"], line["brand"]) for line in said] == [
            (number, brand) for number, (brand, _) in enumerate(asked, 1)
        ]
        expected = [columns[brand][text] for brand, text in asked]
        assert [line["reason"] for line in said] == [reason.name for reason in expected]
        assert [line["permitted"] for line in said] == [permits(reason) for reason in expected]

    def test_old_server(self, gateway: Gateway, service: Service) -> None:
        """A reply without groups answers nobody, whatever it says: each brand is asked again in its own frame."""

        def old(requests: Iterator[pb.StreamCheckRequest], _: grpc.ServicerContext) -> Iterator[pb.StreamCheckResponse]:
            for request in requests:
                service.requests.append(request)
                if request.groups:
                    count = len(request.group_addresses)
                    yield pb.StreamCheckResponse(frame_id=request.frame_id, reasons=b"\1" * count, envelope=envelope())
                else:
                    yield frame_reply(request)

        service.frames = old

        ran = gateway.run("mixed", f"--server={service.target}", lines=["1\t05320000001", "2\t05320000002", "1\t3"])

        assert [line["permitted"] for line in json_lines(ran.stdout)] == [False, True, False]
        assert sorted(each.brand_code for each in service.requests if isinstance(each, pb.StreamCheckRequest)) == [
            0,
            1,
            2,
        ]

    def test_group_at_fault(self, gateway: Gateway, service: Service) -> None:
        """A brand that is refused is an error of its lines; the others are answered."""

        def refusing(
            requests: Iterator[pb.StreamCheckRequest], _: grpc.ServicerContext
        ) -> Iterator[pb.StreamCheckResponse]:
            for request in requests:
                reply = pb.StreamCheckResponse(frame_id=request.frame_id, reasons=b"\0\1", envelope=envelope())
                reply.groups.add().error.reason = "BRAND_NOT_IN_SCOPE"
                reply.groups.add().result.as_of.seconds = 1
                yield reply

        service.frames = refusing

        ran = gateway.run("mixed", f"--server={service.target}", lines=["1\t05320000002", "2\t05320000002"])

        said = json_lines(ran.stdout)
        assert ran.returncode == 2, ran.stderr
        assert [line["permitted"] for line in said] == [False, True]
        assert "BRAND_NOT_IN_SCOPE" in str(said[0]["error"])


class TestWrongInput:
    """What is asked wrongly is not answered, and says so with exit code 2."""

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ([], "check or stream"),
            (["send"], "check or stream"),
            (["constructor", "--brand=1"], "check or stream"),
            (["check"], "--brand"),
            (["check", "--brand=0"], "--brand"),
            (["check", "--brand=4294967296"], "--brand"),
            (["check", "--brand=1", "--channel=SMS"], "SMS"),
            (["check", "--brand=1", "--recipient-type=UNSPECIFIED"], "UNSPECIFIED"),
            (["check", "--brand=1", "--message-class=1"], "--message-class"),
            (["stream", "--brand=1", "--frame=10001"], "--frame"),
            (["stream", "--brand=1", "--timeout=soon"], "--timeout"),
            (["stream", "--brand=1", "--tokens"], "--tokens"),
            (["stream", "--brand=1", "--server=nowhere:port"], "Invalid URL"),
            (["stream", "--brand=1", "/nonexistent/recipients"], "/nonexistent/recipients"),
            (["check", "--brand=1", "/nonexistent/recipients"], "/nonexistent/recipients"),
            (["check", "--brand=1", "one", "two"], "one FILE"),
        ],
    )
    def test_arguments(self, gateway: Gateway, arguments: list[str], said: str) -> None:
        """An argument that means nothing is named."""
        ran = gateway.run(*(arguments or ["--"]))

        assert (ran.returncode, ran.stdout) == (2, "")
        assert said in ran.stderr
        assert ran.stderr.count("\n") == 1

    def test_help(self, gateway: Gateway) -> None:
        """--help tells every option."""
        ran = gateway.run("--help")

        assert ran.returncode == 0
        assert all(flag in ran.stdout for flag in ("--brand", "--channel", "--timeout", "--frame", "--verdicts"))

    @pytest.mark.parametrize("mode", ["check", "stream"])
    def test_no_server(self, gateway: Gateway, mode: str) -> None:
        """Without a server nobody is permitted, and the wait ends."""
        ran = gateway.asked(mode, "127.0.0.1:1", "--timeout=1", lines=COLUMN)

        assert (ran.returncode, ran.stdout) == (2, "")


def numbered(request: pb.CheckRequest, _context: grpc.ServicerContext) -> pb.CheckResponse:
    """Answer with the reason and the flag that the address names."""
    number, permitted = request.question.address.split()
    return pb.CheckResponse(reason=int(number), permitted=permitted == "yes", envelope=envelope())  # type: ignore[arg-type] # a number


@pytest.fixture
def service() -> Iterator[Service]:
    """A server that a test may let misbehave."""
    with serving() as made:
        yield made


class TestReasons:
    """A reason permits only if it is known and its number is 1 to 63, as for the Python client."""

    def test_check(self, gateway: Gateway, service: Service) -> None:
        """Whatever reason and flag a server sends, both clients make the same of it, and unknown is a no."""
        service.reply = numbered
        numbers = [*range(80), 127, 128, 255, 256, 257, 2**31 - 1, -1]
        lines = [f"{number} {permitted}" for number in numbers for permitted in ("yes", "no")]

        ran = gateway.asked("check", service.target, lines=lines)

        with Client(service.target, timeout_s=5) as client:
            answers = [
                client.check(brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, address=line)
                for line in lines
            ]
        said = [(line["permitted"], line["reason"]) for line in json_lines(ran.stdout)]
        assert ran.returncode == 1, ran.stderr
        assert said == [(answer.permitted, answer.reason.name) for answer in answers]
        assert [line for line, (yes, _) in zip(lines, said, strict=True) if yes] == ["1 yes", "2 yes", "3 yes"]

    def test_unknown_alone(self, gateway: Gateway, service: Service) -> None:
        """A single recipient with a reason that nobody knows yet is not sent to."""
        service.reply = numbered

        ran = gateway.asked("check", service.target, lines=["40 yes"])

        assert ran.returncode == 1, ran.stderr
        assert json_lines(ran.stdout)[0]["permitted"] is False

    def test_stream(self, gateway: Gateway, service: Service, tmp_path: Path) -> None:
        """Every byte that a frame can hold is read as by the Python client."""
        service.frames = lambda requests, _: (
            pb.StreamCheckResponse(frame_id=request.frame_id, reasons=bytes(range(256)), envelope=envelope())
            for request in requests
        )

        ran = gateway.asked("stream", service.target, f"--verdicts={tmp_path / 'verdicts'}", lines=["x"] * 256)

        known = frozenset(Reason)
        reasons = [Reason(number) if number in known else Reason.UNSPECIFIED for number in range(256)]
        assert ran.returncode == 0, ran.stderr
        assert (tmp_path / "verdicts").read_text() == lines_of(reasons)
        assert json.loads(ran.stdout)["permitted"] == 3


def changed(change: Callable[[pb.StreamCheckResponse], object]) -> Callable[..., Iterator[pb.StreamCheckResponse]]:
    """Answer two frames as the contract has it but for the second, which is changed."""

    def frames(
        requests: Iterator[pb.StreamCheckRequest], _context: grpc.ServicerContext
    ) -> Iterator[pb.StreamCheckResponse]:
        yield frame_reply(next(requests))
        reply = frame_reply(next(requests))
        change(reply)
        yield reply

    return frames


BROKEN: dict[str, Callable[[pb.StreamCheckResponse], object]] = {
    "one too few": lambda reply: reply.MergeFrom(pb.StreamCheckResponse(reasons=reply.reasons[:-1])),
    "one too many": lambda reply: reply.MergeFrom(pb.StreamCheckResponse(reasons=reply.reasons + b"\1")),
    "none": lambda reply: reply.ClearField("reasons"),
    "wrong turn": lambda reply: reply.MergeFrom(pb.StreamCheckResponse(frame_id=reply.frame_id + 1)),
    "no turn": lambda reply: reply.ClearField("frame_id"),
    "no envelope": lambda reply: reply.ClearField("envelope"),
    "short log id": lambda reply: reply.envelope.position.MergeFrom(pb.Position(log_id=b"L" * 15)),
    "error": lambda reply: reply.error.MergeFrom(pb.ItemError(reason="FRAME_TOO_LARGE", message="Too large.")),
}


class TestBrokenAnswers:
    """An answer that is not whole is none."""

    @pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN.keys())
    def test_frame(self, gateway: Gateway, service: Service, tmp_path: Path, change: Callable[..., object]) -> None:
        """A frame without all its parts ends the stream with an error; what came before it stays answered."""
        service.frames = changed(change)
        arguments = ["--frame=2", f"--verdicts={tmp_path / 'verdicts'}"]

        ran = gateway.asked("stream", service.target, *arguments, lines=["2", "3", "2", "2", "2", "2"])

        assert (ran.returncode, ran.stdout) == (2, "")
        assert (tmp_path / "verdicts").read_text() == "1\tsend\tCONSENTED\n2\tskip\tNO_CONSENT\n"

    def test_early_end(self, gateway: Gateway, service: Service) -> None:
        """A stream that ends well with a frame unanswered is an error."""
        service.frames = lambda requests, _: iter([frame_reply(next(requests))])

        ran = gateway.asked("stream", service.target, "--frame=1", lines=["2", "2", "2"])

        assert (ran.returncode, ran.stdout) == (2, "")
        assert "too early" in ran.stderr

    @pytest.mark.parametrize(
        "reply",
        [
            pb.CheckResponse(),
            pb.CheckResponse(reason=pb.REASON_CONSENTED, permitted=True),
            pb.CheckResponse(reason=pb.REASON_CONSENTED, permitted=True, envelope=envelope(log=b"short")),
        ],
        ids=["empty", "no envelope", "short log id"],
    )
    def test_check(self, gateway: Gateway, service: Service, reply: pb.CheckResponse) -> None:
        """A permission without its envelope is an error."""
        service.reply = lambda *_: reply

        ran = gateway.asked("check", service.target, lines=["2"])

        assert (ran.returncode, ran.stdout) == (2, "")
        assert "position" in ran.stderr


SETTINGS, HEADERS, PREFACE_BYTES, FRAME_HEAD_BYTES = b"\0\0\0\4\0\0\0\0\0", 1, 24, 9
REFUSED_STREAM = SETTINGS + b"\0\0\4\3\0\0\0\0\1" + b"\0\0\0\7"
"""What an HTTP/2 server says that takes no call: its settings, and RST_STREAM of the first stream."""


def read_headers(connection: socket.socket) -> None:
    """Read what an HTTP/2 client sends until it has begun a call."""
    with connection.makefile("rb") as read:
        read.read(PREFACE_BYTES)
        while True:
            head = read.read(FRAME_HEAD_BYTES)
            read.read(int.from_bytes(head[:3]))
            if head[3] == HEADERS:
                return


@contextmanager
def unsteady(port: int, endings: list[bytes]) -> Iterator[int]:
    """A port that passes connections on to another, but for the first ones: to their first call it says what
    `endings` have for them, and leaves; with a reset where it has nothing to say.
    """
    with ThreadPoolExecutor() as pool, socket.create_server(("127.0.0.1", 0)) as listening:

        def take() -> None:
            for ending in [*endings, None]:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return  # shut below: who should have come did not, which the test sees by itself
                with connection:
                    if ending is None:
                        bridge(connection)
                        return
                    read_headers(connection)
                    connection.sendall(ending)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", not ending, 0))

        def bridge(connection: socket.socket) -> None:
            with socket.create_connection(("127.0.0.1", port)) as server:
                there = pool.submit(passed_on, connection, server)
                passed_on(server, connection)
                there.result()

        taken = pool.submit(take)
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        taken.result()


def passed_on(source: socket.socket, target: socket.socket) -> None:
    """Pass bytes on until there are no more."""
    while data := source.recv(65_536):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)


class TestFailures:
    """What passes is asked again within the deadline, what does not is an error at once."""

    @pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
    def test_check_again(self, gateway: Gateway, service: Service, code: grpc.StatusCode) -> None:
        """A check that a server's end cut off is asked again."""
        failures = iter([code, code])

        def reply(_request: pb.CheckRequest, context: grpc.ServicerContext) -> pb.CheckResponse:
            failure = next(failures, None)
            if failure is not None:
                context.abort(failure, "going away")
            return pb.CheckResponse(reason=pb.REASON_CONSENTED, permitted=True, envelope=envelope())

        service.reply = reply

        ran = gateway.asked("check", service.target, lines=["2"])

        assert ran.returncode == 0, ran.stderr
        assert len(service.requests) == 3

    @pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
    def test_stream_again(self, gateway: Gateway, service: Service, tmp_path: Path, code: grpc.StatusCode) -> None:
        """Frames that a broken stream left unanswered are asked again on the next: each answer in its place, once."""
        column = [str(number) for number in range(40)]

        def frames(
            requests: Iterator[pb.StreamCheckRequest], context: grpc.ServicerContext
        ) -> Iterator[pb.StreamCheckResponse]:
            for _, request in zip(range(1 + service.streams % 2), requests, strict=False):
                yield frame_reply(request)
            context.abort(code, "going away")

        service.frames = frames
        arguments = ["--frame=5", f"--verdicts={tmp_path / 'verdicts'}"]

        ran = gateway.asked("stream", service.target, *arguments, lines=column)

        expected = [Reason.CONSENTED if int(text) % 2 == 0 else Reason.NO_CONSENT for text in column]
        assert ran.returncode == 0, ran.stderr
        assert (tmp_path / "verdicts").read_text() == lines_of(expected)
        assert service.streams > 2

    def test_break_between(self, gateway: Gateway, service: Service, tmp_path: Path) -> None:
        """A stream that breaks while the next recipients are still to come loses and doubles none of them."""
        broken = threading.Event()

        def frames(
            requests: Iterator[pb.StreamCheckRequest], context: grpc.ServicerContext
        ) -> Iterator[pb.StreamCheckResponse]:
            for request in requests:
                yield frame_reply(request)
                if not broken.is_set():
                    broken.set()
                    context.abort(grpc.StatusCode.UNAVAILABLE, "going away")

        service.frames = frames
        arguments = ["--frame=1", f"--verdicts={tmp_path / 'verdicts'}"]

        with gateway.started("stream", service.target, *arguments) as process:
            assert process.stdin is not None
            process.stdin.write("1\n")
            process.stdin.flush()
            assert broken.wait(30)
            time.sleep(0.5)  # the gateway sees it, and waits for its input as before
            _, said = process.communicate("2\n3\n", timeout=30)

        assert process.returncode == 0, said
        assert (tmp_path / "verdicts").read_text() == lines_of([Reason.NO_CONSENT, Reason.CONSENTED, Reason.NO_CONSENT])

    @pytest.mark.parametrize("mode", ["check", "stream"])
    def test_cut_off(self, gateway: Gateway, service: Service, mode: str) -> None:
        """A connection that breaks without a word, as of a killed server, and a refused stream are got over."""
        with unsteady(service.port, [b"", REFUSED_STREAM, b""]) as port:
            ran = gateway.asked(mode, f"127.0.0.1:{port}", lines=["2"])

        assert ran.returncode == 0, ran.stderr
        assert len(service.requests) == 1

    @pytest.mark.parametrize("mode", ["check", "stream"])
    def test_refused(self, gateway: Gateway, service: Service, mode: str) -> None:
        """What a server refuses is not asked again."""
        calls: list[str] = []

        def refuse(_request: object, context: grpc.ServicerContext) -> Iterator[pb.StreamCheckResponse]:
            calls.append(mode)
            abort(context, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_QUESTION", "brand_code")

        service.reply = service.frames = refuse  # type: ignore[assignment] # it never returns

        ran = gateway.asked(mode, service.target, lines=["2"])

        assert (ran.returncode, ran.stdout) == (2, "")
        assert "INVALID_QUESTION" in ran.stderr
        assert len(calls) == 1

    @pytest.mark.parametrize("mode", ["check", "stream"])
    def test_late(self, gateway: Gateway, service: Service, mode: str) -> None:
        """A server that does not answer is left after the deadline."""
        over = threading.Event()

        def wait(_request: object, context: grpc.ServicerContext) -> Iterator[pb.StreamCheckResponse]:
            context.add_callback(over.set)
            over.wait(60)
            return iter(())

        service.reply = service.frames = wait  # type: ignore[assignment] # it never answers

        ran = gateway.asked(mode, service.target, "--timeout=1", lines=["2"])

        assert (ran.returncode, ran.stdout) == (2, "")
        assert "DeadlineExceeded" in ran.stderr

    def test_window(self, gateway: Gateway, service: Service) -> None:
        """At most two frames are on their way, and two are while there are more."""
        came: queue.SimpleQueue[pb.StreamCheckRequest] = queue.SimpleQueue()

        def read(requests: Iterator[pb.StreamCheckRequest]) -> None:
            for request in requests:
                came.put(request)

        def frames(
            requests: Iterator[pb.StreamCheckRequest], _context: grpc.ServicerContext
        ) -> Iterator[pb.StreamCheckResponse]:
            threading.Thread(target=read, args=[requests], daemon=True).start()
            oldest = came.get(timeout=10)
            for number in range(1, 20):
                following = came.get(timeout=10)  # on its way although the oldest is not answered
                if number == 1:
                    with pytest.raises(queue.Empty):
                        came.get(timeout=1)
                yield frame_reply(oldest)
                oldest = following
            yield frame_reply(oldest)

        service.frames = frames

        ran = gateway.asked("stream", service.target, "--frame=3", lines=["2"] * 60)

        assert ran.returncode == 0, ran.stderr


class TestPackage:
    """The example's own files are fit for a repository."""

    def test_lock(self) -> None:
        """The lock file pins every package by its hash and names no host to get it from."""
        text = (EXAMPLE / "package-lock.json").read_text()

        packages = {name: fields for name, fields in json.loads(text)["packages"].items() if name}
        assert packages
        assert all(fields.get("integrity") for fields in packages.values())
        assert "://" not in text
        assert '"resolved"' not in text
