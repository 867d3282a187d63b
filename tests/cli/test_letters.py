"""No output fails for its letters, whatever the encoding: the words are there, and the exit codes are README's."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest
from typer.main import get_command

from iyscheck import output
from iyscheck.cli import status
from iyscheck.cli.app import app as iyscheck_app
from iyscheck.client import sync
from iyscheck.consent import Reason
from iyscheck.errors import ServiceFailedError
from iyscheck.overview import Loaded, Overview, Rejected, SourceOverview
from iyscheck.sentences import Language, explain
from loader.cli.app import app as loader_app
from loader.reports.status import SourceStatus, StoreStatus, print_status
from tests.console.world import overview, source

ENCODINGS = ["ascii", "iso-8859-1", "iso-8859-9", "cp437", "utf-8"]
HOSTILE = {"PYTHONIOENCODING": "", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}


def printed(text: str, encoding: str) -> bytes:
    """Print a text as the commands do, where there is only this encoding."""
    found = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(found, encoding=encoding, write_through=True))
        output.take_any_letter()
        print(text)  # noqa: T201 - what is tested
        return found.getvalue()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_turkish(encoding: str) -> None:
    """Each sentence is printed in Turkish; a letter that the encoding lacks becomes its plain one."""
    sentences = [explain(reason, Language.TURKISH) for reason in Reason if reason is not Reason.UNSPECIFIED]

    text = printed(" ".join(f"{each.why} {each.do}" for each in sentences), encoding).decode(encoding)

    assert "\\" not in text
    assert "ONAY" in text


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("text", ["İYS ıİşŞğĞ çÇöÖüÜ", "日本 🙂", "\udcfe", "“a” – b…", "\x00\x7f"], ids=ascii)
def test_any_text(encoding: str, text: str) -> None:
    """Any text can be printed, and what is ASCII in it stays."""
    assert printed(f"{text} end", encoding).decode(encoding).endswith(" end\n")


@pytest.mark.parametrize("odd", ["\x1b[31m", "\n", "\r", "\x9b", "\u202e", "\u2066", "\u2028", "\x7f"], ids=ascii)
def test_nothing_steers(odd: str) -> None:
    """A name cannot steer a terminal, break a line or turn letters round; it is still to be told from others."""
    text = output.visible(f"İşte {odd}.csv")

    assert text.isprintable()
    assert text.startswith("İşte \\")
    assert text != output.visible("İşte .csv")


@pytest.mark.parametrize("name", ["a.csv", "it's", "a\x1b[2J'\\\n;b", "\u202e'$(x)", "İ ü"], ids=ascii)
def test_shell_word(name: str) -> None:
    """A name in a command is one word of it, the same name, and nothing else."""
    word = output.shell_word(name)
    read = subprocess.run(
        ["bash", "-c", f"printf %s {word}"], capture_output=True, check=True, env={**os.environ, "LC_ALL": "C.UTF-8"}
    )

    assert word.isprintable()
    assert read.stdout.decode() == name


def test_nothing_said_steers(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither what is said nor an error steers a terminal; lines and columns of what is said stay, an error has one."""
    output.say("a\tb\nc\x1b[2J")
    output.tell_error("iyscheck", ServiceFailedError("x\x1b[2J\n\u202e"), with_json=False)
    told = capsys.readouterr()

    assert told.out == "a\tb\nc\\x1b[2J\n"
    assert told.err == "iyscheck: x\\x1b[2J\\n\\u202e\n"


def test_status_of_odd_names(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a server's words nor the names of sources steer the terminal of who asks how things are."""
    odd = "a\x1b]0;x\x07\n\u202e"

    class Told:
        """A server whose words are odd."""

        def __init__(self, *_: object, **__: object) -> None:
            self.admin = self

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def status(self, **_: object) -> Overview:
            return overview(version=odd)

        def all_brands(self, **_: object) -> list[object]:
            return []

        def all_sources(self, **_: object) -> list[SourceOverview]:
            return [source(odd, Loaded.HELD, [Rejected(line=1, field=odd, reason=odd)])]

    monkeypatch.setattr(sync, "Client", Told)
    status.status()
    print_status(
        StoreStatus(
            log_id="0",
            sequence=0,
            records=0,
            counts=[],
            brands=[],
            sources=[SourceStatus(name=odd, finished=False, rows=1, rejected=0, holds=[])],
            streams=[],
        ),
        as_json=False,
    )
    printed_ = capsys.readouterr().out

    assert printed_.count("\\x1b]0;x\\x07\\n\\u202e") == 5
    assert printed_.replace("\n", "").isprintable()


def test_plain_letters() -> None:
    """Turkish in ASCII is Turkish without its marks."""
    assert printed("İYS'de izin yok: ışığı söndür, ğüşç", "ascii") == b"IYS'de izin yok: isigi sondur, gusc\n"


def test_json() -> None:
    """JSON for programs is ASCII and reads back as it was."""
    value = {"why": explain(Reason.REFUSED, Language.TURKISH).why, "name": "İ ü \udcfe"}

    text = output.as_json(value)

    assert text.isascii()
    assert json.loads(text) == value


HELP = """
import sys
from iyscheck.cli.app import main as iyscheck
from loader.cli.app import main as loader

for name, *rest in {asked!r}:
    sys.argv = [name, *rest, "--help"]
    try:
        {{"iyscheck": iyscheck, "loader": loader}}[name]()
    except SystemExit as end:
        assert not end.code, (name, rest, end.code)
"""


def commands(name: str) -> list[list[str]]:
    """List a command and its subcommands."""
    root = get_command({"iyscheck": iyscheck_app, "loader": loader_app}[name])
    return [[name], *([name, each] for each in sorted(root.commands))]  # type: ignore[attr-defined] # both are groups


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1"])
def test_every_help(encoding: str) -> None:
    """Every help text of both commands is printed, in a process that can print few letters, with exit code 0."""
    program = HELP.format(asked=[*commands("iyscheck"), *commands("loader")])

    ran = run(["-c", program], encoding)

    assert ran.returncode == 0, ran.stderr.decode("utf-8", "replace")
    assert ran.stdout.count(b"--help") >= 10


def test_errors(tmp_path: Path) -> None:
    """An error that names a file of odd letters ends with its sentence and exit code 2, in text and in JSON."""
    odd = os.fsencode(tmp_path) + b"/\xfe\xc4\xb0.jsonl"
    flags = [b"--store=s", b"--address-key=none", b"--store-key=none"]

    told = run([b"-m", b"loader", b"load", odd, *flags], "ascii", tmp_path)
    as_json = run([b"-m", b"loader", b"load", odd, *flags, b"--json"], "ascii", tmp_path)

    assert (told.returncode, as_json.returncode) == (2, 2)
    assert b"none does not exist" in told.stderr
    assert json.loads(as_json.stdout)["error"]["message"]


def run(
    arguments: list[str] | list[bytes], encoding: str, folder: Path | None = None
) -> "subprocess.CompletedProcess[bytes]":
    """Run Python where little can be printed."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, **HOSTILE, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder or root, env=environment, capture_output=True, check=False, timeout=60
    )
