"""What a server's own metrics tell of a server that stands still or has a line, beside what its callers saw.

A real process, which is stopped from outside, whose lock somebody holds, or that is asked in bursts.
"""

import json
import math
import os
import signal
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any, Final

import grpc
import pytest

from iyscheck import wire
from iyscheck.consent import Channel, RecipientType
from iyscheck.question import Context, Question
from iyscheck.server.metrics import LATENCY_BUCKETS_S
from tests.server.conftest import CONSENTED, make_site
from tests.server.processes.running import Running, eventually, running

HOLDS_S: Final = 0.7
HOLD: Final = f"""
import ctypes, signal
signal.signal(signal.SIGUSR1, lambda *_: ctypes.PyDLL(None).usleep({int(HOLDS_S * 1e6)}))
"""
"""For a signal, a call into C that does not let go of Python's lock, as a badly made package makes."""
CONTEXT: Final = Context(brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)
QUESTION: Final = Question(context=CONTEXT, address=CONSENTED)
CHECK: Final = wire.check_request(QUESTION).SerializeToString()
BATCH: Final = wire.batch_request([QUESTION] * 700).SerializeToString()
BURSTS: Final = 8
TOGETHER: Final = 16
EVERY_S: Final = 0.3


@pytest.fixture(name="server", scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of one process, with one thread for each kind of unary calls."""
    site = make_site(tmp_path_factory.mktemp("site"))
    with running(site, "--workers=1", "--unary-workers=1", before=HOLD) as server:
        server.wait_for("serving")
        yield server


def buckets(server: Running, name: str, **labels: str) -> dict[float, float]:
    """Read how many took no longer than so many seconds."""
    found: dict[float, float] = {}
    for (sample, own), value in server.scrape().items():
        shown = json.loads(own)
        if sample == f"{name}_bucket" and labels.items() <= shown.items():
            found[float(shown["le"])] = value
    return dict(sorted(found.items()))


def beyond(server: Running, name: str, seconds: float) -> float:
    """Count what took longer."""
    found = buckets(server, name)
    return found[math.inf] - found[seconds]


def asked(server: Running, method: str) -> Any:  # noqa: ANN401 - gRPC's call of bytes
    """Make what asks by bytes alone, so that the caller has nothing to do but to wait."""
    return grpc.insecure_channel(server.target).unary_unary(f"/iyscheck.v1.ConsentCheckService/{method}")


def test_stopped(server: Running) -> None:
    """A process that is stopped for a second answers nobody meanwhile, and its ticker was late for as long."""
    before, ask = beyond(server, "consent_ticker_delay_seconds", 0.5), asked(server, "Check")
    ask(CHECK, timeout=20)
    os.kill(server.process.pid, signal.SIGSTOP)
    began = time.monotonic()
    threading.Timer(1.2, os.kill, (server.process.pid, signal.SIGCONT)).start()
    ask(CHECK, timeout=20)
    waited_s = time.monotonic() - began
    eventually(lambda: beyond(server, "consent_ticker_delay_seconds", 0.5) >= before + 10, "the ticker tells nothing")

    assert waited_s > 1


def test_lock_held(server: Running) -> None:
    """While something in the process holds Python's lock nobody is answered, and its ticker was late for as long."""
    before = beyond(server, "consent_ticker_delay_seconds", 0.2)
    os.kill(server.process.pid, signal.SIGUSR1)
    eventually(lambda: beyond(server, "consent_ticker_delay_seconds", 0.2) >= before + 8, "the ticker tells nothing")


def test_line(server: Running) -> None:
    """Of calls that come in bursts, time in the line counts: their p99 is that of a caller who measures from outside.

    The caller sends when it is due, whatever came of earlier calls, and measures from when that was.
    """
    ask = asked(server, "BatchCheck")
    ask(BATCH, timeout=60)
    name, method = "grpc_server_handling_seconds", {"grpc_method": "BatchCheck"}
    before, waited = buckets(server, name, **method), beyond(server, "consent_queue_seconds", 0.02)
    took_s: list[float] = []
    began, calls = time.monotonic(), []
    for number in range(BURSTS):
        due = began + number * EVERY_S
        time.sleep(max(0.0, due - time.monotonic()))
        for _ in range(TOGETHER):
            call = ask.future(BATCH, timeout=60)
            call.add_done_callback(lambda _, due=due: took_s.append(time.monotonic() - due))
            calls.append(call)
    for call in calls:
        call.result()
    eventually(lambda: len(took_s) == len(calls), "not all are measured")
    after = buckets(server, name, **method)
    counted = {le: after[le] - before[le] for le in after}
    outside = bisect_left(LATENCY_BUCKETS_S, sorted(took_s)[math.ceil(0.99 * len(took_s)) - 1])
    inside = [count >= 0.99 * len(calls) for count in counted.values()].index(True)

    assert counted[math.inf] == len(calls)
    assert abs(outside - inside) <= 1, (sorted(took_s)[-3:], counted)
    assert beyond(server, "consent_queue_seconds", 0.02) - waited >= BURSTS
