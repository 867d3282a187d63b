"""No output fails for its letters, whatever the encoding: the words are there, and the exit codes are README's."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from iyscheck import output
from iyscheck.cli.app import app as iyscheck_app
from iyscheck.consent import Reason
from iyscheck.sentences import Language, explain
from loader.cli.app import app as loader_app

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
