"""A store whose index was made by an older rule: columns say what single checks say, before and after a writer came."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from iyscheck.change import KNOWN_SOURCES
from iyscheck.consent import Channel, Policy, Reason, RecipientType
from iyscheck.engine import Engine
from iyscheck.kernel import Kernel
from iyscheck.question import Answer, Context, Question
from iyscheck.store.snapshot import Store
from iyscheck.store.verification import verify
from tests.builders import ADDRESS_KEY, NOW, STORE_KEY
from tests.embedding import run

STORE = Path(__file__).parents[1] / "golden" / "store-of-rule-1.mdb.gz"
"""Brand 1 with one consent of MESAJ and BIREYSEL for each of SOURCES, taken in 2019 and registered in 2024, then one of
each that is young; written by the version whose rule knew nothing of citizens (RULE_VERSION 1)."""

SOURCES = (*KNOWN_SOURCES, "", "IYS_YENI_KAYNAK", "HS_ŞUBE", "iys_web")
OLD = [f"+90532100{number:04}" for number in range(len(SOURCES))]
YOUNG = [f"+90532200{number:04}" for number in range(len(SOURCES))]
STRANGER = "+905329999999"
CONTEXT = Context(brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The store of the older version."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "data.mdb").write_bytes(gzip.decompress(STORE.read_bytes()))
    return tmp_path / "store"


@pytest.fixture(params=Kernel)
def engine(path: Path, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine over it, of each kernel."""
    with opened(path, request.param) as found:
        yield found


def opened(path: Path, kernel: Kernel) -> Engine:
    """Open the store below its key ids: they are those of an older address form."""
    return Engine(
        Store.open(path),
        store_key=STORE_KEY,
        address_key=ADDRESS_KEY,
        policy=Policy(),
        answer_ttl_s=300,
        clock=lambda: NOW,
        kernel=kernel,
    )


def expected() -> list[Reason]:
    """What is right to say of OLD, YOUNG and STRANGER."""
    old = [Reason.CONSENTED if source.startswith("IYS_") else Reason.REGISTERED_TOO_LATE for source in SOURCES]
    return [*old, *[Reason.CONSENTED] * len(YOUNG), Reason.NO_CONSENT]


def three_ways(engine: Engine) -> list[list[Reason]]:
    """Ask about everybody singly, in a batch and in a column."""
    everybody = [*OLD, *YOUNG, STRANGER]
    many = engine.check_many([Question(context=CONTEXT, address=each) for each in everybody])
    column = engine.check_column(CONTEXT, addresses=everybody)
    return [
        [engine.check(Question(context=CONTEXT, address=each)).reason for each in everybody],
        [item.reason for item in many if isinstance(item, Answer)],
        [Reason(reason) for reason in column.reasons.tolist()],
    ]


def upgrade(path: Path) -> None:
    """Open it for writing in a process of its own, with whatever keys it has, and close it."""
    program = """
import sys
from iyscheck.store.snapshot import Store
from iyscheck.store.writer import Writer

with Store.open(sys.argv[1]) as store:
    address_key_id, store_key_id = store.meta(b"address_key_id"), store.meta(b"store_key_id")
Writer.open(sys.argv[1], address_key_id=address_key_id, store_key_id=store_key_id).close()
"""
    ran = run(program, path)
    assert ran.returncode == 0, ran.stderr


def test_read(engine: Engine) -> None:
    """A reader that comes first answers columns from the records: the older index would call citizens late."""
    assert three_ways(engine) == [expected()] * 3
    assert engine.index_stats().recipients_from_records == len(expected())


def test_told(path: Path) -> None:
    """Verification says that the index is of an older version, and nothing else."""
    with Store.open(path) as store:
        (fault,) = verify(store).faults

    assert "older version" in fault
    assert "rebuild-index" in fault


@pytest.mark.parametrize("kernel", Kernel)
def test_written(path: Path, kernel: Kernel) -> None:
    """The first writer gives it a new index, which then answers columns with the same reasons."""
    upgrade(path)

    with opened(path, kernel) as engine:
        assert three_ways(engine) == [expected()] * 3
        assert engine.index_stats().recipients_from_records == 0
    with Store.open(path) as store:
        assert verify(store).faults == []


def test_upgraded_while_read(path: Path) -> None:
    """A reader that had it open before answers the same afterwards, from the new index."""
    with opened(path, Kernel.NUMPY) as engine:
        before = three_ways(engine)
        from_records = engine.index_stats().recipients_from_records
        upgrade(path)

        assert before == three_ways(engine) == [expected()] * 3
        assert engine.index_stats().recipients_from_records == from_records
