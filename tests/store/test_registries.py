"""Lists of retailers: what is registered for a consent, and who uses which list."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.change import RetailerAccess
from iyscheck.kernel import Kernel
from iyscheck.store import layout
from iyscheck.store.layout import SourceState
from iyscheck.store.verification import verify
from tests.builders import StoreBuilder, a_batch, a_change, an_access

CONSENTS = [a_change(tag=bytes([number]) * 16) for number in (1, 2)]
RETAILERS = (1, 2, 3)
Lists = dict[bytes, tuple[int, frozenset[int]]]

# Few consents, moments and retailers: nearly every row meets another one.
rows = st.builds(
    lambda consent, registered, retailers: replace(an_access(consent, retailers), registered=registered),
    st.sampled_from(CONSENTS),
    st.integers(1, 3),
    st.sets(st.sampled_from(RETAILERS)),
)


def registered(batches: list[list[RetailerAccess]]) -> Lists:
    """Say what must be registered: the newest row, and of rows of the same second what all of them allow."""
    lists: Lists = {}
    for row in (row for batch in batches for row in batch):
        at, retailers = lists.get(row.tag, (0, frozenset()))
        if row.registered > at:
            lists[row.tag] = (row.registered, row.retailers)
        elif row.registered == at:
            lists[row.tag] = (at, retailers & row.retailers)
    return lists


class TestAccess:
    """Any rows in any batches."""

    @settings(max_examples=60, deadline=None)
    @given(batches=st.lists(st.lists(rows, max_size=4), max_size=4))
    def test_any(self, batches: list[list[RetailerAccess]]) -> None:
        """The newest row of a consent holds, of equals what all allow; a list is kept as long as somebody uses it."""
        with TemporaryDirectory() as folder, StoreBuilder(Path(folder) / "store") as builder:
            builder.writer.apply(a_batch(CONSENTS), SourceState(name="a"))
            for batch in batches:
                builder.writer.apply(a_batch(access=batch), SourceState(name="a"))

            expected = registered(batches)
            first = CONSENTS[0]
            tags = np.frombuffer(b"".join(consent.tag for consent in CONSENTS), np.uint8).reshape(-1, 16)
            with builder.store.snapshot() as snapshot:
                for retailer in RETAILERS:
                    listed = snapshot.retailer_listed(
                        first.brand, first.channel, first.recipient_type, tags, retailer
                    ).tolist()
                    assert listed == [retailer in expected.get(each.tag, (0, ()))[1] for each in CONSENTS]
                found = {key[-16:]: layout.decode_access(key, value) for key, value in snapshot.items(layout.ACCESS)}
                lists = [layout.decode_list(key, value) for key, value in snapshot.items(layout.LISTS)]
            assert found == {tag: (at, layout.list_id(retailers)) for tag, (at, retailers) in expected.items()}
            assert {each.retailers: each.users for each in lists} == Counter(
                retailers for _, retailers in expected.values()
            )
            assert verify(builder.store, kernel=Kernel.NUMPY).faults == []
