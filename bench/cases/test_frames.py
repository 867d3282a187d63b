"""From the bytes of a frame to tokens: 10,000 recipients as customers spell them, by each kernel and as before.

`python -m pytest bench/cases/test_frames.py` times each form; the last case runs all of them in turn in one process and
prints nanoseconds per recipient and their ratios, which hold on a noisy machine too.
"""

import time
from collections.abc import Callable
from statistics import median

import numpy as np
import numpy.typing as npt
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.population import Population
from iyscheck import address, wire
from iyscheck.consent import Channel, RecipientType
from iyscheck.kernel import Kernel
from iyscheck.keys import AddressKey
from iyscheck.question import Context
from iyscheck.v1 import consent_check_pb2 as v1

RECIPIENTS = 10_000
ROUNDS = 60
KEY = AddressKey(bytes(range(32)))
CHANNELS = (Channel.MESAJ, Channel.EPOSTA)

Tokens = npt.NDArray[np.uint8]
Form = Callable[[bytes, Channel], Tokens]


def by_protobuf(data: bytes, channel: Channel) -> Tokens:
    """Read a frame as it was read before: an object for every address, put together as a column again."""
    frame = wire.frame_of(wire.parse(v1.StreamCheckRequest, data))
    return address.tokens(frame.addresses or (), channel, KEY)


def by_kernel(kernel: Kernel) -> Form:
    """Read a frame as a column."""

    def tokens(data: bytes, channel: Channel) -> Tokens:
        frame = wire.frame_of(*wire.parse_frame(data, kernel))
        return address.tokens(frame.addresses or (), channel, KEY, kernel)

    return tokens


FORMS: dict[str, Form] = {"protobuf": by_protobuf, **{f"columns, {kernel}": by_kernel(kernel) for kernel in Kernel}}


@pytest.fixture(scope="module", params=CHANNELS, ids=[channel.name for channel in CHANNELS], name="asked")
def _asked(request: pytest.FixtureRequest) -> tuple[bytes, Channel]:
    """A frame of a campaign, and its channel."""
    channel: Channel = request.param
    population = Population(seed=7, consents=100_000, brands=60)
    context = Context(brand=population.largest_brand, channel=channel, recipient_type=RecipientType.BIREYSEL)
    recipients = population.campaign(
        RECIPIENTS, brand=context.brand, channel=channel, recipient_type=context.recipient_type, hit_rate=0.9
    )
    return wire.frame(context, addresses=recipients, frame_id=1).SerializeToString(), channel


@pytest.mark.parametrize("form", FORMS)
def test_tokens(benchmark: BenchmarkFixture, asked: tuple[bytes, Channel], form: str) -> None:
    """Frame to tokens, AES with the address key included."""
    found = benchmark(FORMS[form], *asked)

    benchmark.extra_info["recipients"] = len(found)


@pytest.mark.parametrize("kernel", Kernel)
def test_reading(benchmark: BenchmarkFixture, asked: tuple[bytes, Channel], kernel: Kernel) -> None:
    """Frame to columns, nothing recognised yet."""
    data, _ = asked

    frame = benchmark(lambda: wire.frame_of(*wire.parse_frame(data, kernel)))

    benchmark.extra_info["recipients"] = len(frame)


def test_in_turn(asked: tuple[bytes, Channel], capsys: pytest.CaptureFixture[str]) -> None:
    """All forms in turn, so that whatever slows the machine down slows each of them."""
    took: dict[str, list[float]] = {form: [] for form in FORMS}
    expected = by_protobuf(*asked)
    for tokens in FORMS.values():
        if not np.array_equal(tokens(*asked), expected):
            pytest.fail("The forms differ.")
    for _ in range(ROUNDS):
        for form, tokens in FORMS.items():
            started = time.perf_counter()
            tokens(*asked)
            took[form].append((time.perf_counter() - started) / RECIPIENTS * 1e9)
    before = median(took["protobuf"])
    with capsys.disabled():
        print(f"\n{asked[1].name}")
        for form, each in took.items():
            print(f"  {form:16} {median(each):8.1f} ns per recipient, {before / median(each):5.2f} x protobuf")
