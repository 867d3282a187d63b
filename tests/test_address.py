"""The laws of address form 2, for single addresses and for columns."""

import hashlib
import string

import numpy as np
import numpy.typing as npt
import phonenumbers
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from iyscheck.address import (
    UNREADABLE,
    TextColumn,
    Unreadable,
    block,
    blocks,
    canonical,
    readable,
    token,
    tokens,
    why_unreadable,
)
from iyscheck.address.countries import COUNTRY_CODES
from iyscheck.consent import Channel
from iyscheck.kernel import Kernel
from iyscheck.keys import AddressKey
from tests.dice import often
from tests.strategies import (
    accepted_phones,
    addresses,
    any_text,
    channels,
    emails,
    foreign_numbers,
    national_numbers,
    near_emails,
    near_phones,
    phone_channels,
    turkish_spellings,
)

KEY = AddressKey(bytes(range(32)))
both_kernels = pytest.mark.parametrize("kernel", Kernel)
DIGITS = frozenset(string.digits)
LOCAL = frozenset(string.ascii_lowercase + string.digits + "._+-")
LABEL = frozenset(string.ascii_lowercase + string.digits + "_-")
LIVE_CODES = ["212", "232", "312", "501", "505", "532", "542", "555", "800", "850", "900"]
"""Area, operator and service codes whose every number libphonenumber takes for valid."""

raw_texts = st.binary(max_size=20) | (accepted_phones | emails()).map(str.encode)
raw_buffers = st.lists(raw_texts | st.sampled_from([b":\x0d", b":\x80\x01", b" "]), max_size=8).map(b"".join)


CODES_TEXT = """
1 7 20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 64 65 66 81 82 84
86 91 92 93 94 95 98 211 212 213 216 218 220 221 222 223 224 225 226 227 228 229 230 231 232 233 234 235 236 237
238 239 240 241 242 243 244 245 246 247 248 249 250 251 252 253 254 255 256 257 258 260 261 262 263 264 265 266
267 268 269 290 291 297 298 299 350 351 352 353 354 355 356 357 358 359 370 371 372 373 374 375 376 377 378 380
381 382 383 385 386 387 389 420 421 423 500 501 502 503 504 505 506 507 508 509 590 591 592 593 594 595 596 597
598 599 670 672 673 674 675 676 677 678 679 680 681 682 683 685 686 687 688 689 690 691 692 800 808 850 852 853
855 856 870 878 880 881 882 883 886 888 960 961 962 963 964 965 966 967 968 970 971 972 973 974 975 976 977 979
992 993 994 995 996 998
"""
CODES = frozenset(CODES_TEXT.split())
"""The country codes once more, but for Türkiye's."""


TRUNK_DIGITS = [
    ("1", "1", 7),
    ("7", "8", 12),
    ("52", "1", 13),
    ("54", "123", 14),
    ("55", "9", 14),
    ("61", "1", 13),
    ("86", "1", 14),
    ("241", "0", 12),
    ("298", "1", 10),
    ("352", "1", 7),
    ("370", "8", 12),
    ("375", "8", 13),
    ("423", "1", 11),
    ("506", "1", 12),
    ("692", "1", 11),
    ("993", "8", 12),
]
"""What is dialled behind a country code at home, and from how many digits on, once more."""


def trimmed(text: str) -> str:
    """Without white space and one byte order mark at each end."""
    white = " \t\n\r\v\f"
    return text.strip(white).removeprefix("\ufeff").removesuffix("\ufeff").strip(white)


def reference_phone(text: str) -> str | None:
    """The phone grammar once more, read off the document step by step."""
    text = trimmed(text)
    kept = "".join(character for character in text if character not in " -.()")
    if len(kept) in (10, 11) and kept[-10:-4] == "900444" and kept[:-10] in ("", "0"):
        return None
    for size, begins in ((10, tuple("23456789")), (7, ("444",))):
        for prefix in ("+900", "+90", "00900", "0090", "0900", "090", "900", "90", "0", ""):
            number = kept.removeprefix(prefix)
            whole = kept.startswith(prefix) and len(number) == size and DIGITS.issuperset(number)
            if whole and number.startswith(begins):
                return "+90" + number
    number = kept[1:] if kept.startswith("+") else kept[2:] if kept.startswith("00") else ""
    groups = "".join(c if c in DIGITS else " " for c in text).split()
    code = next((number[:size] for size in (1, 2, 3) if number[:size] in CODES), None)
    if not 7 <= len(number) <= 15 or not DIGITS.issuperset(number) or code is None or set("()") & set(text):
        return None
    behind = number[len(code) :]
    refused = (
        (behind.startswith("0") and code not in {"39", "225", "241", "242", "378"})
        or any(code == each and behind[0] in digits and len(number) >= size for each, digits, size in TRUNK_DIGITS)
        or (len(number) == 10 and number.startswith("5"))
        or len(groups[-1]) == 1
        or any(len(group) >= 6 for group in groups[:-1])
    )
    return None if refused else "+" + number


def reference_email(text: str) -> str | None:
    """The e-mail grammar once more, read off the document step by step."""
    text = trimmed(text)
    text = "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in text)
    local, _, domain = text.partition("@")
    labels = domain.split(".")
    right = (
        6 <= len(text) <= 265
        and local
        and LOCAL.issuperset(local)
        and len(labels) >= 2
        and all(label and LABEL.issuperset(label) for label in labels)
        and len(".".join(labels[:-1])) >= 2
        and len(labels[-1]) >= 2
        and labels[-1][0] in string.ascii_lowercase
    )
    return text if right else None


def reference(text: str, channel: Channel) -> str | None:
    """Both grammars by channel."""
    return reference_email(text) if channel is Channel.EPOSTA else reference_phone(text)


class TestGolden:
    """Bytes that stores and gateways rely on.

    Blocks are written out by hand (ASCII and zeros) or are SHA-256 of the text as `sha256sum` prints it with 0x80
    set in the first byte; tokens were made from them with `openssl enc -aes-256-ecb -nopad` under the key of bytes
    0 to 31, and XOR.
    """

    @pytest.mark.parametrize(
        ("spelling", "channel", "expected_block", "expected_token"),
        [
            (
                "0 (599) 200-00.00",
                Channel.MESAJ,
                "2b393035393932303030303030000000",
                "97fb6553862edc58247dd6e3b3fc341c",
            ),
            (
                "+9002121230000",
                Channel.ARAMA,
                "2b393032313231323330303030000000",
                "4fa58eec38bbf19aff086f03ea47c9cb",
            ),
            (
                "00 998 999 999 999 999",
                Channel.MESAJ,
                "2b393938393939393939393939393939",
                "50efb980c43ee866f154bef5cdb6bc16",
            ),
            (
                " First.Last+News@Example.com.TR\r\n",
                Channel.EPOSTA,
                "937cedb33e5f3382f47062d342d3980b",
                "228bd37573ef1eec5ca81481e3eb0cae",
            ),
        ],
        ids=["mobile", "landline with the extra zero", "longest foreign", "e-mail"],
    )
    @both_kernels
    def test_bytes(
        self, spelling: str, channel: Channel, expected_block: str, expected_token: str, kernel: Kernel
    ) -> None:
        """Block and token of known addresses under a known key never change, alone or in a column."""
        column = TextColumn.of([spelling])

        assert block(spelling, channel).hex() == expected_block
        assert blocks(column, channel, kernel).tobytes().hex() == expected_block
        assert token(spelling, channel, KEY).hex() == expected_token
        assert tokens(column, channel, KEY, kernel).tobytes().hex() == expected_token


class TestPhones:
    """Turkish and foreign numbers, in all their spellings."""

    @both_kernels
    @given(data=st.data(), national=national_numbers, channel=phone_channels)
    @settings(max_examples=often(300), deadline=None)
    def test_one_token(self, data: st.DataObject, national: str, channel: Channel, kernel: Kernel) -> None:
        """Every accepted spelling of a number gives one token, whatever separators stand in it."""
        spellings = data.draw(st.lists(turkish_spellings(national), min_size=2, max_size=8))

        found = tokens(TextColumn.of([f"+90{national}", *spellings]), channel, KEY, kernel)

        assert readable(found).all()
        assert (found == found[0]).all()

    @both_kernels
    @given(numbers=st.lists(national_numbers | foreign_numbers, unique=True, min_size=2))
    @settings(max_examples=often(100), deadline=None)
    def test_different_numbers(self, numbers: list[str], kernel: Kernel) -> None:
        """Different numbers have different tokens."""
        found = tokens(TextColumn.of(numbers), Channel.MESAJ, KEY, kernel)

        assert len({row.tobytes() for row in found}) == len(numbers)

    @given(number=foreign_numbers, channel=phone_channels)
    @settings(max_examples=often(200), deadline=None)
    def test_foreign(self, number: str, channel: Channel) -> None:
        """A foreign number of 7 to 15 digits after its plus sign is kept as it is."""
        assert canonical(number, channel) == number

    @given(text=accepted_phones | near_phones | any_text, channel=phone_channels)
    @settings(max_examples=often(1000), deadline=None)
    def test_nothing_else(self, text: str, channel: Channel) -> None:
        """What the written grammar accepts is accepted as it says, and nothing else is."""
        assert canonical(text, channel) == reference_phone(text)

    @pytest.mark.parametrize(
        "refused",
        [
            "",
            " -.()",
            "+",
            "90059920000000",
            "05992000000 dahili 5",
            "0599200000",
            "059920000000",
            "01992000000",
            "+9059920000",
            "+90599200000000",
            "00049301234567",
            "+049301234567",
            "+491234",
            "+4912345678901234",
            "5992000000+",
            "+90+5992000000",
            "++905992000000",
            "٠٥٩٩٢٠٠٠٠٠٠",
            "０5992000000",
            "0599\t2000000",
            "05992000000\n1",
            "\x0005992000000",
            "05992000000\x00",
            "0599/2000000",
            "1-800-FLOWERS",
            "\x005992000000",
            "\x00+9005992000000",
            "\x00+905992000000",
        ],
        ids=range(28),
    )
    @both_kernels
    def test_refused(self, refused: str, kernel: Kernel) -> None:
        """Empty, short, long, lettered, foreign without plus, other digits, tabs, NULs: all are unreadable."""
        assert canonical(refused, Channel.MESAJ) is None
        assert blocks(TextColumn.of([refused]), Channel.ARAMA, kernel).tobytes() == UNREADABLE

    def test_country_codes(self) -> None:
        """The table has the codes of libphonenumber's metadata, and no others."""
        assert {str(code) for code in COUNTRY_CODES} == CODES | {"90"}
        assert set(COUNTRY_CODES) - {888} == set(phonenumbers.COUNTRY_CODE_TO_REGION_CODE) - {888}

    @given(code=st.sampled_from(LIVE_CODES), rest=st.text("0123456789", min_size=7, max_size=7))
    @settings(max_examples=often(200), deadline=None)
    def test_metadata_oracle(self, code: str, rest: str) -> None:
        """We spell a Turkish number that libphonenumber takes for valid as it does, from each of its formats."""
        parsed = phonenumbers.parse(code + rest, "TR")
        assume(phonenumbers.is_valid_number(parsed))  # nearly all are; its metadata change by version
        formats = phonenumbers.PhoneNumberFormat
        e164 = phonenumbers.format_number(parsed, formats.E164)

        spellings = [
            phonenumbers.format_number(parsed, form) for form in (formats.E164, formats.INTERNATIONAL, formats.NATIONAL)
        ]

        assert [canonical(spelling, Channel.MESAJ) for spelling in spellings] == [e164] * 3


class TestNobodyElse:
    """Nothing is read as a number that it is not: that one might not have refused. See `test_address_oracle`."""

    @pytest.mark.parametrize(
        "text",
        [
            "+49 (0)171 9993001",
            "+49 171 9993001-12",
            "+49 171 999 30 01.0",
            "+49 0171 9993001",
            "+44 07911 123456",
            "+1 1 212 555 0123",
            "+7 8 912 345 67 89",
            "+36 06 20 123 4567",
            "+5321234567",
            "005321234567",
        ],
    )
    @both_kernels
    def test_reproduced(self, text: str, kernel: Kernel) -> None:
        """Spellings that became somebody else's number are unreadable, alone and in a column."""
        assert canonical(text, Channel.MESAJ) is None
        assert not readable(blocks(TextColumn.of([text]), Channel.MESAJ, kernel)).any()

    @pytest.mark.parametrize(
        ("text", "number"),
        [
            ("0049 171 9993001", "+491719993001"),
            ("9005329993001", "+905329993001"),
            ("0905329993001", "+905329993001"),
            ("90 0532 999 30 01", "+905329993001"),
            ("0 90 532 999 30 01", "+905329993001"),
            ("444 0 123", "+904440123"),
            ("0090 444 0 123", "+904440123"),
            ("9004440123", None),
            ("0900 444 0 123", None),
            ("+90 900 444 0 123", "+909004440123"),
            ("+900 444 0 123", "+904440123"),
            ("00900 444 0 123", "+904440123"),
            ("05329993001\t", "+905329993001"),
            ("\ufeff05329993001\r\n", "+905329993001"),
            ("+39 06 1234567", "+39061234567"),
            ("+225 07 12 34 56 78", "+2250712345678"),
            ("(0532) 999 30 01", "+905329993001"),
            ("+7 812 345 67 89", "+78123456789"),
        ],
    )
    @both_kernels
    def test_read(self, text: str, number: str | None, kernel: Kernel) -> None:
        """Spellings that people use are read as the number that they mean."""
        column = TextColumn.of([text])
        raw = TextColumn.adjacent(np.frombuffer(text.encode(), np.uint8), np.array([len(text.encode())]))

        assert canonical(text, Channel.MESAJ) == number
        behind = TextColumn.of(["-" * 16, text])  # common spellings are read with what stands before them
        for each in (column, raw, behind):
            found = blocks(each, Channel.MESAJ, kernel)[-1].tobytes()
            assert found == (number or "").encode().ljust(16, b"\0")


WHY = [
    ("", Channel.MESAJ, Unreadable.EMPTY),
    (" \t", Channel.EPOSTA, Unreadable.EMPTY),
    ("05329993001", Channel.EPOSTA, Unreadable.OTHER_FORM),
    ("a@example.com", Channel.ARAMA, Unreadable.OTHER_FORM),
    ("0532\u200b9993001", Channel.MESAJ, Unreadable.INVISIBLE),
    ("0532\u00a0999 30 01", Channel.MESAJ, Unreadable.INVISIBLE),
    ("٠٥٣٢٩٩٩٣٠٠١", Channel.MESAJ, Unreadable.INVISIBLE),
    ("9,05333E+11", Channel.MESAJ, Unreadable.SPREADSHEET),
    ("05329993001; 05329993002", Channel.MESAJ, Unreadable.SEVERAL),
    ("05329993001 / 05329993002", Channel.MESAJ, Unreadable.SEVERAL),
    ("05329993001 05329993002", Channel.MESAJ, Unreadable.SEVERAL),
    ("a@example.com,b@example.com", Channel.EPOSTA, Unreadable.SEVERAL),
    ("05329993001 dahili 5", Channel.MESAJ, Unreadable.LETTERS),
    ("+49 (0)171 9993001", Channel.MESAJ, Unreadable.TRUNK_ZERO),
    ("+1 1 212 555 0123", Channel.MESAJ, Unreadable.TRUNK_ZERO),
    ("+370 8 612 34567", Channel.MESAJ, Unreadable.TRUNK_ZERO),
    ("900 444 01 23", Channel.MESAJ, Unreadable.TWO_MEANINGS),
    ("+49 (171) 9993001", Channel.MESAJ, Unreadable.PARENTHESIS),
    ("+49 171 9993001-12", Channel.MESAJ, Unreadable.EXTENSION),
    ("+5321234567", Channel.MESAJ, Unreadable.COUNTRY),
    ("+999 123 456 78", Channel.MESAJ, Unreadable.COUNTRY),
    ("0532999300", Channel.MESAJ, Unreadable.LENGTH),
    ("0532/9993001", Channel.MESAJ, Unreadable.MALFORMED),
    ("a@b", Channel.EPOSTA, Unreadable.MALFORMED),
]


class TestWhy:
    """The likeliest cause is told where an address is not read."""

    @pytest.mark.parametrize(("text", "channel", "why"), WHY, ids=range(len(WHY)))
    def test_cause(self, text: str, channel: Channel, why: Unreadable) -> None:
        """Each kind of mistake has its cause."""
        assert why_unreadable(text, channel) is why

    @given(text=addresses, channel=channels)
    @settings(max_examples=often(500), deadline=None)
    def test_exactly_unreadable(self, text: str, channel: Channel) -> None:
        """There is a cause for every unreadable address and for no other."""
        assert (why_unreadable(text, channel) is None) == (canonical(text, channel) is not None)


class TestEmails:
    """Trim, ASCII lower-case, no dot or plus folding."""

    @given(text=emails())
    @settings(max_examples=often(300), deadline=None)
    def test_folded(self, text: str) -> None:
        """Case and white space around an e-mail do not matter, and it is kept otherwise as it is."""
        found = canonical(text, Channel.EPOSTA)

        assert found == text.strip().lower()
        assert {block(form, Channel.EPOSTA) for form in (text, text.upper(), text.lower(), f"\t{text} ")} == {
            block(found, Channel.EPOSTA)
        }

    @given(text=emails() | near_emails | any_text)
    @settings(max_examples=often(1000), deadline=None)
    def test_nothing_else(self, text: str) -> None:
        """What the written grammar accepts is accepted as it says, and nothing else is."""
        assert canonical(text, Channel.EPOSTA) == reference_email(text)

    def test_ascii_not_turkish(self) -> None:
        """I becomes i, never ı; İ and ı, and letters that Unicode would fold into ASCII, are refused."""
        assert canonical("ISIK@EXAMPLE.COM", Channel.EPOSTA) == "isik@example.com"
        for letter in "İıŞşĞğÜüÖöÇç\u212a\u017f":
            assert canonical(f"a{letter}b@example.com", Channel.EPOSTA) is None
            assert canonical(f"ab@ex{letter}mple.com", Channel.EPOSTA) is None

    def test_not_folded(self) -> None:
        """Dots and plus labels tell addresses apart."""
        texts = ["ab@example.com", "a.b@example.com", "ab+x@example.com", "ab@example.com.tr"]

        assert len({block(text, Channel.EPOSTA) for text in texts}) == 4

    @pytest.mark.parametrize(
        "accepted",
        [
            "1@22.com",
            "1@2.2.tr",
            "..a@22.com",
            "_@a-.co",
            "-a--b__c..d@22.com",
            "a+b@22.c-",
            "x@" + "y" * 260 + ".co",
        ],
        ids=range(7),
    )
    @both_kernels
    def test_lenient(self, accepted: str, kernel: Kernel) -> None:
        """Runs of marks, marks at the start and the longest e-mail are accepted, as İYS accepts them."""
        assert canonical(accepted, Channel.EPOSTA) == accepted
        assert readable(blocks(TextColumn.of([accepted]), Channel.EPOSTA, kernel)).all()

    @pytest.mark.parametrize(
        "refused",
        [
            "",
            " ",
            "@",
            "a@b.co",
            "a@bb.c",
            "a@bb",
            "@bb.co",
            "a@@bb.co",
            "a@b@bb.co",
            "a@.bb.co",
            "a@bb..co",
            "a@bb.co.",
            "a@bb.1co",
            "a@bb.-o",
            "a@b+b.co",
            "a b@bb.co",
            "a@bb.co\x00",
            "a\x00@bb.co",
            "a@bb.co\u00a0",
            "a@bb.co\x1c",
            "a@bb.co\x85",
            "a＠bb.co",
            "<a@bb.co>",
            "a'b@bb.co",
            "x@" + "y" * 261 + ".co",
        ],
        ids=range(25),
    )
    @both_kernels
    def test_refused(self, refused: str, kernel: Kernel) -> None:
        """Missing, doubled, short or long parts, inner white space and other marks: all are unreadable."""
        assert canonical(refused, Channel.EPOSTA) is None
        assert blocks(TextColumn.of([refused]), Channel.EPOSTA, kernel).tobytes() == UNREADABLE

    @given(text=emails())
    @settings(max_examples=often(100), deadline=None)
    def test_block_definition(self, text: str) -> None:
        """The block is the first half of SHA-256 of the folded text, with the top bit set."""
        digest = hashlib.sha256(text.strip().lower().encode()).digest()

        assert block(text, Channel.EPOSTA) == bytes([digest[0] | 0x80]) + digest[1:16]


class TestColumns:
    """A column gives, row by row, what single addresses give."""

    @both_kernels
    @given(texts=st.lists(addresses, max_size=30), channel=channels)
    @example(texts=["\x00", "", "\x005992000000", "\x00+9005992000000"], channel=Channel.MESAJ)
    @example(texts=["+491234567", "8", "+900599200000", "0"], channel=Channel.MESAJ)
    @example(texts=["a@bb.co", "\ud800\udc00", ".", "@bb.co"], channel=Channel.EPOSTA)
    @settings(max_examples=often(700), deadline=None)
    def test_twins(self, texts: list[str], channel: Channel, kernel: Kernel) -> None:
        """The array path agrees with the scalar path on right, nearly right and any other texts."""
        column = TextColumn.of(texts)

        found, tokenised = blocks(column, channel, kernel), tokens(column, channel, KEY, kernel)

        assert [row.tobytes() for row in found] == [block(text, channel) for text in texts]
        assert [row.tobytes() for row in tokenised] == [token(text, channel, KEY) for text in texts]

    @pytest.mark.parametrize("channel", Channel)
    @pytest.mark.parametrize("size", [1, 2, 8, 9, 16, 17, 32, 33, 64, 65, 200])
    @both_kernels
    def test_few(self, size: int, channel: Channel, kernel: Kernel) -> None:
        """However many texts a list has, it becomes the tokens that each of them has alone."""
        texts = [(f"+90532{row:07}", f"a{row}@bb.co", f"{row} no address", "\ud800é")[row % 4] for row in range(size)]

        found = tokens(texts, channel, KEY, kernel)

        assert [row.tobytes() for row in found] == [token(text, channel, KEY) for text in texts]

    @both_kernels
    @given(texts=st.lists(accepted_phones | near_phones, min_size=5, max_size=60))
    @settings(max_examples=often(150), deadline=None)
    def test_phone_neighbours(self, texts: list[str], kernel: Kernel) -> None:
        """In a column of phones no row reads into its neighbours."""
        found = blocks(TextColumn.of(texts), Channel.MESAJ, kernel)

        assert [row.tobytes() for row in found] == [block(text, Channel.MESAJ) for text in texts]

    @both_kernels
    @given(texts=st.lists(emails() | near_emails, min_size=5, max_size=30))
    @settings(max_examples=often(150), deadline=None)
    def test_email_neighbours(self, texts: list[str], kernel: Kernel) -> None:
        """In a column of e-mails no row reads into its neighbours."""
        found = blocks(TextColumn.of(texts), Channel.EPOSTA, kernel)

        assert [row.tobytes() for row in found] == [block(text, Channel.EPOSTA) for text in texts]

    @both_kernels
    @given(rows=st.lists(raw_texts, max_size=20), channel=channels)
    @settings(max_examples=often(500), deadline=None)
    def test_raw_bytes(self, rows: list[bytes], channel: Channel, kernel: Kernel) -> None:
        """A column of any raw bytes gives what the same bytes read as Latin-1 give, and nothing is raised."""
        lengths = np.array([len(row) for row in rows], np.int64)
        column = TextColumn.adjacent(np.frombuffer(b"".join(rows), np.uint8), lengths)

        found = blocks(column, channel, kernel)

        assert [row.tobytes() for row in found] == [block(row.decode("latin-1"), channel) for row in rows]

    @both_kernels
    @given(data=raw_buffers, channel=channels, draws=st.data())
    @settings(max_examples=often(500), deadline=None)
    def test_anywhere(self, data: bytes, channel: Channel, draws: st.DataObject, kernel: Kernel) -> None:
        """Texts may lie anywhere in the buffer, with anything between them, overlapping and in any order."""
        place = st.integers(0, len(data))
        spans = [sorted(span) for span in draws.draw(st.lists(st.tuples(place, place), max_size=20))]
        starts, ends = np.array(spans, np.int64).reshape(-1, 2).T
        column = TextColumn(data=np.frombuffer(data, np.uint8), starts=starts, ends=ends)

        found = blocks(column, channel, kernel)

        assert [row.tobytes() for row in found] == [
            block(data[start:end].decode("latin-1"), channel) for start, end in spans
        ]

    @both_kernels
    @given(pieces=st.lists(addresses, min_size=1, max_size=3), channel=channels)
    @settings(max_examples=60, deadline=None)
    def test_long_texts(self, pieces: list[str], channel: Channel, kernel: Kernel) -> None:
        """Texts of ten thousand characters and more are refused, alone and beside others."""
        texts = [
            *pieces,
            *("".join(pieces) + "5" * 10_000 + piece for piece in pieces),
            " " * 10_000,
            "@." * 5_000,
        ]

        assert all(block(text, channel) == UNREADABLE for text in texts[len(pieces) :])
        assert [row.tobytes() for row in blocks(TextColumn.of(texts), channel, kernel)] == [
            block(text, channel) for text in texts
        ]

    @both_kernels
    @given(texts=st.lists(addresses))
    @settings(max_examples=often(150), deadline=None)
    def test_forms_apart(self, texts: list[str], kernel: Kernel) -> None:
        """No text is both a phone and an e-mail, and the blocks of the two forms never meet."""
        phones = blocks(TextColumn.of(texts), Channel.MESAJ, kernel)
        mails = blocks(TextColumn.of(texts), Channel.EPOSTA, kernel)

        assert not (readable(phones) & readable(mails)).any()
        assert (phones[readable(phones), 0] == ord("+")).all()
        assert (mails[readable(mails), 0] >= 0x80).all()
        assert np.array_equal(phones, blocks(TextColumn.of(texts), Channel.ARAMA, kernel))

    @both_kernels
    @pytest.mark.parametrize("channel", Channel)
    def test_empty(self, channel: Channel, kernel: Kernel) -> None:
        """A column of no rows, and one of empty rows, are answered as such."""
        for none, empty in (([], [""] * 3), (TextColumn.of([]), TextColumn.of([""] * 3))):
            assert tokens(none, channel, KEY, kernel).shape == (0, 16)
            assert tokens(empty, channel, KEY, kernel).tobytes() == UNREADABLE * 3

    @both_kernels
    @given(texts=st.lists(addresses, max_size=20), channel=channels)
    @settings(max_examples=often(100), deadline=None)
    def test_readable(self, texts: list[str], channel: Channel, kernel: Kernel) -> None:
        """A token is readable if and only if its address has a canonical text."""
        found = readable(tokens(TextColumn.of(texts), channel, KEY, kernel))

        assert found.tolist() == [reference(text, channel) is not None for text in texts]

    @given(question=st.tuples(accepted_phones, phone_channels) | st.tuples(emails(), st.just(Channel.EPOSTA)))
    @settings(max_examples=often(200), deadline=None)
    def test_idempotent(self, question: tuple[str, Channel]) -> None:
        """Canonical text is its own canonical text, and has the same token."""
        text, channel = question

        once = canonical(text, channel)

        assert once is not None
        assert canonical(once, channel) == once
        assert token(once, channel, KEY) == token(text, channel, KEY) != UNREADABLE


class TestTextColumn:
    """Texts in one buffer."""

    @given(texts=st.lists(any_text))
    @settings(max_examples=often(200), deadline=None)
    def test_layout(self, texts: list[str]) -> None:
        """Each text lies between its start and end, what is not ASCII as a question mark, NULs included."""
        column = TextColumn.of(texts)

        lying = [column.data[start:end].tobytes() for start, end in zip(column.starts, column.ends, strict=True)]
        assert lying == [bytes(ord(c) if ord(c) < 128 else ord("?") for c in text) for text in texts]
        assert len(column) == len(texts)
        assert column.data.dtype == np.uint8
        assert column.starts.dtype == column.ends.dtype == np.int64

    def test_one_text(self) -> None:
        """A single text is refused: it would be taken for a column of its characters."""
        with pytest.raises(TypeError, match="a column is made of many texts"):
            TextColumn.of("05992000000")

    @pytest.mark.parametrize(
        ("data", "starts", "ends"),
        [
            (np.zeros(3, np.uint8), np.array([-1], np.int64), np.array([1], np.int64)),
            (np.zeros(3, np.uint8), np.array([2, 0], np.int64), np.array([4, 1], np.int64)),
            (np.zeros(3, np.uint8), np.array([0, 2], np.int64), np.array([1, 1], np.int64)),
            (np.zeros(3, np.uint8), np.array([0], np.int64), np.array([0, 1], np.int64)),
            (np.zeros(3, np.uint8), np.array([0], np.int32), np.array([1], np.int64)),
            (np.zeros(3, np.uint8), np.array([0], np.int64), np.array([1], np.uint64)),
            (np.zeros(3, np.uint8), np.array([[0]], np.int64), np.array([1], np.int64)),
            (np.zeros(3, np.uint8), np.array([0], np.int64), np.array([[1]], np.int64)),
            (np.zeros(3, np.int8), np.array([0], np.int64), np.array([1], np.int64)),
            (np.zeros((3, 1), np.uint8), np.array([0], np.int64), np.array([1], np.int64)),
        ],
        ids=["before", "beyond", "back", "sizes", "int32", "uint64", "flat starts", "flat ends", "int8", "flat data"],
    )
    def test_wrong_arrays(
        self, data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
    ) -> None:
        """Texts that lie outside of the data, and other dtypes or shapes, are refused before they are used."""
        with pytest.raises(ValueError, match="must"):
            TextColumn(data=data, starts=starts, ends=ends)

    def test_not_shown(self) -> None:
        """No plaintext appears in the repr of a column."""
        column = TextColumn.of(["05992000000"])

        assert repr(column).startswith("<iyscheck.address.texts.TextColumn object at 0x")
        assert str(column) == repr(column)
