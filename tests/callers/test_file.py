"""The callers file: what it may say, that each mistake is told with its line, and who may be able to write it."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck import keys
from iyscheck.callers.file import MAX_FILE_BYTES, parsed, read
from iyscheck.callers.identity import Key, NewKey
from iyscheck.callers.scopes import ALL_CHANNELS, DEFAULT_CALLS, Caller
from iyscheck.consent import Channel
from iyscheck.errors import CallersFileError
from tests.dice import often

NEW = NewKey.create()
LINE = f"00000000:{'ab' * 32}"
OTHER_LINE = f"11111111:{'ab' * 32}"
FULL = f"""\
# Who may ask.
[caller.acme]
keys = ["{NEW.key.line}", "{LINE}"]
certificates = ["spiffe://acme.example/gw", "dns:*.acme.example"]
brands = [600123, 600_124]
channels = ["MESAJ", "EPOSTA"]
calls = ["check", "explain"]
addresses = true
rate = 50_000
streams = 8

[caller."codes.only"]
certificates = ["dns:codes.example"]
brands = []

[caller.all-2]
keys = ["{OTHER_LINE}"]
brands = "all"
"""


class TestGood:
    """A file that is right."""

    def test_all_fields(self, write: Callable[[str], Path]) -> None:
        """Each field is read; what is left out has its default."""
        entries = read(write(FULL)).entries

        assert [entry.caller for entry in entries.values()] == [
            Caller(
                name="acme",
                brands=frozenset({600123, 600124}),
                channels=frozenset({Channel.MESAJ, Channel.EPOSTA}),
                calls=frozenset({"check", "explain"}),
                addresses=True,
                rate=50_000,
                streams=8,
            ),
            Caller(name="codes.only", brands=frozenset()),
            Caller(name="all-2", brands=None, channels=ALL_CHANNELS, calls=DEFAULT_CALLS),
        ]
        assert entries["acme"].keys == {NEW.key, Key("00000000", b"\xab" * 32)}
        assert entries["acme"].certificates == {"spiffe://acme.example/gw", "dns:*.acme.example"}

    def test_identifies(self, write: Callable[[str], Path]) -> None:
        """What was read tells who calls."""
        callers = read(write(FULL))

        assert callers.identify(NEW.text).caller.name == "acme"
        assert callers.identify(None, ["dns:codes.example"]).caller.name == "codes.only"

    def test_any_editor(self) -> None:
        """The marks and line ends of Windows' editors do no harm."""
        assert parsed(b"\xef\xbb\xbf" + FULL.replace("\n", "\r\n").encode(), "f").entries.keys() == {
            "acme",
            "codes.only",
            "all-2",
        }


def mistake(rules: str) -> str:
    """Give a file whose second caller, in line 5, has these rules below its name and its key."""
    return f'[caller.first]\nbrands = "all"\nkeys = ["{OTHER_LINE}"]\n\n[caller.acme]\nkeys = ["{LINE}"]\n{rules}\n'


MISTAKES = {
    "unknown field": (mistake('brands = "all"\nbrand = [1]'), 8, "caller.acme.brand", "Known are: keys, cert"),
    "unknown table": (mistake('brands = "all"') + "[limits]\n", 8, "limits", "Known are: caller."),
    "top level": ("rate = 5\n" + mistake('brands = "all"'), 1, "rate", "Known are: caller."),
    "no brands": (mistake("rate = 5"), 5, "caller.acme.brands", 'or write brands = "all"'),
    "brand zero": (mistake("brands = [1, 0]"), 7, "caller.acme.brands", "item 2 .* from 1 to 4294967295"),
    "brand too large": (mistake("brands = [4294967296]"), 7, "caller.acme.brands", "item 1 .* from 1 to 4294967295"),
    "brand text": (mistake('brands = ["1"]'), 7, "caller.acme.brands", "whole numbers"),
    "brand true": (mistake("brands = [true]"), 7, "caller.acme.brands", "whole numbers"),
    "brands word": (mistake('brands = "ALL"'), 7, "caller.acme.brands", "must be a list"),
    "brand twice": (mistake("brands = [1, 1]"), 7, "caller.acme.brands", "has an item twice"),
    "channel": (mistake('brands = [1]\nchannels = ["SMS"]'), 8, "caller.acme.channels", "Known are ARAMA, MESAJ, EP"),
    "channel case": (mistake('brands = [1]\nchannels = ["mesaj"]'), 8, "caller.acme.channels", "item 1"),
    "channel number": (mistake("brands = [1]\nchannels = [1]"), 8, "caller.acme.channels", "item 1"),
    "no channel": (mistake("brands = [1]\nchannels = []"), 8, "caller.acme.channels", "is empty"),
    "channels text": (mistake('brands = [1]\nchannels = "MESAJ"'), 8, "caller.acme.channels", "must be a list"),
    "call": (mistake('brands = [1]\ncalls = ["check", "Check"]'), 8, "caller.acme.calls", "item 2 .*check, batch, f"),
    "no call": (mistake("brands = [1]\ncalls = []"), 8, "caller.acme.calls", "is empty"),
    "addresses": (mistake('brands = [1]\naddresses = "no"'), 8, "caller.acme.addresses", "must be true or false"),
    "addresses 0": (mistake("brands = [1]\naddresses = 0"), 8, "caller.acme.addresses", "must be true or false"),
    "rate 0": (mistake("brands = [1]\nrate = 0"), 8, "caller.acme.rate", "from 1 to 1000000000"),
    "rate true": (mistake("brands = [1]\nrate = true"), 8, "caller.acme.rate", "from 1 to 1000000000"),
    "rate float": (mistake("brands = [1]\nrate = 5.0"), 8, "caller.acme.rate", "from 1 to 1000000000"),
    "streams": (mistake("brands = [1]\nstreams = -1"), 8, "caller.acme.streams", "from 1 to 100000"),
    "key form": (
        mistake('brands = [1]\nkeys = ["x"]').replace(f'keys = ["{LINE}"]', ""),
        8,
        "caller.acme.keys",
        "new-k",
    ),
    "key twice": (mistake("brands = [1]").replace(LINE, f'{LINE}", "{LINE}'), 6, "caller.acme.keys", "an item twice"),
    "id twice": (
        mistake("brands = [1]").replace(LINE, f'{LINE}", "00000000:{"cd" * 32}'),
        6,
        "caller.acme.keys",
        "two keys of one id",
    ),
    "another's key": (mistake("brands = [1]").replace(LINE, OTHER_LINE), 6, "caller.acme.keys", "caller.first.keys"),
    "nobody": (mistake("brands = [1]").replace(f'keys = ["{LINE}"]', ""), 5, "caller.acme", "neither keys nor cert"),
    "wildcard": (mistake('brands = [1]\ncertificates = ["dns:a.*.b"]'), 8, "caller.acme.certificates", "item 1"),
    "certificate of an IP address": (
        mistake('brands = [1]\ncertificates = ["dns:a", "dns:10.0.0.1"]'),
        8,
        "caller.acme.certificates",
        "item 2 is an IP address.*a host or a URI",
    ),
    "URI with a wildcard": (
        mistake('brands = [1]\ncertificates = ["spiffe://*"]'),
        8,
        "caller.acme.certificates",
        r"item 1 is a URI with a \*.*each URI as it is",
    ),
    "certificate number": (mistake("brands = [1]\ncertificates = [1]"), 8, "caller.acme.certificates", "in quotes"),
    "certificate": (mistake('brands = [1]\ncertificates = ["gw.b"]'), 8, "caller.acme.certificates", "`dns:` and a ho"),
    "name": (f'[caller."a b"]\nkeys = ["{LINE}"]\nbrands = [1]\n', 1, "caller.a b", "1 to 64 letters"),
    "empty name": (f'[caller.""]\nkeys = ["{LINE}"]\nbrands = [1]\n', 1, "caller.", "1 to 64 letters"),
    "long name": (f'[caller.{"a" * 65}]\nkeys = ["{LINE}"]\nbrands = [1]\n', 1, "caller.a+", "1 to 64 letters"),
    "Turkish name": (f'[caller."şirket"]\nkeys = ["{LINE}"]\nbrands = [1]\n', 1, "caller.şirket", "1 to 64 letters"),
    "reserved": (f'[caller.anonymous]\nkeys = ["{LINE}"]\nbrands = [1]\n', 1, "caller.anonymous", "is taken"),
    "no table": ("[caller]\nacme = 5\n", 2, "caller.acme", "must be a table"),
    "tables": ('[[caller.acme]]\nbrands = "all"\n', None, "caller.acme", "must be a table"),
    "inline": ("caller = 5\n", None, "F", "lists no callers"),
    "empty": ("", None, "F", "lists no callers"),
    "no callers": ("[caller]\n", None, "F", "lists no callers"),
    "not TOML": (mistake("brands = [1\nx"), 8, "F", "line 8 is not TOML"),
    "not closed": (mistake("brands = [1"), 7, "F", "ends in the middle, in line 7: it is not TOML.*brackets"),
    "cut": (mistake("brands = [1]\n\n[caller.x\n\n")[:-3], 9, "F", "ends in the middle, in line 9: it is not TOML"),
    "cut text": ('[caller.a]\nkeys = """\n\n\n', 2, "F", "ends in the middle, in line 2: it is not TOML"),
    "twice": (mistake("brands = [1]") + "\n[caller.acme]\n", 9, "F", "line 9 is not TOML"),
    "deep": ("a = " + "[" * 100_000, None, "F", "it is not TOML"),
}


class TestMistakes:
    """A file with a mistake is refused whole; the error says where it is and what to write instead."""

    @pytest.mark.parametrize(("text", "line", "field", "says"), MISTAKES.values(), ids=MISTAKES)
    def test_each(self, text: str, line: int | None, field: str, says: str) -> None:
        """Line, field and fix of each mistake."""
        with pytest.raises(CallersFileError) as caught:
            parsed(text.encode(), "F")

        assert caught.value.line == line
        assert re.fullmatch(field, caught.value.field)
        assert re.search(says, str(caught.value)), str(caught.value)
        assert caught.value.fix

    def test_not_utf8(self) -> None:
        """A line that is not UTF-8 is named."""
        with pytest.raises(CallersFileError, match="line 3 is not UTF-8") as caught:
            parsed(b"# a\n# b\n# \xff\n", "F")

        assert caught.value.line == 3

    @pytest.mark.parametrize("place", ["keys = ['{}']", "brands = ['{}']", "key = '{}'", "keys = '{}", "{}", "x = {}"])
    def test_keys_in_wrong_places(self, place: str) -> None:
        """A whole key that was pasted where its hash belongs is not in what is told."""
        with pytest.raises(CallersFileError) as caught:
            parsed(f"[caller.acme]\n{place.format(NEW.text)}\n".encode(), "F")

        assert NEW.text.rpartition("_")[2] not in f"{caught.value} {caught.value!r} {caught.value.field}"

    @given(
        content=st.binary(max_size=200)
        | st.builds(
            lambda place, cut, put: FULL[:place] + put + FULL[place + cut :],
            st.integers(0, len(FULL)),
            st.integers(0, 9),
            st.text(max_size=5) | st.sampled_from(["[", "]", '"', "= ", "\n", "[caller.x]\n", "true"]),
        ).map(lambda text: text.encode("utf-8", "replace"))
    )
    @settings(max_examples=often(600), deadline=None)
    def test_any_bytes(self, content: bytes) -> None:
        """Any bytes are callers or our error, whose line is one of the file."""
        try:
            callers = parsed(content, "F")
            line = 1 if callers.entries else 0
        except CallersFileError as error:
            line = 1 if error.line is None else error.line

        assert 1 <= line <= content.count(b"\n") + len(content.splitlines()) + 1


class TestPath:
    """What may lie at the path."""

    @pytest.mark.parametrize(
        ("mode", "good"),
        [(0o600, True), (0o400, True), (0o640, True), (0o644, True), (0o444, True), (0o660, False), (0o602, False)],
    )
    def test_modes(self, write: Callable[[str], Path], mode: int, *, good: bool) -> None:
        """Others may read it, since it holds hashes of random keys; nobody but its owner may write it."""
        path = write(FULL)
        path.chmod(mode)

        if good:
            assert read(path).entries
        else:
            with pytest.raises(CallersFileError, match=f"others .*mode 0{mode:o}.* Run: chmod go-w {path}"):
                read(path)

    @pytest.mark.parametrize(("owner", "good"), [(0, True), (4_242, True), (4_243, False)])
    def test_owners(
        self, write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, owner: int, *, good: bool
    ) -> None:
        """It belongs to root, or to whoever reads it."""
        path = write(FULL)
        found = os.stat_result((0o100_644, 1, 1, 1, owner, 0, 100, 0, 0, 0))
        monkeypatch.setattr(keys, "read_small", lambda *_: (found, FULL.encode()))
        monkeypatch.setattr(os, "geteuid", lambda: 4_242)

        if good:
            assert read(path).entries
        else:
            with pytest.raises(CallersFileError, match="belongs to another user"):
                read(path)

    def test_nothing_there(self, tmp_path: Path) -> None:
        """A missing file, a directory, a pipe and a path that cannot be are told apart."""
        os.mkfifo(tmp_path / "pipe", 0o600)

        for path, says in (
            (tmp_path / "no.toml", "does not exist"),
            (tmp_path, "not a regular file"),
            (tmp_path / "pipe", "not a regular file"),
            (tmp_path / "a\0b", "cannot be read"),
        ):
            with pytest.raises(CallersFileError, match=says):
                read(path)

    def test_too_large(self, write: Callable[[str], Path]) -> None:
        """A file beyond all measure is not read to its end."""
        path = write("")
        os.truncate(path, MAX_FILE_BYTES + 1)

        with pytest.raises(CallersFileError, match="more than"):
            read(path)
