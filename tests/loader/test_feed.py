import json
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck import address
from iyscheck.change import ConsentChange
from iyscheck.consent import Channel, RecipientType, Status
from iyscheck.times import local_seconds
from loader.reading.daily_csv import DailyCsv
from loader.reading.feed import Feed, Parsed
from loader.reading.json_lines import JsonLines
from loader.reading.rows import Format
from tests.builders import ADDRESS_KEY, NOW, STORE_KEY, a_brand, tag_of
from tests.dice import often
from tests.loader.feeds import brand_row, consent, lines, watermark_row
from tests.strategies import accepted_phones, emails


def parse(data: bytes, *, brand: int | None = None, form: Format | None = None, sequence: int = 0) -> Parsed:
    """Read a whole feed at NOW."""
    decoded = (form or JsonLines()).decode(data, first=True)
    return Feed(ADDRESS_KEY, STORE_KEY, brand=brand).parse(decoded, now_s=NOW, sequence=sequence)


def changes(parsed: Parsed) -> list[ConsentChange]:
    """Turn columns back into single changes, in the order of the feed."""
    found = [parsed.consents.change(at) for at in range(len(parsed.consents))]
    return sorted(found, key=lambda change: change.sequence)


def faults(parsed: Parsed) -> list[tuple[int, str, str]]:
    """Line from 0, field and reason of each reject."""
    return [(reject.line, reject.fault.field, reject.fault.reason.value) for reject in parsed.rejects]


def access_row(**fields: object) -> dict[str, object]:
    """Make a row about retailers only."""
    beside = dict.fromkeys(("status", "source", "consentDate", "transactionId"))
    return consent(**({"kind": "retailerAccess"} | beside | fields))


times = st.datetimes(
    min_value=datetime(1990, 1, 1),  # noqa: DTZ001 - İYS times have no zone
    max_value=datetime(2025, 12, 31),  # noqa: DTZ001 - İYS times have no zone
).map(lambda moment: str(moment.replace(microsecond=0)))


@st.composite
def valid_rows(draw: st.DrawFn) -> tuple[dict[str, object], ConsentChange]:
    """A row in any spelling that is accepted, and what it means."""
    channel = draw(st.sampled_from(Channel))
    recipient = draw(emails() if channel is Channel.EPOSTA else accepted_phones)
    kind = draw(st.sampled_from(RecipientType))
    status, meant = draw(
        st.sampled_from(
            [
                ("ONAY", Status.ONAY),
                ("RET", Status.RET),
                ("RED", Status.RET),
                ("onay ", Status.ONAY),
                ("", Status.UNKNOWN),
            ]
        )
    )
    registered = draw(times)
    may_lack_date = meant is not Status.ONAY or kind is RecipientType.TACIR
    earlier = times.map(lambda text: min(text, registered))
    consented = draw(earlier | (st.sampled_from([None, ""]) if may_lack_date else st.nothing()))
    source = draw(st.sampled_from(["HS_WEB", "X_NEW", "", "ğ" * 64, None]))
    transaction = draw(st.sampled_from([None, "", "ab" * 32, "x-1"]))
    brand = draw(st.integers(1, 2**32 - 1).filter(lambda code: code != 121212))
    row = {
        "brandCode": draw(st.sampled_from([brand, str(brand), f"0{brand}"[-10:] if brand < 10**9 else brand])),
        "recipient": recipient,
        "recipientType": kind.name,
        "type": channel.name,
        "status": status,
        "creationDate": registered + draw(st.sampled_from(["", ".5", ".123456789"])),
        "consentDate": consented,
        "source": source,
        "transactionId": transaction,
        "citizenName": draw(st.sampled_from([None, "A B"])),
        "iysCode": 1,
        "somethingNew": {"a": [1, None, "}\\n{"]},
    }
    dropped = {name: value for name, value in row.items() if value is not None or draw(st.booleans())}
    return dropped, ConsentChange(
        brand=brand,
        channel=channel,
        recipient_type=kind,
        tag=STORE_KEY.tags(address.tokens([recipient], channel, ADDRESS_KEY)).tobytes(),
        status=meant,
        registered=local_seconds(registered),
        consented=local_seconds(consented) if consented else 0,
        source=source or "",
        transaction_id=transaction or "",
        sequence=0,
    )


class TestValidRows:
    """İYS's own row, in every spelling that İYS and its partners use."""

    @given(st.lists(valid_rows(), max_size=12), st.integers(0, 10**12), st.booleans())
    @settings(max_examples=often(150), deadline=None)
    def test_meaning(self, pairs: list[tuple[dict[str, object], ConsentChange]], sequence: int, bom: bool) -> None:  # noqa: FBT001 - hypothesis passes by name
        """Each valid row becomes the change that it says, numbered by its place."""
        data = b"\xef\xbb\xbf" * bom + lines(row for row, _ in pairs)

        parsed = parse(data, sequence=sequence)

        meant = [change for _, change in pairs]
        got = changes(parsed)
        assert faults(parsed) == []
        assert [change.sequence for change in got] == [sequence + at + 1 for at in range(len(pairs))]
        assert [_without_sequence(change) for change in got] == [_without_sequence(change) for change in meant]

    @given(st.lists(valid_rows().map(lambda pair: pair[0]), min_size=1, max_size=8), st.data())
    @settings(max_examples=often(100), deadline=None)
    def test_neighbours(self, rows: list[dict[str, object]], data: st.DataObject) -> None:
        """Bad and blank lines among them change nothing for the others but their numbers."""
        noise = st.sampled_from([b"", b"  ", b"{", b"[]", b"{}{}", b"\xff", b'{"brandCode":1.5}', b"null", b"[" * 5000])
        mixed: list[dict[str, object] | bytes] = []
        for row in rows:
            mixed += data.draw(st.lists(noise, max_size=2))
            mixed.append(row)

        parsed = parse(lines(mixed))

        alone = parse(lines(rows))
        assert [_without_sequence(c) for c in changes(parsed)] == [_without_sequence(c) for c in changes(alone)]
        bad = [line for line in mixed if isinstance(line, bytes) and line.strip()]
        assert len(parsed.rejects) == len(bad)
        assert parsed.rows == len(rows) + len(bad)

    def test_crlf(self) -> None:
        """Lines may end as on Windows."""
        parsed = parse(lines([consent(), consent()]).replace(b"\n", b"\r\n"))

        assert len(parsed.consents) == 2


def _without_sequence(change: ConsentChange) -> tuple[object, ...]:
    return (change.brand, change.channel, change.recipient_type, change.tag, change.status, *change.precedence)


class TestRejects:
    """The first rule that a row breaks is the one it is rejected for; nothing else is lost with it."""

    @pytest.mark.parametrize(
        ("row", "field", "reason"),
        [
            (consent(kind="other"), "kind", "UNKNOWN_KIND"),
            (consent(None), "brandCode", "MISSING"),
            (consent(0), "brandCode", "INVALID"),
            (consent(2**32), "brandCode", "INVALID"),
            (consent("1x"), "brandCode", "INVALID"),
            (consent("9" * 5000), "brandCode", "INVALID"),
            (consent(True), "brandCode", "WRONG_TYPE"),
            (consent(recipientType="KURUMSAL"), "recipientType", "INVALID"),
            (consent(type=None), "type", "MISSING"),
            (consent(type="FAKS"), "type", "INVALID"),
            (consent(recipient=None), "recipient", "MISSING"),
            (consent(recipient="0"), "recipient", "INVALID_ADDRESS"),
            (consent(recipient="a@b.tr"), "recipient", "INVALID_ADDRESS"),
            (consent(type="EPOSTA"), "recipient", "INVALID_ADDRESS"),
            (consent(recipient=5), "recipient", "WRONG_TYPE"),
            (consent(recipientType=None), "recipientType", "MISSING"),
            (consent(recipientType=""), "recipientType", "MISSING"),
            (consent(recipient_type="TACIR"), "recipientType", "UNKNOWN_KEY"),
            (consent(list=[]), "list", "UNKNOWN_KEY"),
            (brand_row(Channels=["MESAJ"]), "channels", "UNKNOWN_KEY"),
            (brand_row(remark=""), "", "UNKNOWN_KEY"),
            (watermark_row(note=1), "", "UNKNOWN_KEY"),
            (access_row(status="RET"), "", "UNKNOWN_KEY"),
            (consent(creationDate=None), "creationDate", "MISSING"),
            (consent(creationDate="2025-02-30 00:00:00"), "creationDate", "INVALID"),
            (consent(creationDate="2026-01-01 03:10:01"), "creationDate", "AHEAD_OF_CLOCK"),
            (consent(consentDate=None), "consentDate", "MISSING"),
            (consent(consentDate="yesterday"), "consentDate", "INVALID"),
            (consent(consentDate="2025-06-01 12:10:01"), "consentDate", "INVALID"),
            (consent(source="x" * 65), "source", "INVALID"),
            (consent(source="a\tb"), "source", "INVALID"),
            (consent(source="😀" * 64), "source", "INVALID"),
            (consent(transactionId="x" * 65), "transactionId", "INVALID"),
            (consent(transactionId="ı"), "transactionId", "INVALID"),
            (consent(retailerAccess=[0]), "retailerAccess", "INVALID"),
            (consent(retailerAccess=list(range(1, 3002))), "retailerAccess", "INVALID"),
            (consent(retailerAccess=[1.5]), "retailerAccess", "INVALID"),
            (access_row(), "retailerAccess", "MISSING"),
            (access_row(retailerAccess="1"), "retailerAccess", "INVALID"),
            (brand_row(iysCode=None), "iysCode", "INVALID"),
            (brand_row(active=None), "active", "MISSING"),
            (brand_row(active="yes"), "active", "WRONG_TYPE"),
            (brand_row(channels=["FAKS"]), "channels", "INVALID"),
            (brand_row(legacyDeadline="never"), "legacyDeadline", "INVALID"),
            (brand_row(creationDate="2099-01-01 00:00:00"), "creationDate", "AHEAD_OF_CLOCK"),
            (watermark_row("2026-01-01 03:05:01"), "completeUntil", "AHEAD_OF_CLOCK"),
            (watermark_row("1970-01-01 00:00:01"), "completeUntil", "INVALID"),
            (watermark_row(completeUntil=None), "completeUntil", "MISSING"),
            (b"[]", "", "MALFORMED"),
            (b'{"a":1}{"a":2}', "", "MALFORMED"),
            (b'{"recipient":"\xff"}', "", "MALFORMED"),
            (b'{"z":"' + b"x" * 2**20 + b'"}', "", "LINE_TOO_LONG"),
        ],
    )
    def test_first_fault(self, row: dict[str, object] | bytes, field: str, reason: str) -> None:
        """A bad row is rejected for its fault, and its neighbours are loaded."""
        parsed = parse(lines([consent(), row, consent()]))

        assert faults(parsed) == [(1, field, reason)]
        assert parsed.consents.sequence.tolist() == [1, 3]

    @pytest.mark.parametrize(
        "row",
        [
            consent(creationDate="2026-01-01 03:10:00"),
            consent(brand="7"),
            consent(consentDate="2025-06-01 12:10:00"),
            consent(status="RET", consentDate=None),
            consent(status=None),
            consent(status=""),
            consent(status=5),
            consent(recipientType="TACIR", consentDate=None),
            watermark_row("2026-01-01 03:05:00"),
            consent(retailerAccess=list(range(1, 3001))),
        ],
    )
    def test_just_right(self, row: dict[str, object]) -> None:
        """What lies on the right side of a limit is loaded."""
        assert faults(parse(lines([row]))) == []

    def test_given_brand(self) -> None:
        """--brand stands for a missing brandCode, and rejects another one for both brands."""
        parsed = parse(lines([consent(None), consent(2), consent(3), b"{"]), brand=2)

        assert parsed.consents.brand.tolist() == [2, 2]
        assert [(reject.line, reject.fault.reason, reject.brands) for reject in parsed.rejects] == [
            (2, "CONFLICT", (2, 3)),
            (3, "MALFORMED", (2,)),
        ]

    def test_unreadable_brand(self) -> None:
        """A reject whose brand cannot be read names none."""
        parsed = parse(lines([consent("x"), consent(5, "nobody"), b'{"brandCode":6,"status":1}', b"{"]))

        assert [reject.brands for reject in parsed.rejects] == [(), (5,), (6,), ()]

    def test_test_brand(self) -> None:
        """İYS's test brand is skipped, whatever else its rows hold."""
        parsed = parse(lines([consent(121212), consent("121212", "?"), b'{"brandCode":121212,"status":1}', consent()]))

        assert (parsed.skipped, len(parsed.consents), faults(parsed)) == (3, 1, [])
        assert parsed.brands_seen == {1}

    @given(st.binary(max_size=300) | st.lists(st.binary(max_size=60), max_size=5).map(b"\n".join))
    @settings(max_examples=often(300), deadline=None)
    def test_any_bytes(self, data: bytes) -> None:
        """Bytes of any kind become rejects or rows, and nothing is raised."""
        for form in (JsonLines(), DailyCsv(("creationDate", "recipient", "type", "status"))):
            parsed = parse(data, form=form)

            assert len(parsed.consents) + len(parsed.rejects) + parsed.skipped <= parsed.rows

    @given(
        st.dictionaries(
            st.sampled_from(list(consent(retailerAccess=1, kind=1, completeUntil=1, iysCode=1, channels=1, active=1))),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
                max_leaves=4,
            )
            | st.sampled_from(["brand", "watermark", "retailerAccess", "MESAJ", "ONAY", "+905321000001"]),
        )
    )
    @settings(max_examples=often(300), deadline=None)
    def test_any_values(self, values: dict[str, Any]) -> None:
        """Fields of any JSON type become rejects or rows, and no message holds their content."""
        parsed = parse(json.dumps(consent(**values)).encode())

        assert parsed.rows == 1
        assert all("+90" not in reject.fault.message for reject in parsed.rejects)


class TestChunks:
    """Where a feed is cut into chunks changes nothing."""

    @given(
        st.lists(
            st.sampled_from(
                [
                    lines([consent()]),
                    b"\n",
                    b"{}\n",
                    b"{}{}\n",
                    b'{"brandCode":\n1}\n',
                    b"{}\r\n",
                    b" {}\n",
                    b'{"a":"}\n{"}\n',
                ]
            ),
            min_size=1,
            max_size=6,
        )
    )
    @settings(max_examples=often(200), deadline=None)
    def test_each_line_alone(self, parts: list[bytes]) -> None:
        """A chunk gives the changes and rejects that its lines give one by one."""
        data = b"".join(parts)
        whole = parse(data)

        alone = [parse(line + b"\n") for line in data.split(b"\n")[:-1]]
        assert whole.rows == sum(one.rows for one in alone)
        assert faults(whole) == [(at, f, r) for at, one in enumerate(alone) for _, f, r in faults(one)]
        assert len(whole.consents) == sum(len(one.consents) for one in alone)


class TestOtherKinds:
    """Brands, retailers and watermarks."""

    def test_brand(self) -> None:
        """A brand row registers its brand, with all channels unless it names some."""
        rows = [brand_row(), brand_row(2, channels=["MESAJ"], active=False, legacyDeadline="over-150k", iysCode="7")]

        parsed = parse(lines(rows))

        registered = local_seconds("2020-06-01 00:00:00")
        assert parsed.brands == [
            a_brand(1, registered=registered),
            a_brand(2, registered=registered, channels=[Channel.MESAJ], active=False, legacy_deadline=2, iys_code=7),
        ]

    def test_retailers(self) -> None:
        """Lists come with consents or alone; null leaves the register alone, an empty list allows nobody."""
        rows: list[dict[str, object] | bytes] = [
            consent(retailerAccess=[5, "6"]),
            access_row(retailerAccess=[]),
            b'{"retailerAccess":null,' + json.dumps(consent()).encode()[1:],
        ]

        parsed = parse(lines(rows))

        assert [access.retailers for access in parsed.access] == [{5, 6}, frozenset()]
        assert all(access.tag == tag_of("+905321000001", Channel.MESAJ) for access in parsed.access)
        assert len(parsed.consents) == 2

    def test_watermarks(self) -> None:
        """A watermark row is about its brand, else that of --brand, else all."""
        rows = lines([watermark_row(), watermark_row(brandCode=5)])

        assert parse(rows).watermarks == [(0, NOW), (5, NOW)]
        assert parse(lines([watermark_row()]), brand=9).watermarks == [(9, NOW)]


class TestCsv:
    """The daily file."""

    ROW = "2025-06-01 12:00:00,abc,+905321000001,BIREYSEL,MESAJ,ONAY,2025-05-31 09:30:00,HS_WEB\n"
    HEADER = "creationDate,transactionId,recipient,recipientType,type,status,consentDate,source\n"

    @pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
    @pytest.mark.parametrize("header", ["", HEADER])
    def test_same_as_json(self, header: str, bom: bytes) -> None:
        """A line means what the JSON row of the same fields means; header and BOM are optional."""
        data = bom + (header + self.ROW).encode()

        parsed = parse(data, brand=1, form=DailyCsv.starting(data))

        assert changes(parsed) == changes(parse(lines([consent(transactionId="abc")])))

    def test_other_order(self) -> None:
        """A header may name the columns in any order, and others beside them."""
        data = (
            b"type,status,new,recipient,recipientType,consentDate,creationDate\n"
            b"MESAJ,RET,x,+905321000001,TACIR,,2025-06-01 12:00:00\n"
        )

        (change,) = changes(parse(data, brand=1, form=DailyCsv.starting(data)))

        assert (change.status, change.consented, change.source) == (Status.RET, 0, "")

    @pytest.mark.parametrize("line", ["a,b\n", ROW.replace("\n", ",x\n"), '"' + ROW, "\udcff,,,,,,,\n"])
    def test_bad_lines(self, line: str) -> None:
        """A line with too few or many cells, open quotes or bytes that are not UTF-8 is rejected alone."""
        data = (self.ROW + line + self.ROW).encode("utf-8", "surrogateescape")

        parsed = parse(data, brand=1, form=DailyCsv.starting(b""))

        assert faults(parsed) == [(1, "", "MALFORMED")]
        assert np.array_equal(parsed.consents.sequence, [1, 3])

    def test_empty_type(self) -> None:
        """An empty recipientType is a missing one, for which nothing stands."""
        parsed = parse(self.ROW.replace("BIREYSEL", "").encode(), brand=1, form=DailyCsv.starting(b""))

        assert faults(parsed) == [(0, "recipientType", "MISSING")]
