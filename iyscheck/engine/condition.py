"""What an engine tells of itself: limits, keys, policy, freshness, how full and whole its store is."""

from collections.abc import Callable

import iyscheck
from iyscheck.change import LogStanding
from iyscheck.consent import RULE_VERSION, Policy
from iyscheck.engine.inspection import Inspection
from iyscheck.engine.inventory import Holdings, Inventory
from iyscheck.engine.opened import Freshness, OpenedStore
from iyscheck.engine.standing import fresh_between
from iyscheck.kernel import Kernel
from iyscheck.keys import ADDRESS_FORM
from iyscheck.question import (
    MAX_BATCH_QUESTIONS,
    MAX_CLIENT_REFERENCE_BYTES,
    MAX_FRAME_GROUPS,
    MAX_FRAME_RECIPIENTS,
    MAX_MESSAGE_BYTES,
    ServerInfo,
)
from iyscheck.store import layout
from iyscheck.store.acknowledged import is_primary_no_more
from iyscheck.store.snapshot import StoreStats
from iyscheck.store.view import IndexStats


class Condition:
    """The part of an engine that answers nobody: its settings, and what can be told of its store."""

    def __init__(
        self,
        opened: OpenedStore,
        *,
        store_key_id: bytes,
        address_key_id: bytes,
        takes_addresses: bool,
        policy: Policy,
        answer_ttl_s: int,
        clock: Callable[[], float],
        kernel: Kernel,
    ) -> None:
        self.policy = policy
        self.kernel = kernel
        self.address_key_id = address_key_id
        self.takes_addresses = takes_addresses
        """Whether plaintext addresses can be asked about."""
        self._opened = opened
        self._inventory = Inventory(opened)
        self._store_key_id = store_key_id
        self._answer_ttl_s = answer_ttl_s
        self._clock = clock

    def freshness(self) -> Freshness:
        """Return position and watermarks from one snapshot.

        Raises StoreReplacedError where the files at the store's path are others, which cannot be opened either.
        """
        return self._opened.freshness()

    def fresh(self) -> bool:
        """Say whether the newest watermark is within the limit.

        That of a store that is not to be believed is not, nor that of a primary whose log has another one.
        """
        freshness = self.freshness()
        is_primary = freshness.log is not None and freshness.log.role == layout.PRIMARY
        if is_primary and is_primary_no_more(self._opened.store.environment.path):
            return False
        earliest, latest = fresh_between(freshness.newest_watermark, self.policy)
        return earliest <= self._clock() <= latest

    def lag_s(self) -> float | None:
        """Say how far a replica is behind its primary, in seconds; None of what is no replica."""
        return self.freshness().lag_s(self._clock())

    def standing(self) -> LogStanding | None:
        """Say how the store stands in the log that replicas follow; None if it is in none."""
        return self.freshness().standing(self._clock())

    def holdings(self) -> Holdings:
        """Return what the store holds beside the consents. Raises StoreError, as `freshness` does."""
        return self._inventory.holdings()

    def info(self) -> ServerInfo:
        """Describe limits, keys, policy and freshness."""
        freshness = self.freshness()
        return ServerInfo(
            server_version=iyscheck.__version__,
            kernel=self.kernel.value,
            address_form=ADDRESS_FORM,
            rule_version=RULE_VERSION,
            store_format=layout.FORMAT_VERSION,
            address_key_id=self.address_key_id,
            store_key_id=self._store_key_id,
            takes_addresses=self.takes_addresses,
            max_batch_questions=MAX_BATCH_QUESTIONS,
            max_frame_groups=MAX_FRAME_GROUPS,
            max_frame_recipients=MAX_FRAME_RECIPIENTS,
            max_message_bytes=MAX_MESSAGE_BYTES,
            max_client_reference_bytes=MAX_CLIENT_REFERENCE_BYTES,
            position=freshness.position,
            newest_watermark=freshness.newest_watermark,
            oldest_watermark=freshness.oldest_watermark,
            policy=self.policy,
            answer_ttl_s=self._answer_ttl_s,
            standing=freshness.standing(self._clock()),
        )

    def inspection(self) -> Inspection:
        """Make what tells of brands and sources, for whoever operates this."""
        return Inspection(self._opened, self.policy, self._clock)

    def stats(self) -> StoreStats:
        """Return how full the store is."""
        return self._opened.store.stats()

    def index_stats(self) -> IndexStats:
        """Return how whole the decision index is, as the newest column view found it."""
        return self._opened.views.stats()

    def sweep_readers(self) -> int:
        """Free the reader slots of processes that died; returns how many."""
        return self._opened.store.sweep_readers()
