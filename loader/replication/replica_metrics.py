"""What a replica tells Prometheus, and its log: what it is doing, how far it is behind, what it refused."""

import time
from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Enum, Gauge

from iyscheck.errors import IyscheckError, LogDivergedError, LogError, MessageRejectedError
from iyscheck.service_manager import ServiceManager
from iyscheck.store.layout import LogState
from loader.replication.codec import Rejection
from loader.replication.follow import State, lag_s
from loader.reports.metrics import LostLines

OUTCOMES: Final = ("applied", "refused")
_BAD: Final = frozenset({State.FORK, State.UNTRUSTED, State.GAP, State.FULL, State.REJECTING})


class ReplicaMetrics:
    """The numbers of one replica; a `Watch`. No label holds content of a log."""

    def __init__(
        self,
        manager: ServiceManager,
        *,
        clock: Callable[[], float] = time.time,
        lost_lines: Callable[[], int] = lambda: 0,
    ) -> None:
        """`lost_lines` says how many lines the log has lost."""
        self.registry = CollectorRegistry()
        self.registry.register(LostLines(lost_lines))
        self._manager = manager
        import structlog  # with what it brings a tenth of the start of every other command

        self._log = structlog.get_logger("replica")
        self._store: LogState | None = None
        self._snapshot: Gauge | None = None
        self._clock = clock
        self._doing = (State.STARTING, "")
        self._told = State.STARTING
        lag = Gauge(
            "consent_replica_lag_seconds",
            "How long ago the primary made the newest batch that is in.",
            registry=self.registry,
        )
        lag.set_function(lambda: lag_s(self._store, clock()) if self._store is not None else float("nan"))
        self._rows = Gauge(
            "consent_replica_lag_rows", "Feed rows in the log that are not in yet.", registry=self.registry
        )
        self._bytes = Gauge(
            "consent_replica_lag_bytes", "Bytes of the log that are not in yet, about.", registry=self.registry
        )
        self._state = Enum(
            "consent_replica_state", "What the replica is doing.", states=[*State], registry=self.registry
        )
        self._batches = Counter("consent_replica_batches", "Batches of the log.", ["outcome"], registry=self.registry)
        for outcome in OUTCOMES:
            self._batches.labels(outcome)
        self._mismatches = Counter(
            "consent_replica_digest_mismatches",
            "Times that the store would not have been, or was not, what the primary's was.",
            registry=self.registry,
        )
        self._gaps = Counter(
            "consent_replica_gaps", "Times that the log did not lead on, and a copy was needed.", registry=self.registry
        )
        self._rejected = Counter(
            "consent_replica_rejected_messages",
            "Messages that do not count: nobody who may has signed them, or they were changed.",
            ["reason"],
            registry=self.registry,
        )
        for reason in Rejection:
            self._rejected.labels(reason.value)

    def snapshot_age(self, seconds: float) -> None:
        """Hear how old the newest snapshot is at the place where this maker puts its own."""
        if self._snapshot is None:
            self._snapshot = Gauge(
                "consent_snapshot_age_seconds", "How old the newest snapshot is.", registry=self.registry
            )
        made = self._clock() - seconds
        self._snapshot.set_function(lambda: self._clock() - made)

    def serves(self, state: LogState) -> None:
        """Hear how the store stands that answers from now on."""
        self._store = state

    def became(self, state: State, why: str = "") -> None:
        """Hear what the replica is doing now; logged where that is new."""
        if (state, why) == self._doing:
            return
        if state is State.GAP and self._doing[0] is not State.GAP:
            self._gaps.inc()
        is_old = state is self._told or (state is State.CATCHING_UP and self._told is State.FOLLOWING)
        self._doing = (state, why)
        self._state.state(state)
        self._manager.status(f"{state.replace('_', ' ')}{': ' if why else ''}{why}")
        if not is_old or why:
            self._told = state
            tell = self._log.error if state in _BAD else self._log.info
            tell(f"replica_{state}", message=why, batch=self._store.batch if self._store is not None else None)

    def applied(self, batches: int, rows: int, state: LogState) -> None:  # noqa: ARG002 - rows are the benches'
        """Hear of batches that are in."""
        self._store = state
        self._batches.labels("applied").inc(batches)

    def rejected(self, number: int, error: MessageRejectedError) -> None:
        """Hear of a message that does not count."""
        self._rejected.labels(error.why).inc()
        self._log.error("message_rejected", number=number, reason=error.why, message=str(error))

    def refused(self, error: LogError) -> None:
        """Hear of a batch that could not be put in."""
        self._batches.labels("refused").inc()
        if isinstance(error, LogDivergedError):
            self._mismatches.inc()

    def behind(self, rows: int, size: int) -> None:
        """Hear how much of the log is not in yet."""
        self._rows.set(rows)
        self._bytes.set(size)

    def not_copied(self, error: IyscheckError) -> None:
        """Hear that no copy could be made for others."""
        self._log.error("snapshot_failed", message=str(error))
