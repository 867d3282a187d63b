"""Who waited for a turn and can no longer be answered in time is refused, and nobody else."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import structlog
from google.protobuf.message import Message
from google.rpc import error_details_pb2  # type: ignore[import-untyped] # it ships no types
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st

from iyscheck import wire
from iyscheck.consent import Channel, RecipientType
from iyscheck.errors import OverloadedError
from iyscheck.question import Context, Question
from iyscheck.server.calls import Arriving, Call, Calls, FrontCalls, Gathered
from iyscheck.server.gate import NOTHING, Admission, Gate
from iyscheck.server.metrics import Metrics
from iyscheck.server.refusals import Refusal
from iyscheck.server.shedding import HASTY_S, STANDING_S, Shedding
from iyscheck.server.threads import started_pool
from iyscheck.v1 import consent_check_pb2 as v1
from tests.server.conftest import CONSENTED, Site, serve

CONTEXT = Context(brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)
SECONDS = st.floats(0, 100)


class Slow:
    """Handlers that take a while, and count what they were asked."""

    def __init__(self, takes_s: float, *, waits: bool = False) -> None:
        self.asked = 0
        self._takes_s = takes_s
        self._waits = waits

    def check(self, data: bytes, call: Call) -> Message:
        """Take a while."""
        del data
        self.asked += 1
        call.waits = self._waits
        time.sleep(self._takes_s)
        return v1.CheckResponse()

    batch_check = check_frame = get_server_info = check

    def check_gathered(self, data: Sequence[bytes], admissions: Sequence[Admission]) -> list[bytes | Exception | None]:
        """Take a while for all together."""
        del admissions
        self.asked += len(data)
        time.sleep(self._takes_s)
        return [b""] * len(data)

    def stream_check(self, frames: Iterator[bytes], call: Call) -> Iterator[Message]:
        """Answer nothing."""
        del frames, call
        return iter(())


def calls_of(slow: Slow) -> FrontCalls:
    """Offer handlers as calls without a front."""
    return Calls(slow, Metrics(lambda: 0), structlog.get_logger(), Gate(), max_streams=1).of("test")


def asked(calls: FrontCalls, *, waited_s: float, remaining_s: float | None) -> str:
    """Make a call that comes so; returns why it was refused."""
    try:
        calls.unary["Check"](b"", Arriving(time_remaining=lambda: remaining_s, waited_s=waited_s))
    except Refusal as refusal:
        found: Any = error_details_pb2.ErrorInfo()
        refusal.status.details[0].Unpack(found)
        retry: Any = error_details_pb2.RetryInfo()
        refusal.status.details[1].Unpack(retry)
        assert retry.retry_delay.ToMilliseconds() > 0
        return str(found.reason)
    return ""


def test_refused_before_work() -> None:
    """Once calls take some time, one that has waited and has less is refused, and never reaches the handlers."""
    slow = Slow(0.02)
    calls = calls_of(slow)
    for _ in range(40):
        asked(calls, waited_s=0, remaining_s=None)
    before = slow.asked

    assert asked(calls, waited_s=1.0, remaining_s=0.005) == "OVERLOADED"
    assert slow.asked == before
    assert asked(calls, waited_s=1.0, remaining_s=5.0) == ""
    assert asked(calls, waited_s=1.0, remaining_s=None) == ""
    assert slow.asked == before + 2


def test_gathered_refused_before_work() -> None:
    """Of checks that have gathered and waited, those that have less than such a pass takes are refused alone."""
    slow = Slow(0.02)
    calls = calls_of(slow)

    def codes(waited_s: float, *remaining_s: float | None) -> list[str]:
        many = len(remaining_s)
        gathered = Gathered(data=[b""] * many, presented=[NOTHING] * many, remaining_s=remaining_s, waited_s=waited_s)
        return [each.code.name if isinstance(each, Refusal) else "OK" for each in calls.gathered(gathered)]

    for _ in range(40):
        codes(0.0, None)
    before = slow.asked

    assert codes(1.0, 1.005, 5.0, None) == ["RESOURCE_EXHAUSTED", "OK", "OK"]
    assert slow.asked == before + 2
    assert codes(0.0, 0.005) == ["OK"]


def test_who_found_no_line_is_tried() -> None:
    """A call that did not wait is tried whatever its deadline, so that one slow time cannot shut the door for good."""
    slow = Slow(0.0)
    calls = calls_of(slow)
    kinds = [asked(calls, waited_s=waited_s, remaining_s=1e-9) for waited_s in (0.0, STANDING_S)]

    assert kinds == ["", ""]
    assert slow.asked == 2


def test_waiting_for_a_position_is_not_counted() -> None:
    """What waits for the store and not for the server does not make others look late."""
    slow = Slow(0.02, waits=True)
    calls = calls_of(slow)
    for _ in range(40):
        asked(calls, waited_s=0, remaining_s=None)

    assert asked(calls, waited_s=1.0, remaining_s=0.005) == ""


@given(st.lists(st.floats(1e-5, 1), min_size=1, max_size=50), SECONDS, st.none() | SECONDS)
def test_law(took: list[float], waited_s: float, remaining_s: float | None) -> None:
    """Refused is exactly who waited for longer than a moment and has less time than calls take."""
    shedding = Shedding()
    for seconds in took:
        shedding.took(seconds)
    late = waited_s > STANDING_S and remaining_s is not None and remaining_s < shedding.takes_s
    if late:
        with pytest.raises(OverloadedError) as refused:
            shedding.ensure_in_time(waited_s, remaining_s)
        assert refused.value.of_caller is (remaining_s is not None and waited_s + remaining_s < HASTY_S)
    else:
        shedding.ensure_in_time(waited_s, remaining_s)


@pytest.mark.parametrize("late", [1, 5])
def test_settles(late: int) -> None:
    """It settles near what nearly all calls take; few that take a hundred times as long do not move it far."""
    shedding = Shedding()
    for number in range(2_000):
        shedding.took(1.0 if number % 100 < late else 0.01)

    assert 0.005 < shedding.takes_s < 0.05 if late == 1 else 0.005 < shedding.takes_s < 2.5


def test_waited() -> None:
    """A pool's work knows how long it has waited for a thread."""
    with started_pool(1, "one") as pool:
        first = pool.submit(time.sleep, 0.05)
        second = pool.submit(lambda: pool.of_thread.waited_s)
        first.result()
        waited_s = second.result()
        third = pool.submit(lambda: pool.of_thread.waited_s).result()

    assert waited_s > 0.03
    assert third < waited_s


def test_overloaded(site: Site) -> None:
    """A server with a line of calls refuses those whose time is nearly over, and says why before it is."""
    batch = wire.batch_request([Question(context=CONTEXT, address=CONSENTED)] * 1_000)
    with serve(site, unary_workers=1) as served:
        began = time.perf_counter()
        for _ in range(30):  # until it knows what they take
            served.stub.BatchCheck(batch, timeout=60)
        enough_s = time.perf_counter() - began  # for thirty of them, and not for three hundred
        reasons: Counter[str] = Counter()
        for share in (1, 2, 4, 8):  # on a busy machine thirty, one after the other, may take as long as all at once
            asked = [served.stub.BatchCheck.future(batch, timeout=enough_s / share) for _ in range(300)]
            refused = [call.exception(timeout=60) for call in asked]
            reasons.update(_reason(error) for error in refused if error is not None)
            if reasons["OVERLOADED"]:
                break

    assert reasons["OVERLOADED"] > 0


def _reason(error: Any) -> str:  # noqa: ANN401 - gRPC's error is a call, too
    status: Any = rpc_status.from_call(error)
    if status is None:
        return str(error.code().name)
    found: Any = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(found)
    return str(found.reason)


@pytest.mark.parametrize(
    ("waited_s", "remaining_s", "own"), [(0.01, 0.1, True), (0.15, 0.1, False), (1.0, 0.01, False)]
)
def test_whose_fault(waited_s: float, remaining_s: float, own: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """It is the caller's, where it gave less time than anybody promises."""
    shedding = Shedding()
    while shedding.takes_s < 0.2:
        shedding.took(1.0)
    with pytest.raises(OverloadedError) as refused:
        shedding.ensure_in_time(waited_s, remaining_s)

    assert refused.value.of_caller is own
