import io

import pytest

from iyscheck.cli.scrubbing.detecting import Detection, Layout, survey
from iyscheck.consent import Channel
from iyscheck.errors import InputError

PHONES = "05321234567", "+90 532 123 45 68", "5321234569"


def detected(
    content: bytes | str,
    channel: Channel = Channel.MESAJ,
    *,
    column: str | None = None,
    encoding: str | None = None,
    delimiter: bytes | None = None,
    header: bool | None = None,
) -> Layout:
    """Detect the layout of a list."""
    file = io.BytesIO(content.encode() if isinstance(content, str) else content)
    found = survey(file, encoding)
    return Detection(file, found, channel, delimiter=delimiter, header=header).layout(column)


def rows(*cells: str, delimiter: str = ";", end: str = "\r\n") -> str:
    """Rows of these cells, where `#` is a phone number."""
    return "".join(delimiter.join(cells).replace("#", phone) + end for phone in PHONES)


class TestDelimiter:
    """What stands between cells."""

    @pytest.mark.parametrize("delimiter", [";", ",", "\t"])
    def test_found(self, delimiter: str) -> None:
        """Each of the three is found, also where others stand in the cells now and then."""
        other = "," if delimiter == ";" else ";"
        usual, odd = (rows(name, "#", delimiter=delimiter) for name in ("Ayşe", f"a{other} b"))
        found = detected(f"Ad{delimiter}Telefon\n" + usual * 5 + odd)

        assert (found.delimiter, found.columns, found.column) == (delimiter.encode(), 2, 2)

    def test_one_column(self) -> None:
        """A list of numbers has one column, and semicolons between its answers."""
        found = detected(rows("#"))

        assert (found.delimiter, found.columns, found.column, found.names) == (b";", 1, 1, ())

    def test_said(self) -> None:
        """Excel's own line says it, stays, and is no row."""
        content = "sep=,\r\n" + "Telefon,Not\r\n" + rows("#", "a;b", delimiter=",")
        found = detected(content)

        assert (found.delimiter, found.names) == (b",", ("Telefon", "Not"))
        assert found.head.mark == b"sep=,\r\n"
        assert found.head.end == (len("sep=,\r\nTelefon,Not\r\n"), 3)

    def test_asked(self) -> None:
        """Where two are as likely the user is asked."""
        with pytest.raises(InputError, match="--delimiter: the cells may be parted by ';' or by ','"):
            detected(rows("#,a", "#"))

    @pytest.mark.parametrize("short", [1, 4])
    def test_uneven(self, short: int) -> None:
        """Where many rows have cells and others fewer, it is not taken for one column: all rows would be denied."""
        content = "Ad,Telefon,Not\r\n" + rows("Ali", "#", "x", delimiter=",") + rows("Ali", "#", delimiter=",") * short
        if short > 1:
            content += rows("Ali", "#", "y", delimiter=",") * short

        found = detected(content)

        assert (found.delimiter, found.columns, found.column) == (b",", 3, 2)


class TestEncoding:
    """How letters are written."""

    @pytest.mark.parametrize(
        ("content", "encoding"),
        [
            (rows("Ayşe", "#").encode(), "utf-8"),
            (b"\xef\xbb\xbf" + rows("Ayşe", "#").encode(), "utf-8"),
            (rows("Ayşe Çağrı", "#").encode("cp1254"), "cp1254"),
            (rows("Ali", "#").encode(), "utf-8"),
            (rows("Ayşe", "#").encode() * 20 + b"\xfe;\xfe\r\n", "utf-8"),
        ],
        ids=["utf-8", "mark", "windows-1254", "ascii", "damaged"],
    )
    def test_found(self, content: bytes, encoding: str) -> None:
        """UTF-8 and Windows-1254 are told apart by the whole list; a damaged row does not change it."""
        assert detected(content).encoding == encoding

    def test_late(self) -> None:
        """A letter at the end of a long list counts as one at its beginning."""
        content = (rows("Ali", "#") * 40_000 + rows("Çağrı", "#")).encode("cp1254")

        assert detected(content).encoding == "cp1254"

    def test_asked(self) -> None:
        """Where parts are of each the user is asked, and may say."""
        content = rows("Ayşe", "#").encode() + rows("Ayşe", "#").encode("cp1254")

        with pytest.raises(InputError, match="--encoding: parts of the list are UTF-8"):
            detected(content)
        assert detected(content, encoding="cp1254").encoding == "cp1254"

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"", "empty"),
            ("a;b\n".encode("utf-16"), "UTF-16"),
            ("a;b\n".encode("utf-16-le"), "UTF-16"),
            (b"PK\x03\x04" + bytes(8), "Excel workbook"),
            (b"\xd0\xcf\x11\xe0" + bytes(8), "old Excel"),
            (b"\x1f\x8b" + bytes(8), "gzip"),
            (b" <html><table>", "HTML"),
            (b"05321234567\r05321234568\r", "old Macs"),
        ],
    )
    def test_refused(self, content: bytes, says: str) -> None:
        """What is no list of text is refused whole, by its name and with what to do."""
        with pytest.raises(InputError, match=says) as caught:
            detected(content)

        assert "CSV" in caught.value.fix or says == "empty"


class TestHeader:
    """Whether the first row has names."""

    @pytest.mark.parametrize(
        ("content", "names"),
        [
            ("Ad;Telefon\n" + rows("Ali", "#"), ("Ad", "Telefon")),
            (rows("Ali", "#"), ()),
            ("telefon\n" + rows("#"), ("telefon",)),
            ("123\n" + rows("#"), ()),
            ('"Ad; Soyad";"Cep ""1"""\n' + rows("Ali", "#"), ("Ad; Soyad", 'Cep "1"')),
            ("\r\nAd;Telefon\r\n" + rows("Ali", "#"), ("Ad", "Telefon")),
        ],
    )
    def test_found(self, content: str, names: tuple[str, ...]) -> None:
        """A first row without an address but with letters is one."""
        assert detected(content).names == names

    def test_said(self) -> None:
        """The user may say so or otherwise."""
        assert detected("Ad;Telefon\n" + rows("Ali", "#"), header=False).names == ()
        assert detected(rows("#", "05321230000"), header=True, column="1").names == (PHONES[0], "05321230000")

    @pytest.mark.parametrize(
        ("first", "says"),
        [
            ("Müşteri listesi\n", "the header has 1 cells, most rows have 2"),
            ("Telefon;iyscheck_izin\n", "has a column iyscheck_izin already"),
        ],
        ids=["title", "washed"],
    )
    def test_refused(self, first: str, says: str) -> None:
        """A title above the list, and a list that was washed before, are refused."""
        with pytest.raises(InputError, match=says):
            detected(first + rows("#", "EVET"))


class TestColumn:
    """Where the addresses stand. In doubt it is asked for: another column's answers would be wrong permissions."""

    @pytest.mark.parametrize(
        ("content", "channel", "column"),
        [
            ("Ad;Telefon;Not\n" + rows("Ali", "#", "x"), Channel.MESAJ, 2),
            ("Ad;Sütun;Not\n" + rows("Ali", "ali@example.com", "x"), Channel.EPOSTA, 2),
            ("Vergi No;GSM\n" + rows("5321234567", "#"), Channel.MESAJ, 2),
            ("TELEFON;E-POSTA\n" + rows("#", "ali@example.com"), Channel.EPOSTA, 2),
            ("TELEFON;E-POSTA\n" + rows("#", "ali@example.com"), Channel.MESAJ, 1),
            (rows("#", "ali@example.com"), Channel.EPOSTA, 2),
        ],
        ids=["name", "look", "name among looks", "e-mail", "phone", "no header"],
    )
    def test_found(self, content: str, channel: Channel, column: int) -> None:
        """It is the one that looks like it; of several, the one that is called so."""
        assert detected(content, channel).column == column

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            ("Cep;İş Telefonu\n" + rows("#", "#"), r"perhaps 1 \(Cep\), 2 \(İş Telefonu\)"),
            (rows("#", "#"), "perhaps 1, 2"),
            ("Telefon;Vergi No\n" + rows("yok", "5321234567"), r"perhaps 1 \(Telefon\), 2 \(Vergi No\)"),
            ("Ad;Soyad\n" + rows("Ali", "Can"), "which column has the addresses"),
            ("Ad;Sütun;Not\n" + rows("Ali", "#", "x"), r"perhaps 2 \(Sütun\).*--column 2"),
            ("tarih;ad\n" + rows("2026112012", "x"), r"perhaps 1 \(tarih\).*--column 1"),
            ("id\n" + rows("2026112012"), r"perhaps 1 \(id\)"),
        ],
        ids=["two names", "two looks", "a name against a look", "none", "another name", "dates", "one column"],
    )
    def test_asked(self, content: str, told: str) -> None:
        """Where it is unsure the columns are named, and no cell is."""
        with pytest.raises(InputError, match=told) as caught:
            detected(content)

        assert not any(phone in str(caught.value) for phone in PHONES)

    @pytest.mark.parametrize(("said", "column"), [("2", 2), ("cep tel", 1), ("CEP-TEL", 1)])
    def test_said(self, said: str, column: int) -> None:
        """The user names it by number, or by name without regard to case."""
        assert detected("Cep Tel;Ev Tel\n" + rows("#", "#"), column=said).column == column

    @pytest.mark.parametrize("said", ["0", "3", "Ad"])
    def test_unknown(self, said: str) -> None:
        """A column that is not there is an error, not another column."""
        with pytest.raises(InputError, match="--column: the list has 2 columns"):
            detected("Cep Tel;Ev Tel\n" + rows("#", "#"), column=said)
