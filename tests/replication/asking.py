"""Those who ask while something fails: one at each server, and one, as senders are, at all of them."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from iyscheck.client import Client
from iyscheck.client.health import FRESH
from iyscheck.consent import Reason
from iyscheck.errors import ServiceError
from iyscheck.question import Answer
from tests.replication.feeding import QUESTIONS, Feed

_TIMEOUT_S: Final = 15.0
_PAUSE_S: Final = 0.1


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What one call came to: where the server stood, or the error; whether it was fresh then, if it said so."""

    at_s: float
    sequence: int = 0
    is_stale: bool = False
    is_fresh: bool | None = None
    error: str = ""


@dataclass
class Asking:
    """Asks a target again and again, and holds every answer against the feed.

    Only where the target is one server may its position not go back.
    """

    name: str
    target: str
    feed: Feed
    samples: list[Sample] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _newest: dict[bytes, int] = field(default_factory=dict)

    @property
    def is_of_one(self) -> bool:
        """Whether it asks one server."""
        return "," not in self.target

    @property
    def logs(self) -> set[bytes]:
        """Ids of all logs of which it was told."""
        return set(self._newest)

    @property
    def sequence(self) -> int:
        """Where the server stood last."""
        return next((each.sequence for each in reversed(self.samples) if not each.error), 0)

    @property
    def is_fresh(self) -> bool:
        """Whether the server said last that it is fresh."""
        return next((each.is_fresh for each in reversed(self.samples) if each.is_fresh is not None), False)

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        with Client(self.target, timeout_s=_TIMEOUT_S, batch_timeout_s=_TIMEOUT_S) as client:
            channel = grpc.insecure_channel(self.target) if self.is_of_one else None
            health: Any = health_pb2_grpc.HealthStub(channel) if channel is not None else None
            while not self._over.wait(_PAUSE_S):
                self.samples.append(self._asked(client, health))
            if channel is not None:
                channel.close()

    def _asked(self, client: Client, health: Any) -> Sample:  # noqa: ANN401 - a stub of gRPC
        try:
            answers = client.check_many(QUESTIONS)
            is_fresh = None if health is None else self._fresh(health)
        except ServiceError as error:
            return Sample(at_s=time.monotonic(), error=type(error).__name__)
        except grpc.RpcError as error:
            return Sample(at_s=time.monotonic(), error=str(error.code()))
        found = [self.feed.wrong(person, answer) for person, answer in enumerate(answers)]
        positions = [each.envelope.position for each in answers if isinstance(each, Answer)]
        if self.is_of_one:
            for position in positions:
                before = self._newest.get(position.log_id, 0)
                if position.sequence < before:
                    found.append(f"position {position.sequence} after {before}")
                self._newest[position.log_id] = max(before, position.sequence)
        self.wrong += [f"{self.name}: {each}" for each in found if each]
        return Sample(
            at_s=time.monotonic(),
            sequence=max((each.sequence for each in positions), default=0),
            is_stale=any(isinstance(each, Answer) and each.reason is Reason.DATA_STALE for each in answers),
            is_fresh=is_fresh,
        )

    @staticmethod
    def _fresh(health: Any) -> bool:  # noqa: ANN401 - the same
        said = health.Check(health_pb2.HealthCheckRequest(service=FRESH), timeout=_TIMEOUT_S)
        return bool(said.status == health_pb2.HealthCheckResponse.SERVING)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What somebody who asked saw in some time: calls, errors of a kind, stale answers, and longest times in seconds.

    `gap_s`: without a newer position; `not_fresh_s`: of a server that did not say that it is fresh.
    """

    answered: int
    errors: Counter[str]
    stale: int
    gap_s: float
    not_fresh_s: float


def seen(samples: Sequence[Sample], begin_s: float, end_s: float) -> Seen:
    """Sum up what was seen between two moments."""
    within = [each for each in samples if begin_s <= each.at_s <= end_s]
    newer, newest = [begin_s], 0
    for each in within:
        if not each.error and each.sequence > newest:
            newer.append(each.at_s)
            newest = each.sequence
    newer.append(end_s)
    return Seen(
        answered=sum(not each.error for each in within),
        errors=Counter(each.error for each in within if each.error),
        stale=sum(each.is_stale for each in within),
        gap_s=max(after - before for before, after in pairwise(newer)),
        not_fresh_s=_longest(within, lambda each: each.is_fresh is False),
    )


def _longest(samples: Sequence[Sample], is_so: Callable[[Sample], bool]) -> float:
    longest, since = 0.0, None
    for each in samples:
        if not is_so(each):
            since = None
            continue
        since = each.at_s if since is None else since
        longest = max(longest, each.at_s - since)
    return longest
