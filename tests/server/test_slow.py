"""Slow calls are told of by the decision ids of their answers, a few a second."""

import io
import json
import time
from typing import Any

import pytest

from iyscheck import wire
from iyscheck.consent import Channel, RecipientType
from iyscheck.engine import Engine
from iyscheck.question import Context, Question
from iyscheck.server.log import open_log
from iyscheck.server.slow import MOST_A_SECOND, SLOW_S, SlowCalls
from iyscheck.v1 import consent_check_pb2 as v1
from tests.server.conftest import CONSENTED, Site, serve
from tests.server.processes.running import eventually

CONTEXT = Context(brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)
REQUEST = wire.check_request(Question(context=CONTEXT, address=CONSENTED))
FRAME = wire.frame(CONTEXT, addresses=[CONSENTED])


def test_few() -> None:
    """Of each second the first few are told; the next that is told says how many were not."""
    written, now_s = io.StringIO(), 7.0
    slow = SlowCalls("Check", open_log("info", written), clock=lambda: now_s)
    for _ in range(10):
        slow.took(0.2, 0.0, "", "OK", None)
    slow.took(0.2, 0.0, "", "OK", None, calls=5)
    now_s = 8.0
    slow.took(0.2, 0.0, "", "OK", None)
    slow.took(0.2, 0.0, "", "OK", None)
    told = [json.loads(line)["untold"] for line in written.getvalue().splitlines()]

    assert told == [*[0] * MOST_A_SECOND, 10 - MOST_A_SECOND + 5, 0]


@pytest.mark.parametrize("method", ["Check", "StreamCheck"])
def test_told(site: Site, front: str, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """A call and a frame that took long are told of by the id that the caller was given; quick ones are not."""
    with serve(site, front=front) as served:

        def ask() -> Any:  # noqa: ANN401 - an answer of either kind
            if method == "Check":
                return served.stub.Check(REQUEST, timeout=10)
            (reply,) = served.stub.StreamCheck(iter([FRAME]), timeout=10)
            return reply

        ask()
        assert not served.events("slow_call")
        for name in ("check", "check_column"):
            quick = getattr(Engine, name)

            def slow(*args: Any, quick: Any = quick, **options: Any) -> Any:  # noqa: ANN401 - whatever it is called with
                time.sleep(SLOW_S)
                return quick(*args, **options)

            monkeypatch.setattr(Engine, name, slow)
        answer = ask()
        eventually(lambda: served.events("slow_call"), "nobody was told")
        (told,) = served.events("slow_call")

    assert told["decision_id"] == answer.envelope.decision_id
    assert told["decision_id"]
    assert told["method"] == method
    assert told["seconds"] >= SLOW_S
    assert told["code"] == "OK"


def test_without_answer(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow call that failed is told of, too: there is no id, but how it ended."""

    def fail(*_: Any, **__: Any) -> None:  # noqa: ANN401 - whatever it is called with
        time.sleep(SLOW_S)
        raise ValueError

    with serve(site) as served:
        monkeypatch.setattr(Engine, "check", fail)
        with pytest.raises(Exception, match="INTERNAL"):
            served.stub.Check(REQUEST, timeout=10)
        eventually(lambda: served.events("slow_call"), "nobody was told")

        assert served.events("slow_call")[0]["decision_id"] == ""
        assert served.events("slow_call")[0]["code"] == "INTERNAL"


def test_nothing_of_whom(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told of a slow call has no address."""
    monkeypatch.setattr("iyscheck.server.calls.SLOW_S", 0.0)
    with serve(site) as served:
        served.stub.Check(REQUEST, timeout=10)
        served.stub.BatchCheck(v1.BatchCheckRequest(questions=[REQUEST.question]), timeout=10)
        eventually(lambda: len(served.events("slow_call")) == 2, "not told")

        assert CONSENTED[3:] not in served.log.getvalue()
