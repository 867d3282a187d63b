"""Files as people really have them: what is loaded, rejected or refused, and what a check answers afterwards.

No spelling of a refusal may turn it into a permission. The files in `cases` are made up.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.consent import Channel, Policy, Reason, RecipientType, permits
from iyscheck.engine import Engine
from iyscheck.errors import SourceUnreadableError
from iyscheck.question import Context, Question
from iyscheck.store.snapshot import Store
from loader.loading.progress import Report
from loader.reading import times
from loader.reading import vocabulary as names
from loader.reading.feed import Feed, Parsed
from loader.reading.json_lines import JsonLines
from loader.sources.files.opening import format_of
from loader.sources.files.source import source_name
from tests.builders import ADDRESS_KEY, STORE_KEY
from tests.loader.feeds import Desk, lines

CASES = Path(__file__).parent / "cases"
CLOCK = times.watermark("2026-11-28 12:00:00")
BRAND = 600123
INDIVIDUAL, MERCHANT = RecipientType.BIREYSEL, RecipientType.TACIR
STRANGER = "+905329999999"
STALE = Reason.DATA_STALE


class Wild(Desk):
    """A store that knows the brands of the cases and no watermark yet."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.load(str(CASES / "00-brands.jsonl"), now=CLOCK)

    def case(self, name: str, *, brand: int | None = BRAND) -> Report:
        """Load a case as the last file, after which all is complete until now."""
        return self.load(str(CASES / name), now=CLOCK, brand=brand, watermarks=((0, CLOCK),))

    def bytes(self, name: str, data: bytes, *, brand: int | None = BRAND) -> Report:
        """Load what a case would be."""
        (self.path / name).write_bytes(data)
        return self.load(str(self.path / name), now=CLOCK, brand=brand, watermarks=((0, CLOCK),))

    def accept(self, path: Path) -> None:
        """Accept the rejects of a file, as `accept-rejects` does."""
        with self.writer() as writer:
            writer.accept_rejects(source_name(str(path)))

    def answers(self, recipients: Iterable[str], kind: RecipientType = INDIVIDUAL) -> list[int]:
        """Ask whether a commercial text message may go to each of these."""
        asked = Context(brand=BRAND, channel=Channel.MESAJ, recipient_type=kind)
        with (
            Store.open(self.store) as store,
            Engine(
                store,
                store_key=STORE_KEY,
                address_key=ADDRESS_KEY,
                policy=Policy(),
                answer_ttl_s=300,
                clock=lambda: CLOCK,
            ) as engine,
        ):
            found: list[int] = engine.check_column(asked, addresses=list(recipients)).reasons.tolist()
            first = engine.check(Question(context=asked, address=next(iter(recipients))))
        assert found[0] == first.reason
        return found

    def reasons(self) -> list[tuple[object, object, object]]:
        """Line, field and reason of all rejects."""
        return [(entry["line"], entry["field"], entry["reason"]) for entry in self.rejected()]


@pytest.fixture
def wild(tmp_path: Path) -> Wild:
    """A store of brands."""
    return Wild(tmp_path)


def number(last: int) -> str:
    """Return the recipient of a case by its last digits."""
    return f"+90532999{last:04}"


class TestLoaded:
    """What can be read without a guess is."""

    @pytest.mark.parametrize("name", ["F01-changes-page.json", "F01b-changes-page-pretty.json"])
    def test_page(self, wild: Wild, name: str) -> None:
        """A page of the changes feed is loaded as received, on one line or on many."""
        report = wild.case(name)

        assert (report.read, report.applied, report.rejected, report.withheld) == (2, 2, 0, {})
        assert wild.answers([number(1), number(2)]) == [Reason.REFUSED, Reason.CONSENTED]

    def test_page_without_brand(self, wild: Wild) -> None:
        """Of a page nobody says the brand of, the refusals hold every watermark back."""
        report = wild.case("F01-changes-page.json", brand=None)

        assert wild.reasons() == [(1, "brandCode", "MISSING"), (2, "brandCode", "MISSING")]
        assert set(report.withheld) == {BRAND, BRAND + 1}
        assert wild.answers([number(1), number(2)]) == [STALE, STALE]

    def test_push(self, wild: Wild) -> None:
        """A push body is loaded as received, and knows its brand."""
        assert wild.case("F02-push-body.jsonl", brand=None).applied == 1
        assert wild.answers([number(3)]) == [Reason.REFUSED]

    def test_push_test(self, wild: Wild) -> None:
        """The body by which İYS tests a push address is skipped, and holds nothing back."""
        report = wild.case("F02b-push-test-body.jsonl", brand=None)

        assert (report.skipped, report.rejected, report.withheld) == (1, 0, {})
        assert report.watermarks == {BRAND: CLOCK, BRAND + 1: CLOCK}

    @pytest.mark.parametrize("name", ["F08-excel-tr-semicolon.csv", "F08b-sep-line.csv"])
    @pytest.mark.parametrize("delimiter", [b";", b"\t"])
    def test_spreadsheet(self, wild: Wild, name: str, delimiter: bytes) -> None:
        """What a Turkish Excel saves is a daily file: semicolons or tabs, CRLF, a mark, its own first line."""
        data = (CASES / name).read_bytes().replace(b";", delimiter)

        report = wild.bytes("a.csv", data)

        assert (report.read, report.applied, report.rejected) == (3, 3, 0)
        assert wild.answers([number(20), number(21)]) == [Reason.CONSENTED, Reason.REFUSED]
        assert wild.answers([number(22), STRANGER], MERCHANT) == [Reason.REFUSED, Reason.MERCHANT_NOT_REFUSED]

    def test_null_word(self, wild: Wild) -> None:
        """A refusal whose consentDate is no time still refuses."""
        report = wild.case("F14-null-word.csv")

        assert (report.read, report.rejected, report.mended) == (2, 0, 1)
        assert wild.answers([number(32)], MERCHANT) == [Reason.REFUSED]
        assert wild.answers([number(33)]) == [Reason.CONSENTED]

    def test_blank_lines(self, wild: Wild) -> None:
        """Blank lines and a header once more are no rows."""
        report = wild.case("F37-blank-lines-header-again.csv")

        assert (report.read, report.applied, report.rejected) == (2, 2, 0)
        assert wild.answers(["+905329991401", "+905329991402"]) == [Reason.CONSENTED, Reason.REFUSED]

    def test_padded(self, wild: Wild) -> None:
        """Blanks around cells and names of columns say nothing."""
        assert wild.case("F39-padded.csv").applied == 1
        assert wild.answers(["+905329991601"]) == [Reason.REFUSED]


class TestRejected:
    """What cannot be read holds its brand back until somebody accepts that it is lost."""

    def test_names(self, wild: Wild) -> None:
        """A misspelt, absent or null recipientType leaves nothing to stand in its place."""
        report = wild.case("F06-recipient_type-key.jsonl", brand=None)

        assert wild.reasons() == [
            *((line, "recipientType", "UNKNOWN_KEY") for line in (1, 2, 3)),
            *((line, "recipientType", "MISSING") for line in (4, 5)),
        ]
        assert report.withheld == {BRAND: CLOCK}
        merchants = [number(last) for last in range(12, 17)]
        assert wild.answers(merchants, MERCHANT) == [STALE] * 5

    def test_future(self, wild: Wild) -> None:
        """A consent of the future is none, nor is one that was given after it was registered."""
        report = wild.case("F29-future.jsonl")

        assert wild.reasons() == [
            (1, "creationDate", "AHEAD_OF_CLOCK"),
            (2, "consentDate", "INVALID"),
            (3, "consentDate", "INVALID"),
        ]
        assert report.withheld == {BRAND: CLOCK}
        wild.accept(CASES / "F29-future.jsonl")
        assert wild.answers([number(last) for last in (88, 89, 90)]) == [Reason.NO_CONSENT] * 3

    def test_calendar(self, wild: Wild) -> None:
        """An ONAY needs times of the calendar; of a refusal an odd consentDate is beside the point."""
        report = wild.case("F30-odd-calendar.jsonl")

        assert wild.reasons() == [(2, "creationDate", "INVALID"), (3, "creationDate", "INVALID")]
        assert report.mended > 0
        wild.accept(CASES / "F30-odd-calendar.jsonl")
        refused = [number(last) for last in (95, 96, 97)]
        assert wild.answers(refused) == [Reason.REFUSED] * 3
        assert wild.answers([number(98)], MERCHANT) == [Reason.REFUSED]
        assert wild.answers([number(91), number(92), number(93)]) == [
            Reason.CONSENTED,
            Reason.NO_CONSENT,
            Reason.NO_CONSENT,
        ]


class TestRefused:
    """What cannot be read at all is one error for the file, which says what it is."""

    @pytest.mark.parametrize(
        ("name", "sentence"),
        [
            ("F06b-recipient_type-header.csv", "nearly 'recipientType' and not quite"),
            ("F06c-no-recipientType-column.csv", "lacks recipientType"),
            ("F09-utf16.csv", "is UTF-16 text, .* iconv -f UTF-16 -t UTF-8"),
            ("F11c-zip-named.csv", "is an Excel workbook .*CSV UTF-8"),
            ("F13b-lowercase-header-swapped-dates.csv", "nearly 'consentDate' and not quite"),
        ],
    )
    def test_whole(self, wild: Wild, name: str, sentence: str) -> None:
        """Nothing of the file is loaded, and no watermark moves."""
        with pytest.raises(SourceUnreadableError, match=sentence):
            wild.case(name)

        assert wild.watermarks() == {}
        assert wild.rejected() == []
        assert wild.answers([STRANGER, number(17), number(18)], MERCHANT) == [STALE] * 3

    @pytest.mark.parametrize("end", ["\r", "\v", "\x85", " ", ",", ",\r", ";"])
    def test_rows_in_header(self, wild: Wild, end: str) -> None:
        """A header whose line end is missing, or none that we know, holds a row that would be lost."""
        header = ",".join(names.CSV_COLUMNS)
        row = f"2026-11-20 10:05:00,01,{number(31)},BIREYSEL,MESAJ,RET,2026-11-20 10:00:00,HS_WEB"
        delimiter = ";" if end == ";" else ","
        text = f"{header}{end if end != ';' else chr(13)}{row}{chr(13)}\n".replace(",", delimiter)

        with pytest.raises(SourceUnreadableError, match="has the content of a row in it"):
            wild.bytes("glued.csv", text.encode())

        assert wild.watermarks() == {}

    def test_swapped_dates(self, wild: Wild) -> None:
        """With its header mended, the refusal of a file whose dates stand in another order wins over the consent."""
        wild.case("F13b0-older-consent.jsonl", brand=None)
        data = (CASES / "F13b-lowercase-header-swapped-dates.csv").read_bytes()
        for name in names.CSV_COLUMNS:
            data = data.replace(name.lower().encode(), name.encode(), 1)

        wild.bytes("mended.csv", data)

        assert wild.answers([number(31)]) == [Reason.REFUSED]


class TestBesideThePoint:
    """A refusal counts without what is beside the point, also where that is misspelt; a consent does not."""

    @pytest.mark.parametrize("right", names.BESIDE_THE_POINT)
    def test_misspelt(self, wild: Wild, right: str) -> None:
        """The refusal is stored and counted as mended; the consent is a reject."""
        slip = re.sub("([A-Z])", r"_\1", right).lower() if right != "source" else "Source"
        row = {key: value for key, value in REFUSAL.items() if key != right} | {slip: REFUSAL[right]}
        people = [number(70), number(71)]

        report = wild.bytes(
            "slips.jsonl",
            lines([row | {"recipient": people[0]}, row | {"recipient": people[1], "status": "ONAY"}]),
        )

        assert (report.mended, report.rejected) == (1, 1)
        wild.accept(wild.path / "slips.jsonl")
        assert wild.answers(people, MERCHANT) == [Reason.REFUSED, Reason.MERCHANT_NOT_REFUSED]

    def test_other_kinds(self, wild: Wild) -> None:
        """Of a row of retailer access nothing is beside the point: a slip of its list is a reject."""
        row = {key: REFUSAL[key] for key in names.FIELDS[names.Kind.RETAILER_ACCESS]}
        row |= {"kind": "retailerAccess", "recipient": number(74), "RetailerAccess": []}

        report = wild.bytes("access.jsonl", lines([row]))

        assert (report.mended, report.rejected) == (0, 1)

    @pytest.mark.parametrize("order", [1, -1])
    def test_brand_too(self, wild: Wild, order: int) -> None:
        """A slip that is not beside the point is seen whatever else is misspelt, and whatever comes first."""
        keys = {"consent_date": "x", "BrandCode": BRAND + 1}
        row = REFUSAL | {"recipient": number(72)} | dict([*keys.items()][::order])

        report = wild.bytes("two.jsonl", lines([row]))

        assert report.rejected == 1

    def test_brand_of_test(self, wild: Wild) -> None:
        """A row of İYS's own test brand is skipped, but not where another key may name its brand."""
        row = REFUSAL | {"brandCode": names.TEST_BRAND, "recipient": number(73)}

        report = wild.bytes("test.jsonl", lines([row, row | {"BrandCode": BRAND}]))

        assert (report.skipped, report.rejected) == (1, 1)


# --- Damage -----------------------------------------------------------------------------------------------

LETTERS = 'aeyTD_- 0ıİ"\\,;'
REFUSAL: dict[str, object] = {
    "kind": "consent",
    "brandCode": BRAND,
    "recipient": "",
    "recipientType": "TACIR",
    "type": "MESAJ",
    "status": "RET",
    "source": "HS_WEB",
    "consentDate": "2026-11-20 10:00:00",
    "creationDate": "2026-11-20 10:05:00",
    "transactionId": "ab" * 32,
    "retailerAccess": [7],
    "iysCode": BRAND,
}
CSV_CELLS = "2026-11-20 10:05:00,,+905329990000,TACIR,MESAJ,RET,2026-11-20 10:00:00,HS_WEB"


def damages(name: str) -> list[str]:
    """Return a name with one letter more, less, other, or two swapped."""
    found = {name[:at] + name[at + 1 :] for at in range(len(name))}
    found |= {name[:at] + name[at + 1] + name[at] + name[at + 2 :] for at in range(len(name) - 1)}
    found |= {name[:at] + letter + name[at:] for at in range(len(name) + 1) for letter in LETTERS}
    found |= {name[:at] + letter + name[at + 1 :] for at in range(len(name)) for letter in LETTERS}
    found |= {name[:at] + name[at].swapcase() + name[at + 1 :] for at in range(len(name))}
    return sorted(found - {name})


def parsed(form: object, data: bytes, *, brand: int | None) -> Parsed:
    """Read a whole feed."""
    decoded = form.decode(data, first=True)  # type: ignore[attr-defined] # a Format
    return Feed(ADDRESS_KEY, STORE_KEY, brand=brand).parse(decoded, now_s=CLOCK, sequence=0)


def holds(result: Parsed) -> bool:
    """Say whether a single row that was rejected holds its brand's watermark back."""
    return len(result.rejects) == 1 and (not result.rejects[0].brands or BRAND in result.rejects[0].brands)


class TestDamagedNames:
    """One wrong character in a name never changes a denial into a permission."""

    def test_keys(self, wild: Wild) -> None:
        """Each row with a damaged key still refuses, or is rejected and holds its brand back."""
        damaged: list[tuple[str, bytes]] = []
        for key in REFUSAL:
            for other in damages(key):
                row = REFUSAL | {"recipient": number(0)[:-5] + f"{len(damaged):05}"}
                damaged.append((str(row["recipient"]), json.dumps(row).replace(f'"{key}"', f'"{other}"', 1).encode()))
        path = wild.path / "damaged"

        report = wild.bytes("damaged", lines([REFUSAL | {"recipient": STRANGER}, *(line for _, line in damaged)]))

        rejected = {entry["line"] for entry in wild.rejected()}
        loaded = [recipient for at, (recipient, _) in enumerate(damaged) if at + 2 not in rejected]
        lost = [line for at, (_, line) in enumerate(damaged) if at + 2 in rejected]
        assert report.withheld[BRAND] == CLOCK
        assert len(lost) > len(loaded) > 0
        rejects = parsed(JsonLines(), b"\n".join(lost), brand=None).rejects
        assert len(rejects) == len(lost)
        assert all(not reject.brands or BRAND in reject.brands for reject in rejects)
        wild.accept(path)
        assert wild.answers([STRANGER[:-1] + "0"], MERCHANT) == [Reason.MERCHANT_NOT_REFUSED]
        # Where a damaged `status` resembles nothing any more, the row has none: that denies too.
        assert set(wild.answers(loaded, MERCHANT)) <= {Reason.REFUSED, Reason.STATUS_UNKNOWN}

    def test_columns(self, tmp_path: Path) -> None:
        """Each daily file with a damaged header is refused whole, or its row refuses or holds the brand back."""
        refused = wrong = 0
        for name in names.CSV_COLUMNS:
            for other in damages(name):
                header = ",".join(other if each == name else each for each in names.CSV_COLUMNS)
                data = f"{header}\n{CSV_CELLS}\n".encode()
                try:
                    form = format_of(str(tmp_path / "a.csv"), data)
                    found = parsed(form, data, brand=BRAND)
                except SourceUnreadableError:
                    refused += 1
                    continue
                told = found.consents.status.tolist() == [2] and found.consents.recipient_type.tolist() == [2]
                wrong += not (told or holds(found))
        assert refused > 1000
        assert wrong == 0

    @pytest.mark.parametrize("name", names.CSV_COLUMNS)
    def test_loaded_columns(self, wild: Wild, name: str) -> None:
        """What the loader and a check make of some of these."""
        for at, other in enumerate((name.upper(), name[1:], name + "_", name[:-2] + name[-1] + name[-2])):
            data = f"{','.join(names.CSV_COLUMNS).replace(name, other, 1)}\n{CSV_CELLS}\n".encode()

            with pytest.raises(SourceUnreadableError, match="header"):
                wild.bytes(f"{at}.csv", data)
        assert not permits(wild.answers([number(0)], MERCHANT)[0])


# --- Side fields ------------------------------------------------------------------------------------------

SIDE_FIELDS = ("consentDate", "source", "transactionId", "retailerAccess")
ODD: tuple[object, ...] = (
    *(None, "", " ", "NULL", "null", "0000-00-00", "0001-01-01 00:00:00", "2062-05-02 10:00:00", "9" * 300),
    *("IYS_WEB", "iys_web", "\x00", "\ud800", "a\tb", "ğ" * 65, "😀" * 64),
    *(0, -1, 1.5, 1e300, float("nan"), float("inf"), True, False, 2**70),
    *([], [0], ["x"], [None], [1.5], [[1]], list(range(1, 3002)), {}, {"status": "ONAY"}, {"list": []}),
)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=70) | st.sampled_from(ODD),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def refusals_deny(wild: Wild, fields: list[dict[str, object]]) -> None:
    """Load a refusal with each of these side fields, accept whatever was rejected, and ask for each."""
    rows = [REFUSAL | side | {"recipient": number(at)} for at, side in enumerate(fields)]
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)

    report = wild.bytes("side", data)
    if report.rejected:
        wild.accept(wild.path / "side")

    assert wild.answers([number(at) for at in range(len(rows))], MERCHANT) == [Reason.REFUSED] * len(rows)


class TestSideFields:
    """Whatever stands beside a refusal, it refuses."""

    def test_odd_values(self, wild: Wild) -> None:
        """Each odd value in each side field."""
        refusals_deny(wild, [{name: value} for name in SIDE_FIELDS for value in ODD])

    @given(st.lists(st.dictionaries(st.sampled_from(SIDE_FIELDS), any_json), min_size=10, max_size=40))
    @settings(max_examples=6, deadline=None)
    def test_any_value(self, tmp_path_factory: pytest.TempPathFactory, fields: list[dict[str, object]]) -> None:
        """Any JSON value in any of them, after `accept-rejects` too."""
        refusals_deny(Wild(tmp_path_factory.mktemp("wild")), fields)
