"""In-process cases for pytest-benchmark; `scripts/bench --only inprocess` runs them over a store that it names.

Each case says in `extra_info` what it is and how many items one call handles.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.product import CONTEXT, Embedded
from iyscheck import address
from iyscheck.keys import AddressKey
from iyscheck.question import Question

SIZES = (100, 10_000, 50_000)


@pytest.fixture(name="embedded", scope="module")
def _embedded() -> Iterator[Embedded]:
    """Open the store that the environment names."""
    embedded = Embedded(os.environ["BENCH_STORE"], os.environ["BENCH_KEYS"], int(os.environ["BENCH_CONSENTS"]))
    yield embedded
    embedded.engine.close()


def _case(benchmark: BenchmarkFixture, case: str, items: int) -> None:
    benchmark.extra_info.update(case=case, items=items)


@pytest.mark.parametrize("recipients", SIZES)
def test_column_of_tokens(benchmark: BenchmarkFixture, embedded: Embedded, recipients: int) -> None:
    """A column of tokens is checked with the right answers."""
    column, reasons, _ = embedded.column(recipients)
    _case(benchmark, f"check_column, {recipients:,} tokens", recipients)

    answer = benchmark(
        embedded.engine.check_column, CONTEXT, tokens=column, address_key_id=embedded.engine.address_key_id
    )

    np.testing.assert_array_equal(answer.reasons, reasons)


@pytest.mark.parametrize("recipients", SIZES)
def test_column_of_phones(benchmark: BenchmarkFixture, embedded: Embedded, recipients: int) -> None:
    """A column of phone numbers is checked with the right answers."""
    _, reasons, phones = embedded.column(recipients)
    _case(benchmark, f"check_column, {recipients:,} phones", recipients)

    answer = benchmark(embedded.engine.check_column, CONTEXT, addresses=phones)

    np.testing.assert_array_equal(answer.reasons, reasons)


@pytest.mark.parametrize("place", ["hit", "miss"])
def test_single(benchmark: BenchmarkFixture, embedded: Embedded, place: str) -> None:
    """One token is checked, with a record and without."""
    column, reasons, _ = embedded.column(100)
    at = int(np.flatnonzero((reasons != 73) == (place == "hit"))[0])
    token = column[at].tobytes()
    question = Question(context=CONTEXT, token=token, address_key_id=embedded.engine.address_key_id)
    _case(benchmark, f"check, one token, {place}", 1)

    assert benchmark(embedded.engine.check, question).reason == reasons[at]


def test_tokenising(benchmark: BenchmarkFixture, embedded: Embedded) -> None:
    """10,000 phone numbers become tokens."""
    column, _, phones = embedded.column(10_000)
    key = AddressKey.load(Path(os.environ["BENCH_KEYS"]) / "address.key")
    _case(benchmark, "address.tokens, 10,000 phones", 10_000)

    made = benchmark(address.tokens, phones, CONTEXT.channel, key)

    np.testing.assert_array_equal(made, column)
