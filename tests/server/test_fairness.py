"""Bulk gives way: whoever waits for one answer comes before those who stream."""

import os
import threading

from iyscheck import wire
from iyscheck.consent import Channel, RecipientType
from iyscheck.question import Context, Question
from tests.server.conftest import CONSENTED, Site, serve

CONTEXT = Context(brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)


def test_threads_of_streams_give_way(site: Site) -> None:
    """The system is told to run threads of streams after those of single checks, and of nothing else."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with serve(site):
        found = {
            thread.name.partition("_")[0]: os.getpriority(os.PRIO_PROCESS, thread.native_id or 0)
            for thread in threading.enumerate()
        }

    assert found["rpc"] == found["batch"] == min(own + 10, 19)
    assert found["check"] == own
    assert found["MainThread"] == own


def test_batches_do_not_fill_the_place_of_single_checks(site: Site) -> None:
    """More batches than threads are under way: a single check is answered before most of them."""
    batch = wire.batch_request([Question(context=CONTEXT, address=CONSENTED)] * 3_000)
    single = wire.check_request(Question(context=CONTEXT, address=CONSENTED))
    with serve(site, unary_workers=2) as served:
        served.stub.BatchCheck(batch, timeout=60)
        batches = [served.stub.BatchCheck.future(batch, timeout=120) for _ in range(30)]
        served.stub.Check(single, timeout=120)
        done = sum(each.done() for each in batches)
        for each in batches:
            each.result()

    assert done < 15
