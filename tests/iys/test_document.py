import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import msgspec
import pytest

from iyscheck.consent import Channel, RecipientType
from loader.iys import decoding
from loader.iys.api import Iys
from loader.iys.credentials import Credentials
from loader.iys.failures import fault_of
from loader.iys.faults import IysFault
from loader.iys.guard import Guard
from loader.iys.limits import Limits
from loader.iys.messages import Asked, FeedSource, ListedBrand, Page, SummaryLine
from loader.iys.pace import Pace
from loader.iys.tokens import Tokens
from loader.iys.transport import Answer as Received
from loader.iys.transport import Transport
from tests.iys.answers import JSON, WORDS, Answer
from tests.iys.asking import Asker
from tests.iys.days import day_of, midnight_s
from tests.iys.document import KNOWN, Document, Erratum
from tests.iys.fake import OPERATIONS, FakeIys
from tests.iys.tour import tour
from tests.iys.world import Call

ERRATA = msgspec.json.decode((Path(__file__).parent / "errata.json").read_bytes(), type=list[Erratum])

NOT_LISTED = {
    ("token", 429): "the limit of tokens stands in the introduction, not at the operation",
    ("timestamp", 204): "a day without a file has no stamp, and what is said then stands nowhere",
    ("integrator_subscription", 403): "a foreign code is not told apart from others anywhere else",
}
"""Statuses of the fake that an operation of the document does not list, and why it has them."""


@pytest.fixture(scope="module")
def path() -> Path:
    """Where İYS's document is. Without it nothing can be checked, and that is said."""
    named = os.environ.get("IYS_OPENAPI")
    if not named:
        pytest.skip("the fake was not compared with İYS's own document: IYS_OPENAPI does not say where that is")
    return Path(named)


@pytest.fixture(scope="module")
def document(path: Path) -> Document:
    """The document, mended."""
    return Document.load(path, ERRATA)


@contextmanager
def watching(fake: FakeIys) -> Iterator[list[tuple[Call, Answer]]]:
    """Write down what is asked and answered, as it is."""
    seen: list[tuple[Call, Answer]] = []
    fake.world.watch = lambda call, answer: seen.append((call, answer))
    yield seen
    fake.world.watch = None


@pytest.fixture
def day(fake: FakeIys) -> date:
    """Yesterday, on which something moved."""
    day = day_of(fake.clock.now()) - timedelta(1)
    for source in FeedSource:
        fake.move(600_001, source, created_s=midnight_s(day) + 60, citizen_name="A B")
    return day


class TestFake:
    """The fake says nothing that İYS's document does not have."""

    def test_known(self, document: Document) -> None:
        """The document is one whose changes were looked at. If not: review what changed, then add it to KNOWN."""
        assert KNOWN.get(document.digest) == document.content["info"]["version"]

    def test_errata(self, path: Path) -> None:
        """With all errata no example contradicts its schema, and without any one of them some do."""

        def contradictions(errata: list[Erratum]) -> list[str]:
            mended = Document.load(path, errata)
            there = [o for o in OPERATIONS if mended.has(o.method, o.path)]
            return [name for o in there for name in mended.contradictions(o.method, o.path)]

        assert contradictions(ERRATA) == []
        needed = [erratum for erratum in ERRATA if not erratum.only_ours]
        for index, erratum in enumerate(needed):
            assert contradictions(needed[:index] + needed[index + 1 :]), erratum.reason

    def test_operations(self, document: Document) -> None:
        """All that can be asked of the fake can be asked of İYS."""
        assert all(document.has(operation.method, operation.path) for operation in OPERATIONS)

    @pytest.mark.parametrize(
        "quirks",
        [
            {},
            {"odd_code_key": True, "codes_as_text": False, "subscription_id": "subscipritionId", "empty": "list"},
            {"captured_key": "aggrementCaptured", "subscription_id": "subsciprtionId", "cursor": "ms"},
        ],
    )
    def test_answers(
        self, document: Document, fake: FakeIys, asker: Asker, day: date, quirks: dict[str, object]
    ) -> None:
        """Each answer has a status that is listed, a body that the schema allows, and no key that nobody has seen."""
        fake.set_quirks(**quirks)
        with watching(fake) as seen:
            tour(fake, asker, day)
        assert {call.operation.name for call, _ in seen} == {operation.name for operation in OPERATIONS}
        wrong, unlisted = [], set()
        for call, answer in seen:
            name, method, path = call.operation.name, call.operation.method, call.operation.path
            if answer.status not in document.statuses(method, path):
                unlisted.add((name, answer.status))
            elif answer.content_type == JSON and answer.body:
                body = msgspec.json.decode(answer.body)
                found = document.wrong_in_answer(method, path, answer.status, body)
                wrong += [(name, answer.status, text) for text in found]
        assert wrong == []
        assert unlisted == NOT_LISTED.keys()
        assert document.codes.issuperset(code for _, answer in seen for code in re.findall(r"H[0-9]{3}", answer.code))

    def test_codes(self, document: Document) -> None:
        """The fake has no code that the document has not."""
        assert document.codes >= WORDS.keys()


class TestClient:
    """Our client asks as the document says, and reads what it shows."""

    def test_requests(self, document: Document, fake: FakeIys, day: date, tmp_path: Path) -> None:
        """Paths, parameters and bodies of all that the client asks are the document's."""
        fake.integrator(900_001, "partner", "secret", manages=[600_001])
        with watching(fake) as seen:
            for username in ("acme", "partner"):
                with _client(fake, username, tmp_path) as iys:
                    _ask_everything(iys, day, tmp_path)
        wrong = []
        for call, _ in seen:
            method, path = call.operation.method, call.operation.path
            wrong += document.wrong_in_query(method, path, call.query)
            if call.body:
                content_type = call.headers["content-type"].partition(";")[0]
                wrong += document.wrong_in_body(method, path, content_type, msgspec.json.decode(call.body))
        assert wrong == []
        unasked = {"provider", "status", "statuses", "history", "retailers"}
        assert {call.operation.name for call, _ in seen} == {o.name for o in OPERATIONS} - unasked

    def test_good_examples(self, document: Document) -> None:
        """Each good example is read as what it is."""
        day = date(2026, 1, 1)
        readers = {
            "token": decoding.grant_of,
            "brands": lambda answer: decoding.brands_of(answer, 1),
            "changes": decoding.page_of,
            "providers": decoding.listed_of,
            "provider": decoding.listed_of,
            "subscription": decoding.subscription_of,
            "integrator_subscription": decoding.subscription_of,
            "summary": lambda answer: decoding.summary_of(answer, RecipientType.BIREYSEL),
            "agreement": lambda answer: decoding.agreement_of(answer, day),
            "agree": decoding.agreed_of,
            "pushes": decoding.pushes_of,
        }
        read: dict[str, list[object]] = {}
        for operation in OPERATIONS:
            reader = readers.get(operation.name)
            for example in document.examples(operation.method, operation.path):
                if reader is not None and 200 <= example.status < 300:
                    read.setdefault(operation.name, []).append(reader(_received(example.status, example.value)))
        assert read.keys() == readers.keys()
        pages, summaries = read["changes"], read["summary"]
        assert all(isinstance(page, Page) and len(page.rows) == 2 and page.after for page in pages)
        assert "citizenName" not in str(pages)
        assert all(isinstance(line, SummaryLine) for lines in summaries for line in lines)  # type: ignore[attr-defined]
        assert all(isinstance(brand, ListedBrand) for brands in read["brands"] for brand in brands)  # type: ignore[attr-defined]
        assert read["agree"] == [True]

    def test_bad_examples(self, document: Document) -> None:
        """Each example of an error is a fault with that code, and is read as nothing else."""
        for operation in OPERATIONS:
            for example in document.examples(operation.method, operation.path):
                if example.status < 400:
                    continue
                body = msgspec.json.encode(example.value)
                codes = re.findall(rb"H[0-9]{3}", body)
                fault = fault_of("a thing", example.status, body)
                assert isinstance(fault, IysFault)
                assert fault.code.encode() == (codes[0] if codes else b"")
                with pytest.raises(IysFault):
                    decoding.page_of(_received(200, example.value))

    def test_codes(self, document: Document) -> None:
        """The loader knows no code that the document has not."""
        folder = Path(decoding.__file__).parent.parent
        known = {code for file in folder.rglob("*.py") for code in re.findall(r"\bH[0-9]{3}\b", file.read_text())}
        assert known
        assert known <= document.codes


def _received(status: int, value: object) -> Received:
    asked = Asked(at_s=0.0, ahead_s=None)
    return Received(status=status, content_type=JSON, body=msgspec.json.encode(value), asked=asked)


@contextmanager
def _client(fake: FakeIys, username: str, folder: Path) -> Iterator[Iys]:
    """Our client with the account of that name."""
    secret = folder / f"{username}.password"
    secret.touch(0o600)
    secret.write_text("secret")
    limits = Limits(folder)
    guard, pace = Guard(limits, fake.clock), Pace(limits, fake.clock)
    transport = Transport(fake.url, pace=pace, guard=guard, clock=fake.clock, stop=threading.Event())
    credentials = Credentials(name=username, username=username, password_file=secret)
    yield Iys(transport, Tokens(credentials, folder=folder, limits=limits, clock=fake.clock, transport=transport))
    transport.close()


def _ask_everything(iys: Iys, day: date, folder: Path) -> None:
    """Ask all that the client can, once; what is refused was asked all the same."""
    code, brand, url = 700_001, 600_001, "https://127.0.0.1:1"
    after = iys.changes(code, brand, FeedSource.HS, after=None, limit=1000).after
    iys.changes(code, brand, FeedSource.HS, after=after, limit=1)
    iys.summary(code, brand, day, RecipientType.TACIR)
    iys.agreement(code, brand, day)
    iys.agree(code, brand, day)
    iys.day_file(code, brand, day, folder / "day.csv")
    iys.timestamp(code, brand, day)
    iys.subscription(code)
    iys.pushes(code, brand)
    for ask in (
        lambda: iys.brands(code),
        lambda: iys.providers(900_001),
        lambda: iys.integrator_subscription(900_001),
        lambda: iys.register_push(code, brand, url, Channel.MESAJ, "a", "b"),
        lambda: iys.unregister_push(code, brand, url, Channel.MESAJ, "a", "b"),
    ):
        try:
            ask()
        except IysFault:
            continue
