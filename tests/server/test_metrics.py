import re
import shutil
import subprocess
import sys
import time
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from prometheus_client import CollectorRegistry

from iyscheck import wire
from iyscheck.consent import Channel, RecipientType
from iyscheck.errors import StoreUnreadableError
from iyscheck.kernel import Kernel
from iyscheck.question import Context, Question
from iyscheck.server.metrics import Decisions, Metrics
from iyscheck.server.refusals import Code
from iyscheck.store import layout
from iyscheck.store.environment import open_writer
from iyscheck.v1 import consent_check_pb2 as v1
from tests.builders import SECRETS, tag_of
from tests.server.conftest import CONSENTED, REFUSED, UNKNOWN, Served, Site, serve
from tests.server.processes.running import eventually
from tests.server.test_rpcs import QUESTIONS, token_of

CONTEXT = Context(brand=1, channel=Channel.EPOSTA, recipient_type=RecipientType.BIREYSEL)


def ask_everything(served: Served) -> None:
    """Make calls of every kind: 13 single questions, a batch of 13 and one bad, frames of 2 and 3, four failures."""
    questions = [question for question, _ in QUESTIONS.values()]
    for question in questions:
        served.stub.Check(wire.check_request(question), timeout=5)
    batch = wire.batch_request(questions)
    batch.questions.append(v1.Question(brand_code=1))
    served.stub.BatchCheck(batch, timeout=5)
    frames = [
        wire.frame(CONTEXT, addresses=[CONSENTED, "someone@example.com"]),
        wire.frame(CONTEXT, addresses=[]),
        wire.frame(questions[0].context, addresses=[CONSENTED, REFUSED, UNKNOWN]),
    ]
    list(served.stub.StreamCheck(iter(frames), timeout=5))
    served.stub.GetServerInfo(v1.GetServerInfoRequest(), timeout=5)
    for data in (b"\xff", b"", b"\x0a\x03\x32\x01\xff"):
        with pytest.raises(grpc.RpcError):
            served.call("Check", data)
    mismatch = Question(context=CONTEXT, token=token_of(CONSENTED), address_key_id=b"another.")
    with pytest.raises(grpc.RpcError):
        served.stub.Check(wire.check_request(mismatch), timeout=5)


def test_untimed(site: Site, front: str) -> None:
    """What waits for a position, and a check of many bytes, is not timed: it says nothing of how fast the server is."""
    with serve(site, front=front, metrics_listen="127.0.0.1:0") as served:
        waits = wire.check_request(next(iter(QUESTIONS.values()))[0])
        waits.min_position.CopyFrom(served.stub.GetServerInfo(v1.GetServerInfoRequest(), timeout=5).position)
        long = wire.check_request(Question(context=CONTEXT, address="9" * 5_000))
        for request in (waits, long):
            served.stub.Check(request, timeout=5)

        assert served.metric("grpc_server_handled_total", grpc_method="Check", grpc_code="OK") == 2
        assert served.metric("grpc_server_handling_seconds_count", front="grpc") == 0


def test_sums(site: Site, front: str) -> None:
    """Decisions add up to the recipients that were answered, RPCs to the calls, messages to the messages."""
    with serve(site, front=front, metrics_listen="127.0.0.1:0") as served:
        ask_everything(served)

        answered = 2 * len(QUESTIONS) + 5
        assert served.metric("consent_check_decisions_total") == answered
        assert served.metric("consent_check_decisions_total", channel="EPOSTA") == 2
        assert served.metric("consent_check_decisions_total", decision="permit", reason="CONSENTED") == 5
        assert served.metric("consent_check_decisions_total", decision="permit", reason="REFUSED") == 0
        assert served.metric("grpc_server_started_total", grpc_method="Check", front=front) == len(QUESTIONS) + 4
        assert served.metric("grpc_server_started_total", grpc_method="Check") == len(QUESTIONS) + 4
        assert served.metric("grpc_server_handled_total", grpc_code="OK") == len(QUESTIONS) + 3
        assert served.metric("grpc_server_handled_total", grpc_code="InvalidArgument") == 3
        assert served.metric("grpc_server_handled_total", grpc_code="FailedPrecondition") == 1
        assert served.metric("grpc_server_handling_seconds_count") == len(QUESTIONS) + 5  # not GetServerInfo
        assert served.metric("consent_queue_seconds_count") == len(QUESTIONS) + 6
        assert served.metric("consent_frame_seconds_count") == 2
        assert served.metric("consent_not_answered_total", unit="call", fault="caller") == 4
        assert served.metric("consent_not_answered_total", unit="item", fault="caller") == 1
        assert served.metric("consent_not_answered_total", unit="frame", fault="caller") == 1
        assert served.metric("consent_not_answered_total", fault="server") == 0
        assert served.metric("grpc_server_msg_received_total", grpc_type="unary") == len(QUESTIONS) + 6
        assert served.metric("grpc_server_msg_sent_total", grpc_type="unary") == len(QUESTIONS) + 2
        assert served.metric("grpc_server_msg_received_total", grpc_type="bidi_stream") == 3
        assert served.metric("grpc_server_msg_sent_total", grpc_type="bidi_stream") == 3
        assert served.metric("consent_check_batch_size_count") == 3


def test_state(site: Site) -> None:
    """A scrape shows position, watermarks, brands, size, readers and versions, with buckets below a millisecond."""
    with serve(site, metrics_listen="127.0.0.1:0") as served:
        text = served.scrape()

        assert served.metric("consent_store_sequence") == 5
        for agg in ("newest", "median", "oldest"):
            assert 0 <= time.time() - served.metric("consent_watermark_timestamp_seconds", agg=agg) < 600
        assert served.metric("consent_brands", state="fresh") == served.metric("consent_brands", state="none") == 1
        assert served.metric("consent_store_size_bytes") > 0
        assert served.metric("consent_store_disk_free_bytes") > 0
        assert 0 < served.metric("consent_store_readers") < served.metric("consent_store_readers_max") == 1024
        assert served.metric("consent_store_records") == 3
        assert served.metric("consent_snapshot_refresh_seconds_count") >= 1
        assert served.metric("consent_build_info") == 1
        assert "_created" not in text
        for bucket in ("1e-05", "5e-05", "0.0001", "0.0003", "0.0006", "0.0008", "0.001"):
            assert f'le="{bucket}"' in text


def test_damaged_index(site: Site) -> None:
    """Pages that cannot be taken are counted, and so is who is answered from the records for that, rightly."""
    environment = open_writer(site.path / "store")
    with environment.lmdb.begin(write=True) as txn:
        txn.drop(environment.databases[layout.INDEX], delete=False)
    environment.close()
    keys = (f"--{name}={site.path / name.replace('-', '.')}" for name in ("address-key", "store-key"))
    rebuild = [sys.executable, "-m", "loader", "rebuild-index", f"--store={site.path / 'store'}", *keys]
    frame = wire.frame(QUESTIONS["consented"][0].context, addresses=[CONSENTED, REFUSED, UNKNOWN])
    with serve(site, metrics_listen="127.0.0.1:0") as served:
        (damaged,) = served.stub.StreamCheck(iter([frame]), timeout=5)
        pages, lost = served.metric("consent_index_pages"), served.metric("consent_index_pages_not_taken")
        from_records = served.metric("consent_index_fallback_recipients_total")
        subprocess.run(rebuild, check=True, capture_output=True)
        (mended,) = served.stub.StreamCheck(iter([frame]), timeout=5)

        assert list(damaged.reasons) == list(mended.reasons) == [1, 69, 68]
        assert pages == lost > 0
        assert from_records >= 3
        assert served.metric("consent_index_pages_not_taken") == 0
        assert served.metric("consent_index_fallback_recipients_total") == from_records


def test_kernel(site: Site) -> None:
    """What runs the inner loops is in log, metrics and server info."""
    with serve(site, metrics_listen="127.0.0.1:0") as served:
        info = served.stub.GetServerInfo(v1.GetServerInfoRequest(), timeout=5)

        assert info.kernel == Kernel.best() == served.server.describe()["kernel"]
        assert served.metric("consent_build_info", kernel=info.kernel) == 1


def test_no_plaintext(site: Site) -> None:
    """No address, token, tag or key is in a log line or a metric, whatever was asked."""
    with serve(site, metrics_listen="127.0.0.1:0") as served:
        ask_everything(served)
        served.server.engine.check = None  # type: ignore[method-assign,assignment] # makes the next call fail inside
        with pytest.raises(grpc.RpcError) as caught:
            served.stub.Check(wire.check_request(QUESTIONS["consented"][0]), timeout=5)
        written = f"{served.scrape()}\n{served.log.getvalue()}\n{caught.value}".lower()

    assert len(served.events("call_failed")) == 1
    for recipient in (CONSENTED, REFUSED, UNKNOWN):
        national = recipient.removeprefix("+90")
        assert not re.search(rf"(?<!\d){national}", written)
        assert token_of(recipient).hex() not in written
        assert tag_of(recipient, Channel.MESAJ).hex() not in written
    assert "example.com" not in written
    for secret in SECRETS.values():
        assert secret.hex() not in written


def test_unreadable_store(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that cannot be read is a metric and a health status, not a failed scrape."""

    def fail() -> None:
        raise StoreUnreadableError("gone.")

    with serve(site, metrics_listen="127.0.0.1:0") as served:
        assert served.metric("consent_store_readable") == 1
        monkeypatch.setattr(served.server.engine, "freshness", fail)

        assert served.metric("consent_store_readable") == 0
        deadline = time.monotonic() + 5
        while not served.events("store_unreadable") and time.monotonic() < deadline:
            time.sleep(0.02)

        assert len(served.events("store_unreadable")) == 1


def test_moved_store(site: Site) -> None:
    """A store that was moved away is not readable, as health says, and nothing of it is shown until it is back."""
    with serve(site, metrics_listen="127.0.0.1:0") as served:
        shutil.move(site.path / "store", site.path / "elsewhere")
        eventually(lambda: served.metric("consent_store_readable") == 0, "it is readable")
        eventually(lambda: not health(served, ""), "health says that it is")
        gone = served.scrape()
        shutil.move(site.path / "elsewhere", site.path / "store")
        eventually(lambda: served.metric("consent_store_readable") == 1, "it is not readable again")
        eventually(lambda: health(served, ""), "health says that it is not")

        assert not re.search(r"^consent_(store_s|store_d|brand|watermark|source|feed|freshness)", gone, re.MULTILINE)
        assert served.metric("consent_brands", state="fresh") == 1


def health(served: Served, service: str) -> bool:
    """Ask the health of a name."""
    call: Any = served.channel.unary_unary("/grpc.health.v1.Health/Check")
    asked = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    reply = health_pb2.HealthCheckResponse.FromString(call(asked, timeout=5))
    return reply.status == health_pb2.HealthCheckResponse.SERVING


def test_damage_beside(site: Site) -> None:
    """What no check needs and is damaged takes its own metrics away, and no others: the store can be read."""
    environment = open_writer(site.path / "store")
    with environment.lmdb.begin(write=True) as txn:
        txn.put(layout.feed_field("daily"), b"nothing", db=environment.databases[layout.META])
    environment.close()
    with serve(site, metrics_listen="127.0.0.1:0") as served:
        assert served.metric("consent_store_readable") == 1
        assert served.metric("consent_store_sequence") == 5
        assert health(served, "")
        assert "consent_brands" not in served.scrape()


def test_named_brands(site: Site) -> None:
    """Brands that were named have a metric of their own, and only they are in a label."""
    with serve(site, metrics_listen="127.0.0.1:0", metrics_brands="1, 777") as served:
        assert time.time() - served.metric("consent_brand_watermark_timestamp_seconds", brand="1") < 600
        assert set(re.findall(r'brand="(\d+)"', served.scrape())) == {"1"}


def test_column_counts() -> None:
    """A frame counts each reason as often as it was given, and its size once."""
    registry = CollectorRegistry()
    Decisions(registry).count_column(Channel.MESAJ, [(1, 3), (69, 2)])

    def shown(reason: str) -> float | None:
        labels = {"decision": "permit" if reason == "CONSENTED" else "deny", "reason": reason, "channel": "MESAJ"}
        return registry.get_sample_value("consent_check_decisions_total", labels)

    assert (shown("CONSENTED"), shown("REFUSED"), shown("NO_CONSENT")) == (3, 2, 0)
    assert registry.get_sample_value("consent_check_batch_size_sum") == 5
    assert registry.get_sample_value("consent_check_batch_size_count") == 1


@pytest.mark.parametrize("seconds", [0.0, 10e-6, 11e-6, 0.004, 10.0, 99.0])
def test_together(seconds: float) -> None:
    """Calls that end together are counted as if each had been counted alone."""
    alone, together = Metrics(), Metrics()
    for _ in range(3):
        alone.method("s", "m", "f").handled(Code.OK, seconds, seconds / 2)
    alone.method("s", "m", "f").handled(Code.INTERNAL, seconds, seconds / 2)
    together.method("s", "m", "f").handled_together({Code.OK: 3, Code.INTERNAL: 1}, seconds, seconds / 2)

    shown = [
        {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in each.registry.collect()
            for sample in family.samples
            if not sample.name.endswith("_created")
        }
        for each in (alone, together)
    ]
    assert shown[0] == pytest.approx(shown[1])
