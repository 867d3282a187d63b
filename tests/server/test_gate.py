"""Who is let in by API keys, what they may ask and how much: over a real server, by real calls."""

import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import cast

import grpc
import pytest
from google.rpc import error_details_pb2  # type: ignore[import-untyped] # it ships no types
from grpc_status import rpc_status
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from iyscheck import wire
from iyscheck.callers.identity import NewKey
from iyscheck.callers.watch import CallersWatch
from iyscheck.consent import Channel, MessageClass
from iyscheck.errors import CallerUnknownError
from iyscheck.question import Question
from iyscheck.server.gate import FRAME_WAIT_S, Admission, Gate, Presented
from iyscheck.server.metrics import CallerCounts
from iyscheck.v1 import consent_check_pb2 as v1
from tests.server.conftest import CONSENTED, REFUSED, Served, Site, make_site, serve
from tests.server.gated import (
    ACME,
    BEFORE,
    CODE,
    COMMERCIAL,
    FILE,
    FREE,
    GONE,
    LIMITED,
    OK,
    QUESTIONS,
    ROBOT,
    UNKNOWN,
    UNKNOWN_KEY,
    Asked,
    Shown,
    batch,
    bearer,
    check,
    context,
    ended,
    ending,
    stream,
    write,
)
from tests.server.processes.running import eventually


@pytest.fixture(name="gated", scope="module")
def _gated(tmp_path_factory: pytest.TempPathFactory, front: str) -> Iterator[Served]:
    """A server with a callers file, of which one caller has been taken out since the start."""
    site = make_site(tmp_path_factory.mktemp("gated"))
    file = write(site.path / "callers.toml", BEFORE)
    with serve(site, front=front, callers=file, metrics_listen="127.0.0.1:0") as served:
        assert ended(check, served, QUESTIONS["1 MESAJ COMMERCIAL token"], bearer(GONE.text)) == OK
        write(file, FILE)
        eventually(lambda: bool(served.events("callers_changed")), "the file is read")
        yield served


def check_often(gated: Served, asked: Asked, shown: Shown) -> None:
    """Ask more than anybody may in so short a time."""
    for _ in range(1_000):
        check(gated, asked, shown)


def test_rate(gated: Served) -> None:
    """Who is over the rate is told when to come again; exempt messages have a rate of their own."""
    shown = bearer(LIMITED.text)
    asked = QUESTIONS["1 MESAJ COMMERCIAL token"]
    with pytest.raises(grpc.RpcError) as refused:
        check_often(gated, asked, shown)
    code = ended(check, gated, QUESTIONS["1 MESAJ SECURITY_CODE token"], shown)
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
    assert ended(check, gated, asked, shown) == OK


@pytest.mark.parametrize("spent", [COMMERCIAL, CODE], ids=["commercial", "exempt"])
def test_rate_of_a_mixed_batch(gated: Served, spent: MessageClass) -> None:
    """Of a batch that is over one of the caller's two rates the other part is answered; with nothing left, none is."""
    shown = bearer(LIMITED.text)
    other = CODE if spent is COMMERCIAL else COMMERCIAL
    parts = {each: [question(each)] * count for each, count in ((spent, 100), (other, 2))}

    def reasons(asked: list[Question]) -> list[str]:
        items = gated.stub.BatchCheck(wire.batch_request(asked), timeout=30, metadata=shown).items
        return [item.error.reason for item in items]

    def is_split() -> bool:
        with pytest.raises(grpc.RpcError) as refused:
            [reasons(parts[spent][:10]) for _ in range(1_000)]  # what is left is less than that
        assert ending(refused.value) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")
        return reasons([*parts[spent], *parts[other]]) == ["RATE_LIMITED"] * 100 + [""] * 2

    eventually(is_split, "one part is refused")  # on a machine that stood still for a second, there is enough for both


@pytest.mark.parametrize("spent", [COMMERCIAL, CODE], ids=["commercial", "exempt"])
def test_rate_of_a_mixed_frame(gated: Served, spent: MessageClass) -> None:
    """Groups over one of the caller's two rates are refused, in their places; those of the other are answered."""
    other = CODE if spent is COMMERCIAL else COMMERCIAL
    counts = [(spent, 45), (other, 2), (spent, 46)]
    groups = [(wire.group_head(context(1, Channel.MESAJ, kind)), count) for kind, count in counts]
    frame = wire.mixed_frame(groups, addresses=[CONSENTED] * 93)
    seen: list[list[str]] = []

    def is_split() -> bool:
        replies = gated.stub.StreamCheck(iter([frame] * 5), timeout=30, metadata=bearer(LIMITED.text))
        for reply in replies:
            reasons = [slot.error.reason for slot in reply.groups]
            for (_, count), reason in zip(counts, reasons, strict=True):
                part, reply.reasons = reply.reasons[:count], reply.reasons[count:]
                assert any(part) != bool(reason)
            seen.append(reasons)
        return ["RATE_LIMITED", "", "RATE_LIMITED"] in seen

    eventually(is_split, "one part is refused")
    assert all(reasons[0] == reasons[2] for reasons in seen)


def question(message_class: MessageClass) -> Question:
    """Ask about somebody who has consented."""
    return Question(context=context(1, Channel.MESAJ, message_class), address=CONSENTED)


def test_rate_of_a_frame(gated: Served) -> None:
    """A frame that is a call counts by its recipients, and does not wait for its caller's rate."""
    asked = wire.frame(context(1, Channel.MESAJ, COMMERCIAL), addresses=[CONSENTED] * 101)

    with pytest.raises(grpc.RpcError) as refused:
        [gated.stub.CheckFrame(asked, timeout=10, metadata=bearer(LIMITED.text)) for _ in range(1_000)]

    assert ending(refused.value) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")
    assert gated.stub.CheckFrame(asked, timeout=10, metadata=bearer(FREE.text)).reasons


def test_frames_wait(gated: Served) -> None:
    """A frame that is a little too early waits; one that is much too early is refused, and the stream goes on."""
    shown = bearer(LIMITED.text)

    def frame(number: int, recipients: int, message_class: MessageClass = COMMERCIAL) -> v1.StreamCheckRequest:
        return wire.frame(
            frame_id=number, context=context(1, Channel.MESAJ, message_class), addresses=[CONSENTED] * recipients
        )

    eventually(lambda: ended(stream, gated, QUESTIONS["1 MESAJ COMMERCIAL token"], shown) == OK, "it is let in")
    frames = [frame(number, 10) for number in range(20)] + [frame(98, 90), frame(99, 10, CODE)]
    before_s, began_s = gated.metric("consent_frame_seconds_sum"), time.monotonic()
    replies = list(gated.stub.StreamCheck(iter(frames), timeout=30, metadata=shown))
    took_s = time.monotonic() - began_s
    reasons = [reply.error.reason for reply in replies]

    assert reasons == [""] * 20 + ["RATE_LIMITED", ""]
    assert took_s - (gated.metric("consent_frame_seconds_sum") - before_s) > 0.3, "the rate's waiting counts as ours"


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

    with serve(site, callers=file, metrics_listen="127.0.0.1:0") as served:
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
        eventually(
            lambda: (
                served.metric("grpc_server_handled_total", grpc_code="PermissionDenied", grpc_method="StreamCheck") == 2
            ),
            "both ends are counted",
        )
        idle[0] = False

    assert ending(busy_end.value) == ("PERMISSION_DENIED", "CALLER_REVOKED")
    assert ending(quiet_end.value) == ("PERMISSION_DENIED", "CALLER_REVOKED")
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
        meanwhile = ended(check, served, asked, bearer(GONE.text))
        write(file, FILE)
        eventually(lambda: bool(served.events("callers_changed")), "the file is read")
        told = served.events("callers_file_refused")
        after = ended(check, served, asked, bearer(GONE.text))

    assert meanwhile == OK
    assert len(told) == 1
    assert told[0]["line"] == 5
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
        recipients = "consent_caller_recipients_total"
        asked = served.metric(recipients, caller="free", outcome="answered")
        of_acme = served.metric(recipients, caller="acme", outcome="scope")
        of_robot = served.metric(recipients, caller="robot", outcome="scope")
        limited = bearer(LIMITED.text)
        for wanted in (1_000, 60, 1_000):  # only the first finds the rate unused
            frame = wire.frame(commercial.context, addresses=[CONSENTED] * wanted)
            list(served.stub.StreamCheck(iter([frame]), timeout=10, metadata=limited))
        of_limited = {
            outcome: served.metric(recipients, caller="limited", outcome=outcome) for outcome in ("answered", "quota")
        }
        of_nobody = served.metric("consent_auth_failures_total", kind="nothing")
        failures = served.metric("consent_reload_failures_total", what="callers")
        before = served.metric("consent_callers_file_usable"), served.metric("consent_callers")
        write(file, "nonsense")
        eventually(lambda: bool(served.events("callers_file_refused")), "the file is read")
        after = served.metric("consent_callers_file_usable"), served.metric("consent_callers")
        failed = served.metric("consent_reload_failures_total", what="callers")

    assert asked == 1 + 2 + 2
    assert (of_acme, of_robot, of_nobody) == (2, 1, 1)
    assert of_limited == {"answered": 1_000, "quota": 1_060}
    assert (before, after) == ((1, 6), (0, 6))
    assert (failures, failed) == (0, 1)


def test_metrics_from_the_start(site: Site) -> None:
    """Each caller has three series before it asks, also one that the file gets later; each kind of stranger has one."""
    file = write(site.path / "callers.toml", FILE)

    def series(served: Served, name: str) -> set[tuple[str, ...]]:
        return {
            tuple(sample.labels.values())
            for family in text_string_to_metric_families(served.scrape())
            for sample in family.samples
            if sample.name == name
        }

    with serve(site, callers=file, metrics_listen="127.0.0.1:0") as served:
        first = series(served, "consent_caller_recipients_total")
        strangers = series(served, "consent_auth_failures_total")
        write(file, BEFORE)
        eventually(lambda: bool(served.events("callers_changed")), "the file is read")
        eventually(lambda: series(served, "consent_caller_recipients_total") > first, "the new caller has no series")
        later = series(served, "consent_caller_recipients_total") - first

    outcomes = ("answered", "quota", "scope")
    assert first == {
        (name, outcome) for name in ("acme", "robot", "tokens", "free", "limited", "ops") for outcome in outcomes
    }
    assert later == {("gone", outcome) for outcome in outcomes}
    assert strangers == {("nothing",), ("key",), ("certificate",), ("two_callers",)}


@pytest.mark.parametrize(
    ("shown", "kind"),
    [
        (Presented(), "nothing"),
        (Presented(authorization=f"Bearer {UNKNOWN_KEY.text}"), "key"),
        (Presented(authorization="Basic YWNtZTprZXk="), "key"),
        (Presented(authorization=f"Bearer {UNKNOWN_KEY.text}", names=("dns:acme.example",)), "key"),
        (Presented(names=("dns:nobody.example",)), "certificate"),
        (Presented(names=()), "certificate"),
        (Presented(authorization=f"Bearer {FREE.text}", names=("dns:acme.example",)), "two_callers"),
        (Presented(names=("dns:acme.example", "dns:free.example")), "two_callers"),
    ],
)
def test_strangers(tmp_path: Path, shown: Presented, kind: str) -> None:
    """Who is not let in is counted once, by what was presented."""
    registry = CollectorRegistry()
    gate = Gate(CallersWatch(write(tmp_path / "callers.toml", FILE)), None, CallerCounts(registry))
    with pytest.raises(CallerUnknownError):
        gate.admit(shown)
    counted = {
        sample.labels["kind"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "consent_auth_failures_total"
    }

    assert counted == {"nothing": 0, "key": 0, "certificate": 0, "two_callers": 0} | {kind: 1}


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
