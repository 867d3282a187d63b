"""Who is let in by API keys, what they may ask and how much: over a real server, by real calls."""

import shutil
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeAlias, cast

import grpc
import pytest
from google.rpc import error_details_pb2  # type: ignore[import-untyped] # it ships no types
from grpc_status import rpc_status

from iyscheck import address, wire
from iyscheck.callers.identity import NewKey
from iyscheck.consent import Channel, MessageClass, RecipientType
from iyscheck.question import Context, Question
from iyscheck.server.gate import FRAME_WAIT_S, Admission, Gate, Presented
from iyscheck.v1 import consent_check_pb2 as v1
from tests.builders import ADDRESS_KEY, StoreBuilder
from tests.server.conftest import CONSENTED, REFUSED, Served, Site, make_site, serve
from tests.server.processes.running import eventually

ACME, ROBOT, TOKENS, LIMITED, FREE, GONE = (NewKey.create() for _ in range(6))
UNKNOWN_KEY = NewKey.create()
FILE = f"""
[caller.acme]
keys = ["{ACME.key.line}"]
brands = [1]
channels = ["MESAJ"]
addresses = true

[caller.robot]
keys = ["{ROBOT.key.line}"]
brands = "all"
calls = ["batch"]
addresses = true

[caller.tokens]
keys = ["{TOKENS.key.line}"]
brands = "all"

[caller.free]
keys = ["{FREE.key.line}"]
brands = "all"
addresses = true

[caller.limited]
keys = ["{LIMITED.key.line}"]
brands = "all"
addresses = true
rate = 100
streams = 1
"""
BEFORE = f"""{FILE}
[caller.gone]
keys = ["{GONE.key.line}"]
brands = "all"
addresses = true
"""

Code: TypeAlias = str
Ended: TypeAlias = tuple[Code, str]
"""How a call or a question of it ended: its gRPC code or "item", and the reason; OK and nothing if it was answered."""

OK: Ended = ("OK", "")
UNKNOWN: Ended = ("UNAUTHENTICATED", "CALLER_UNKNOWN")
NOT_ALLOWED: Ended = ("PERMISSION_DENIED", "CALL_NOT_ALLOWED")


def bearer(text: str) -> tuple[tuple[str, str], ...]:
    """Show a key."""
    return (("authorization", f"Bearer {text}"),)


NO_ONES: dict[str, tuple[tuple[str, str], ...]] = {
    "none": (),
    "unknown": bearer(UNKNOWN_KEY.text),
    "revoked": bearer(GONE.text),
    "another's id": bearer(f"iys1_{ACME.key.key_id}_{ROBOT.text.rpartition('_')[2]}"),
    "cut": bearer(ACME.text[:-1]),
    "no bearer": (("authorization", ACME.text),),
    "basic": (("authorization", "Basic YWNtZTprZXk="),),
    "two keys": (*bearer(ACME.text), *bearer(ACME.text)),
    "two callers": (*bearer(ACME.text), *bearer(FREE.text)),
    "huge": bearer("iys1_" + "a" * 4_000),
}
CALLERS = {"acme": ACME, "robot": ROBOT, "tokens": TOKENS, "free": FREE}


def context(brand: int, channel: Channel, message_class: MessageClass) -> Context:
    """Make a context of an individual."""
    return Context(brand=brand, channel=channel, recipient_type=RecipientType.BIREYSEL, message_class=message_class)


COMMERCIAL, CODE = MessageClass.COMMERCIAL, MessageClass.SECURITY_CODE


class Asked(NamedTuple):
    """One question."""

    context: Context
    plaintext: bool

    @property
    def question(self) -> Question:
        """As a question."""
        if self.plaintext:
            return Question(context=self.context, address=CONSENTED)
        return Question(
            context=self.context,
            token=address.token(CONSENTED, self.context.channel, ADDRESS_KEY),
            address_key_id=ADDRESS_KEY.key_id,
        )


QUESTIONS = {
    f"{brand} {channel.name} {message_class.name} {'plaintext' if plaintext else 'token'}": Asked(
        context(brand, channel, message_class), plaintext
    )
    for brand, channel, message_class, plaintext in product(
        (1, 2), (Channel.MESAJ, Channel.ARAMA), (COMMERCIAL, CODE), (True, False)
    )
}


def ending(error: Any) -> Ended:  # noqa: ANN401 - gRPC's error is a call, too
    """Say how a call ended: its code, and the reason of its details."""
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    for detail in [] if status is None else status.details:
        detail.Unpack(info)
        if info.reason:
            break
    return error.code().name, info.reason


def check(served: Served, asked: Asked, shown: Any) -> Ended:  # noqa: ANN401 - gRPC's metadata
    """Ask alone."""
    served.stub.Check(wire.check_request(asked.question), timeout=10, metadata=shown)
    return OK


def batch(served: Served, asked: Asked, shown: Any) -> Ended:  # noqa: ANN401 - the same
    """Ask in a batch, behind a question that every caller may ask."""
    others = Asked(context(1, Channel.MESAJ, CODE), plaintext=False)
    reply = served.stub.BatchCheck(wire.batch_request([others.question, asked.question]), timeout=10, metadata=shown)
    assert not reply.items[0].HasField("error")
    return ("item", reply.items[1].error.reason) if reply.items[1].HasField("error") else OK


def stream(served: Served, asked: Asked, shown: Any) -> Ended:  # noqa: ANN401 - the same
    """Ask by a frame, before one that every caller may ask."""
    question = asked.question
    frames = [
        wire.frame(frame_id=1, context=question.context, addresses=[CONSENTED])
        if asked.plaintext
        else v1.StreamCheckRequest(
            frame_id=1,
            brand_code=question.context.brand,
            channel=int(question.context.channel),  # type: ignore[arg-type] # a number
            recipient_type=v1.RECIPIENT_TYPE_BIREYSEL,
            message_class=int(question.context.message_class),  # type: ignore[arg-type] # a number
            tokens=question.token,
            address_key_id=ADDRESS_KEY.key_id,
        ),
        wire.frame(frame_id=2, context=context(1, Channel.MESAJ, CODE), addresses=[CONSENTED]),
    ]
    first, second = served.stub.StreamCheck(iter(frames), timeout=10, metadata=shown)
    assert not second.HasField("error")
    return ("item", first.error.reason) if first.HasField("error") else OK


def info(served: Served, _: Asked, shown: Any) -> Ended:  # noqa: ANN401 - the same
    """Ask the server about itself."""
    served.stub.GetServerInfo(v1.GetServerInfoRequest(), timeout=10, metadata=shown)
    return OK


CALLS: dict[str, Callable[[Served, Asked, Any], Ended]] = {
    "check": check,
    "batch": batch,
    "stream": stream,
    "info": info,
}


def ended(call: Callable[[Served, Asked, Any], Ended], served: Served, asked: Asked, shown: Any) -> Ended:  # noqa: ANN401
    """Make a call, and say how it ended."""
    try:
        return call(served, asked, shown)
    except grpc.RpcError as error:
        return ending(error)


def expected(caller: str, call: str, asked: Asked) -> Ended:
    """Say by the rules, written down once more, how a caller's call ends."""
    if caller == "robot" and call != "batch":
        return NOT_ALLOWED
    if call == "info" or asked.context.message_class is not COMMERCIAL:
        return OK
    reason = ""
    if caller == "acme" and asked.context.brand != 1:
        reason = "BRAND_NOT_IN_SCOPE"
    elif caller == "acme" and asked.context.channel is not Channel.MESAJ:
        reason = "CHANNEL_NOT_IN_SCOPE"
    elif caller == "tokens" and asked.plaintext:
        reason = "ADDRESSES_NOT_ALLOWED"
    if not reason:
        return OK
    return ("PERMISSION_DENIED", reason) if call == "check" else ("item", reason)


def write(path: Path, text: str) -> Path:
    """Put a callers file in the place of the one that is there."""
    made = path.with_suffix(".new")
    made.write_text(text)
    made.chmod(0o644)
    made.replace(path)
    return path


@pytest.fixture(name="gated", scope="module")
def _gated(tmp_path_factory: pytest.TempPathFactory, front: str) -> Iterator[Served]:
    """A server with a callers file, of which one caller has been taken out since the start."""
    site = make_site(tmp_path_factory.mktemp("gated"))
    file = write(site.path / "callers.toml", BEFORE)
    with serve(site, front=front, callers=file, metrics_listen="127.0.0.1:0") as served:
        assert check(served, QUESTIONS["1 MESAJ COMMERCIAL token"], bearer(GONE.text)) == OK
        write(file, FILE)
        eventually(lambda: bool(served.events("callers_changed")), "the file is read")
        yield served


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("shown", NO_ONES)
def test_nobody(gated: Served, call: str, shown: str) -> None:
    """Whoever shows no key of a caller gets no answer to anything, whatever is asked."""
    for asked in QUESTIONS.values():
        code, reason = ended(CALLS[call], gated, asked, NO_ONES[shown])

        assert (code, reason) == UNKNOWN


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("caller", CALLERS)
def test_scopes(gated: Served, caller: str, call: str) -> None:
    """Each caller gets what is in its scope, and else the code and reason that say what is not."""
    for name, asked in QUESTIONS.items():
        found = ended(CALLS[call], gated, asked, bearer(CALLERS[caller].text))

        assert found == expected(caller, call, asked), name


def outcomes(served: Served) -> list[bytes]:
    """Make every call that is refused, and keep all that is told of it."""
    told = []
    for call, shown in product(CALLS, [*NO_ONES.values(), *(bearer(key.text) for key in CALLERS.values())]):
        for asked in QUESTIONS.values():
            try:
                CALLS[call](served, asked, shown)
            except grpc.RpcError as error:
                status = rpc_status.from_call(cast("grpc.Call", error))
                told.append(repr(error.code()).encode() + (status.SerializeToString() if status else b""))
    return told


def test_same_on_an_empty_store(gated: Served, front: str, tmp_path: Path) -> None:
    """What is told of a refused call is the same to the byte, whatever the store holds."""
    site = make_site(tmp_path)
    shutil.rmtree(tmp_path / "store")
    StoreBuilder(tmp_path / "store").close()
    with serve(site, front=front, callers=write(tmp_path / "callers.toml", FILE)) as empty:
        told = outcomes(empty)

    assert told == outcomes(gated)
    assert len(told) > 100


def test_rate(gated: Served) -> None:
    """Who is over the rate is told when to come again; exempt messages have a rate of their own."""
    shown = bearer(LIMITED.text)
    asked = QUESTIONS["1 MESAJ COMMERCIAL token"]
    with pytest.raises(grpc.RpcError) as refused:
        [check(gated, asked, shown) for _ in range(1_000)]
    code = check(gated, QUESTIONS["1 MESAJ SECURITY_CODE token"], shown)
    status = rpc_status.from_call(cast("grpc.Call", refused.value))
    assert status is not None
    retry, quota = error_details_pb2.RetryInfo(), error_details_pb2.QuotaFailure()
    for detail in status.details:
        detail.Unpack(retry)
        detail.Unpack(quota)

    assert ending(refused.value) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")
    assert code == OK
    assert 0 < retry.retry_delay.ToTimedelta().total_seconds() < 0.1
    assert [violation.subject for violation in quota.violations] == ["caller"]
    time.sleep(retry.retry_delay.ToTimedelta().total_seconds())
    assert check(gated, asked, shown) == OK


@pytest.mark.parametrize("spent", [COMMERCIAL, CODE], ids=["commercial", "exempt"])
def test_rate_of_a_mixed_batch(gated: Served, spent: MessageClass) -> None:
    """Of a batch that is over one of the caller's two rates the other part is answered; with nothing left, none is."""
    shown = bearer(LIMITED.text)
    other = CODE if spent is COMMERCIAL else COMMERCIAL
    parts = {each: [question(each)] * count for each, count in ((spent, 100), (other, 2))}

    def reasons(asked: list[Question]) -> list[str]:
        items = gated.stub.BatchCheck(wire.batch_request(asked), timeout=30, metadata=shown).items
        return [item.error.reason for item in items]

    eventually(lambda: ended(batch, gated, as_asked(other), shown) == OK, "it is let in")
    with pytest.raises(grpc.RpcError) as refused:
        [reasons(parts[spent][:10]) for _ in range(1_000)]  # what is left is less than that
    mixed = reasons([*parts[spent], *parts[other]])

    assert ending(refused.value) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")
    assert mixed == ["RATE_LIMITED"] * 100 + [""] * 2


def question(message_class: MessageClass) -> Question:
    """Ask about somebody who has consented."""
    return Question(context=context(1, Channel.MESAJ, message_class), address=CONSENTED)


def as_asked(message_class: MessageClass) -> Asked:
    """Give the same among the questions of the table."""
    return QUESTIONS[f"1 MESAJ {message_class.name} token"]


def test_frames_wait(gated: Served) -> None:
    """A frame that is a little too early waits; one that is much too early is refused, and the stream goes on."""
    shown = bearer(LIMITED.text)

    def frame(number: int, recipients: int, message_class: MessageClass = COMMERCIAL) -> v1.StreamCheckRequest:
        return wire.frame(
            frame_id=number, context=context(1, Channel.MESAJ, message_class), addresses=[CONSENTED] * recipients
        )

    eventually(lambda: ended(stream, gated, QUESTIONS["1 MESAJ COMMERCIAL token"], shown) == OK, "it is let in")
    frames = [frame(number, 10) for number in range(20)] + [frame(98, 90), frame(99, 10, CODE)]
    replies = list(gated.stub.StreamCheck(iter(frames), timeout=30, metadata=shown))
    reasons = [reply.error.reason for reply in replies]

    assert reasons == [""] * 20 + ["RATE_LIMITED", ""]


def test_refused_frames_are_slow(gated: Served) -> None:
    """A stream that sends on whatever comes back does not keep the server busy with refusing."""
    shown = bearer(LIMITED.text)
    frame = wire.frame(frame_id=1, context=context(1, Channel.MESAJ, COMMERCIAL), addresses=[CONSENTED] * 100)

    eventually(lambda: ended(stream, gated, QUESTIONS["1 MESAJ COMMERCIAL token"], shown) == OK, "it is let in")
    began = time.monotonic()
    replies = list(gated.stub.StreamCheck(iter([frame] * 8), timeout=30, metadata=shown))
    seconds = time.monotonic() - began
    refused = sum(reply.error.reason == "RATE_LIMITED" for reply in replies)

    assert refused >= 5
    assert seconds >= refused * FRAME_WAIT_S


def test_streams(gated: Served) -> None:
    """A caller has so many streams open at once as it may, and others are not in its way."""
    frame = wire.frame(frame_id=1, context=context(1, Channel.MESAJ, CODE), addresses=[REFUSED])

    def endless() -> Iterator[v1.StreamCheckRequest]:
        while True:
            yield frame

    first = gated.stub.StreamCheck(endless(), timeout=30, metadata=bearer(LIMITED.text))
    next(first)
    with pytest.raises(grpc.RpcError) as refused:
        next(gated.stub.StreamCheck(endless(), timeout=30, metadata=bearer(LIMITED.text)))
    other = gated.stub.StreamCheck(iter([frame]), timeout=30, metadata=bearer(FREE.text))
    answered = len(list(other))
    first.cancel()

    assert ending(refused.value) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    assert answered == 1
    eventually(
        lambda: ended(stream, gated, QUESTIONS["1 MESAJ SECURITY_CODE token"], bearer(LIMITED.text)) == OK,
        "it is let in",
    )


@pytest.mark.parametrize("change", ["gone", "fewer brands", "new key"])
def test_revoked(site: Site, change: str) -> None:
    """Streams of a caller that was changed or removed end, idle ones too; others go on. Its next call is refused."""
    file = write(site.path / "callers.toml", BEFORE)
    after = {
        "gone": FILE,
        "fewer brands": BEFORE.replace(
            f'keys = ["{GONE.key.line}"]\nbrands = "all"', f'keys = ["{GONE.key.line}"]\nbrands = [2]'
        ),
        "new key": BEFORE.replace(GONE.key.line, UNKNOWN_KEY.key.line),
    }[change]
    assert after != BEFORE
    frame = wire.frame(frame_id=1, context=context(1, Channel.MESAJ, COMMERCIAL), addresses=[REFUSED])
    idle = [True]

    def one_and_wait() -> Iterator[v1.StreamCheckRequest]:
        yield frame
        while idle[0]:
            time.sleep(0.01)

    def endless() -> Iterator[v1.StreamCheckRequest]:
        while idle[0]:
            yield frame
            time.sleep(0.01)

    with serve(site, callers=file) as served:
        quiet = served.stub.StreamCheck(one_and_wait(), timeout=60, metadata=bearer(GONE.text))
        busy = served.stub.StreamCheck(endless(), timeout=60, metadata=bearer(GONE.text))
        others = served.stub.StreamCheck(endless(), timeout=60, metadata=bearer(FREE.text))
        for each in (quiet, busy, others):
            next(each)
        write(file, after)
        with pytest.raises(grpc.RpcError) as busy_end:
            for _ in busy:
                pass
        with pytest.raises(grpc.RpcError) as quiet_end:
            next(quiet)
        next_call = ended(check, served, QUESTIONS["1 MESAJ COMMERCIAL token"], bearer(GONE.text))
        still = next(others)
        idle[0] = False

    assert ending(busy_end.value) == ("PERMISSION_DENIED", "CALLER_REVOKED")
    assert quiet_end.value.code() is grpc.StatusCode.CANCELLED
    assert next_call == (("PERMISSION_DENIED", "BRAND_NOT_IN_SCOPE") if change == "fewer brands" else UNKNOWN)
    assert not still.HasField("error")


def test_revoked_at_the_door(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream whose caller is taken out just after it was let in ends, though nothing changes after that."""
    file = write(site.path / "callers.toml", BEFORE)
    admit = Gate.admit

    def admitted(gate: Gate, presented: Presented) -> Admission:
        found = admit(gate, presented)
        if found.caller.name == "gone":
            write(file, FILE)
            eventually(lambda: callers_of(gate) is not before, "the file is read")
        return found

    def callers_of(gate: Gate) -> object:
        return gate.callers

    monkeypatch.setattr(Gate, "admit", admitted)
    with serve(site, callers=file) as served:
        before = served.server.calls.gate.callers
        silent = served.stub.StreamCheck(
            iter(SimpleQueue[v1.StreamCheckRequest]().get, None), timeout=20, metadata=bearer(GONE.text)
        )
        with pytest.raises(grpc.RpcError) as refused:
            next(silent)

    assert ending(refused.value) == ("PERMISSION_DENIED", "CALLER_REVOKED")


def test_bad_edit(site: Site) -> None:
    """An edit that cannot be used changes nothing, and is told once, with its line, until it is mended."""
    file = write(site.path / "callers.toml", BEFORE)
    asked = QUESTIONS["1 MESAJ COMMERCIAL token"]
    with serve(site, callers=file) as served:
        write(file, BEFORE.replace("brands = [1]", "brand = [1]"))
        eventually(lambda: bool(served.events("callers_file_refused")), "the file is read")
        meanwhile = check(served, asked, bearer(GONE.text))
        write(file, FILE)
        eventually(lambda: bool(served.events("callers_changed")), "the file is read")
        told = served.events("callers_file_refused")
        after = ended(check, served, asked, bearer(GONE.text))

    assert meanwhile == OK
    assert len(told) == 1
    assert told[0]["line"] == 4
    assert after == UNKNOWN
    assert not any(key.text in served.log.getvalue() for key in (ACME, GONE))


def test_metrics(site: Site, front: str) -> None:
    """What each caller asks and is refused for is counted by its name; whoever is nobody has none."""
    file = write(site.path / "callers.toml", FILE)
    commercial = QUESTIONS["1 MESAJ COMMERCIAL token"]
    with serve(site, front=front, callers=file, metrics_listen="127.0.0.1:0") as served:
        for call in (check, batch, stream):
            assert ended(call, served, commercial, bearer(FREE.text)) == OK
        ended(check, served, QUESTIONS["2 MESAJ COMMERCIAL token"], bearer(ACME.text))
        ended(stream, served, QUESTIONS["2 MESAJ COMMERCIAL token"], bearer(ACME.text))
        ended(check, served, commercial, bearer(ROBOT.text))
        ended(check, served, commercial, ())
        asked = served.metric("consent_caller_recipients_total", caller="free")
        of_acme = served.metric("consent_caller_refusals_total", caller="acme", reason="BRAND_NOT_IN_SCOPE")
        of_robot = served.metric("consent_caller_refusals_total", caller="robot", reason="CALL_NOT_ALLOWED")
        of_nobody = served.metric("consent_caller_refusals_total", caller="", reason="CALLER_UNKNOWN")
        before = served.metric("consent_callers_file_usable"), served.metric("consent_callers")
        write(file, "nonsense")
        eventually(lambda: bool(served.events("callers_file_refused")), "the file is read")
        after = served.metric("consent_callers_file_usable"), served.metric("consent_callers")

    assert asked == 1 + 2 + 2
    assert (of_acme, of_robot, of_nobody) == (2, 1, 1)
    assert (before, after) == ((1, 5), (0, 5))


def test_many_callers(site: Site) -> None:
    """Of very many callers metrics make no labels."""
    others = "".join(
        f'[caller.c{number}]\nkeys = ["{NewKey.create().key.line}"]\nbrands = []\n' for number in range(200)
    )
    file = write(site.path / "callers.toml", FILE + others)
    with serve(site, callers=file, metrics_listen="127.0.0.1:0") as served:
        assert ended(check, served, QUESTIONS["1 MESAJ COMMERCIAL token"], bearer(FREE.text)) == OK
        asked = served.metric("consent_caller_recipients_total", caller="many")

    assert asked == 1
