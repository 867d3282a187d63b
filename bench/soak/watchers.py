"""Who watches the health meanwhile: some come and go as balancers do, and one never reads."""

import random
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.soak.callers import TIMEOUT_S
from bench.soak.hostile import deaf_watchers
from bench.soak.tally import Tally
from iyscheck.errors import ServiceFailedError, ServiceUnavailableError

_NAMES: Final = ("", "iyscheck.v1.ConsentCheckService", "iyscheck.v1.ConsentCheckService/fresh", "nobody's")
_THREADS: Final = 3
_AT_ONCE: Final = 12
_STAY_S: Final = 2.0
_DEAF_S: Final = 45.0
"""For how long it does not read, before it connects anew: longer than the server's patience."""
_USUAL: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)
"""How a watch may end where servers are killed, stopped and drained."""
_OWN: Final = (("grpc.use_local_subchannel_pool", 1),)
_Status: Final = health_pb2.HealthCheckResponse


@dataclass(kw_only=True)
class Watchers:
    """All watchers of a run; `start` starts them, `stop` ends them."""

    target: str
    tally: Tally
    seed: int
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Start all threads."""
        works = [lambda number=number: self._come_and_go(number) for number in range(_THREADS)]
        for work in (*works, self._never_read):
            thread = threading.Thread(target=work, name="watchers", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """End all watches; who does not end is told as a call that hangs."""
        self._over.set()
        until = time.monotonic() + 3 * TIMEOUT_S
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0))
            if thread.is_alive():
                self.tally.late.append("watchers: they do not end")

    def _come_and_go(self, number: int) -> None:
        dice = random.Random(f"watchers {self.seed} {number}")
        while not self._over.is_set():
            with grpc.insecure_channel(self.target, options=_OWN) as channel:
                stub: Any = health_pb2_grpc.HealthStub(channel)
                for _ in range(dice.randint(1, 5)):
                    with self.tally.call("watch", TIMEOUT_S):
                        self._watch(stub, dice)
                    if self._over.is_set():
                        break
            self._over.wait(dice.random())

    def _watch(self, stub: Any, dice: random.Random) -> None:  # noqa: ANN401 - the stubs' types are those of one reply
        """Open some watches, take the first status of each, stay a while and leave."""
        names = [dice.choice(_NAMES) for _ in range(dice.randint(1, _AT_ONCE))]
        watches = [stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S) for name in names]
        try:
            for name, watch in zip(names, watches, strict=True):
                self.judge(name, next(watch).status)
            self._over.wait(dice.random() * _STAY_S)
        except grpc.RpcError as error:
            code = error.code()
            kind = ServiceUnavailableError if code in _USUAL else ServiceFailedError
            raise kind("A watch ended.", code=code.name) from error
        finally:
            for watch in watches:
                watch.cancel()

    def judge(self, name: str, status: int) -> None:
        """Count a status, and tell one that cannot be."""
        self.tally.heard()
        unknown = status == _Status.SERVICE_UNKNOWN
        # Before its first look a worker knows no name; it takes no calls then.
        if status not in (_Status.SERVING, _Status.NOT_SERVING, _Status.SERVICE_UNKNOWN) or unknown != (
            name == _NAMES[-1]
        ):
            self.tally.failed.append(f"watch: status {status} of {name!r}")

    def _never_read(self) -> None:
        while not self._over.is_set():
            with suppress(OSError), deaf_watchers(self.target, 1):
                self._over.wait(_DEAF_S)
            self._over.wait(TIMEOUT_S / 4)
