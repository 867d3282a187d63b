"""A store that is not to be believed permits nothing but exempt messages, whichever way it is asked."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from iyscheck.consent import Channel, MessageClass, Policy, Reason, RecipientType, Status
from iyscheck.engine import Engine
from iyscheck.kernel import Kernel
from iyscheck.question import Answer, Context, Question
from iyscheck.store.log_writer import LogWriter
from iyscheck.store.snapshot import Store
from tests.builders import ADDRESS_KEY, NOW, STORE_KEY, StoreBuilder
from tests.logs import KEY_IDS, PlainSealer, begin, received

RECIPIENTS = ["+905321000001", "+905321000002", "+905321000009"]
"""With ONAY, with RET, and not known."""


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[LogWriter]:
    """A replica whose brands are fresh, open for its log."""
    begin(tmp_path / "primary")
    with StoreBuilder(tmp_path / "primary", sealer=PlainSealer()) as builder:
        for recipient_type in RecipientType:
            builder.consent(recipient=RECIPIENTS[0], recipient_type=recipient_type, retailers=[7])
            builder.consent(recipient=RECIPIENTS[1], recipient_type=recipient_type, status=Status.RET)
        builder.brand(1).brand(2).commit()
    with Store.open(tmp_path / "primary") as store, LogWriter.open(tmp_path / "replica", **KEY_IDS) as writer:
        batches = received(store)
        writer.become_replica(log_id=batches[0].batch.log_id)
        writer.follow(batches, stream_created="s")
        yield writer


def reasons(engine: Engine, recipient_type: RecipientType, message_class: MessageClass) -> set[Reason]:
    """Ask in every way about every recipient, with and without a retailer, and gather the reasons."""
    found: set[Reason] = set()
    for retailer in (None, 7):
        context = Context(
            brand=1,
            channel=Channel.MESAJ,
            recipient_type=recipient_type,
            message_class=message_class,
            retailer=retailer,
        )
        questions = [Question(context=context, address=recipient) for recipient in RECIPIENTS]
        found |= {engine.check(question).reason for question in questions}
        found |= {item.reason for item in engine.check_many(questions).items if isinstance(item, Answer)}
        found |= {Reason(number) for number in np.unique(engine.check_column(context, addresses=RECIPIENTS).reasons)}
    return found


@pytest.mark.parametrize("kernel", Kernel)
@pytest.mark.parametrize("recipient_type", RecipientType)
def test_law(replica: LogWriter, kernel: Kernel, recipient_type: RecipientType) -> None:
    """As long as it is believed it answers; from the moment it is not, nothing commercial is permitted."""
    engine = Engine(
        Store(replica.environment),
        store_key=STORE_KEY,
        address_key=ADDRESS_KEY,
        policy=Policy(),
        answer_ttl_s=300,
        clock=lambda: NOW,
        kernel=kernel,
    )

    assert Reason.CONSENTED in reasons(engine, recipient_type, MessageClass.COMMERCIAL)
    replica.distrust("a batch left this store other than the primary's")

    assert reasons(engine, recipient_type, MessageClass.COMMERCIAL) == {Reason.DATA_STALE}
    assert reasons(engine, recipient_type, MessageClass.SECURITY_CODE) == {Reason.EXEMPT_MESSAGE}
    assert not engine.fresh()
    replica.become_replica()
    assert Reason.CONSENTED in reasons(engine, recipient_type, MessageClass.COMMERCIAL)
