"""Single checks in process: the embedded engine over 200,000 consents, and what the server does around it.

`python -m pytest bench/cases/test_single.py` times each; a round asks 2,000 different questions one after the other.
"""

import io
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, cast

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from rich.console import Console

from bench.demo import Demo
from bench.echo import ANSWER
from bench.population import Population
from iyscheck import address, wire
from iyscheck.consent import Channel, RecipientType
from iyscheck.engine import Engine
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.question import Context, Question
from iyscheck.server.calls import Calls
from iyscheck.server.fronts import grpc as grpc_front
from iyscheck.server.gate import Gate
from iyscheck.server.handlers import CheckHandlers
from iyscheck.server.log import open_log
from iyscheck.server.metrics import Metrics
from iyscheck.server.threads import Pool
from iyscheck.server.unread import Unread

if TYPE_CHECKING:
    import grpc

QUESTIONS: Final = 2_000
MOST_UNREADABLE: Final = 0.01
POPULATION: Final = Population(seed=7, consents=200_000, brands=60)
CONTEXT: Final = Context(
    brand=POPULATION.largest_brand, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL
)  # fmt: skip - one line of values


@pytest.fixture(scope="module", name="keys")
def _keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Demo, AddressKey, StoreKey]:
    """A folder with new keys."""
    demo = Demo(folder=tmp_path_factory.mktemp("single"), console=Console())
    keys = demo.folder / "keys"
    keys.mkdir()
    return demo, AddressKey.create(keys / "address.key"), StoreKey.create(keys / "store.key")


@pytest.fixture(scope="module", name="engine")
def _engine(keys: tuple[Demo, AddressKey, StoreKey]) -> Iterator[Engine]:
    """An engine over a store that the real loader filled."""
    demo, address_key, store_key = keys
    POPULATION.write_feed(demo.folder / demo.feed, now=datetime.now(UTC))
    demo.load(demo.feed, quiet=True)
    with Engine.open(demo.store, store_key=store_key, address_key=address_key) as engine:
        yield engine


def questions(form: str, key: AddressKey, hit_rate: float) -> list[Question]:
    """Ask by token or address about recipients as customers spell them, of whom so many have a record."""
    recipients = POPULATION.campaign(
        QUESTIONS,
        brand=CONTEXT.brand,
        channel=CONTEXT.channel,
        recipient_type=CONTEXT.recipient_type,
        hit_rate=hit_rate,
    )
    if form == "address":
        return [Question(context=CONTEXT, address=recipient) for recipient in recipients]
    tokens = [address.token(recipient, CONTEXT.channel, key) for recipient in recipients]
    return [Question(context=CONTEXT, token=token, address_key_id=key.key_id) for token in tokens]


@pytest.mark.parametrize("hit_rate", [1.0, 0.0], ids=["hit", "miss"])
@pytest.mark.parametrize("form", ["token", "address"])
def test_embedded(
    benchmark: BenchmarkFixture,
    keys: tuple[Demo, AddressKey, StoreKey],
    engine: Engine,
    form: str,
    hit_rate: float,
) -> None:
    """`Engine.check`, evidence and envelope included."""
    asked = questions(form, keys[1], hit_rate)

    answers = benchmark(lambda: [engine.check(question) for question in asked])

    benchmark.extra_info["questions"] = len(answers)
    found = sum(answer.evidence is not None for answer in answers) / len(answers)
    if abs(found - hit_rate) > MOST_UNREADABLE:
        pytest.fail(f"{found:.1%} had a record, not {hit_rate:.0%}.")


@pytest.mark.parametrize("form", ["token", "address"])
def test_served(
    benchmark: BenchmarkFixture, keys: tuple[Demo, AddressKey, StoreKey], engine: Engine, form: str
) -> None:  # fmt: skip
    """What the server adds to gRPC's own work: bytes of requests to bytes of answers, counted and timed."""
    metrics = Metrics()
    handlers = CheckHandlers(engine, metrics.decisions, metrics.not_answered, max_waiters=1)
    calls = Calls(handlers, metrics, open_log("error", io.StringIO()), Gate(), max_streams=1)
    unread = Unread(metrics.ended, most_s=30.0, most_bytes=2**27)
    service = grpc_front.service(calls, dict.fromkeys(calls.of(grpc_front.NAME).unary, Pool(1, "check")), unread)
    handler = cast("grpc.RpcMethodHandler[bytes, bytes]", service.service(cast("grpc.HandlerCallDetails", _Call())))
    check, context = handler.unary_unary, cast("grpc.ServicerContext", _Call())
    requests = [wire.check_request(question).SerializeToString() for question in questions(form, keys[1], 1.0)]

    answers = benchmark(lambda: [check(request, context) for request in requests] if check else [])

    benchmark.extra_info["questions"] = len(answers)


def test_encoding(benchmark: BenchmarkFixture) -> None:
    """An answer with evidence to bytes."""
    benchmark(lambda: wire.check_response(ANSWER, "campaign 7").SerializeToString())


class _Call:
    """As much of a call as the handler of `Check` asks for."""

    method = "/iyscheck.v1.ConsentCheckService/Check"
    invocation_metadata = ()

    def time_remaining(self) -> float:
        """As long as anybody could wait."""
        return 60.0

    def cancel(self) -> bool:
        """End nothing."""
        return False

    def add_callback(self, over: Callable[[], object]) -> bool:
        """The call is over at once."""
        over()
        return True
