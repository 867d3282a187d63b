"""What people are told of a failure in Turkish: what it means comes first, and programs are told as ever."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from iyscheck.cli.failing import meaning
from iyscheck.cli.starting import asked
from iyscheck.errors import IyscheckError, ServiceError, ServiceUnavailableError
from iyscheck.sentences import Language
from tests.cli.commands import iyscheck

NOBODY = ("--server=127.0.0.1:1", "--timeout=0.001")
QUESTION = ("--brand=1", "--channel=mesaj", "--recipient-type=bireysel", "--lang=tr")
DETAILS = " Ayrıntı (İngilizce): "


def kinds(kind: type[IyscheckError] = IyscheckError) -> Iterator[type[IyscheckError]]:
    """Find all kinds of errors of ours, without those that a test makes for itself."""
    if kind.__module__ == IyscheckError.__module__:
        yield kind
    for each in kind.__subclasses__():
        yield from kinds(each)


@pytest.mark.parametrize("kind", [*kinds()])
def test_meanings(kind: type[IyscheckError]) -> None:
    """Each error has a meaning in Turkish, and where nobody answered it says not to send; English needs none."""
    error = kind.__new__(kind)
    said = meaning(error, Language.TURKISH)

    assert said[0].isupper()
    assert said.endswith(".")
    assert "göndermeyin" in said or not isinstance(error, ServiceError)
    assert not meaning(error, Language.ENGLISH)


@pytest.mark.parametrize("as_json", [False, True])
def test_check(*, as_json: bool) -> None:
    """A check that nobody answers says in Turkish not to send; a program reads what it always reads."""
    done = iyscheck("check", "05321234567", *QUESTION, *NOBODY, *(["--json"] if as_json else []))

    assert done.returncode == 2
    assert done.stderr.startswith(f"iyscheck: Sunucudan yanıt alınamadı: göndermeyin.{DETAILS}")
    if as_json:
        message = json.loads(done.stdout)["error"]["message"]
        assert "127.0.0.1:1" in message
        assert "göndermeyin" not in message


def test_scrub(tmp_path: Path) -> None:
    """A list that is not there, options that do not go together, and a server that is not there are told in Turkish."""
    (tmp_path / "list.csv").write_text("ad;telefon\na;05321234567\n")
    given = str(tmp_path / "list.csv")
    gone, clash, nobody = (
        iyscheck("scrub", *arguments, *QUESTION, *NOBODY)
        for arguments in ((str(tmp_path / "gone.csv"),), (given, "--split", "--only=denied"), (given,))
    )

    assert [each.returncode for each in (gone, clash, nobody)] == [2, 2, 2]
    for each in (gone, clash):
        assert each.stderr.startswith(f"iyscheck: Verilen seçenek ya da dosya ile bu yapılamaz.{DETAILS}")
    assert f"\niyscheck: Sunucudan yanıt alınamadı: göndermeyin.{DETAILS}" in nobody.stderr


def test_english() -> None:
    """In English an error is said as it is."""
    done = iyscheck("check", "05321234567", *QUESTION[:-1], *NOBODY)

    assert "127.0.0.1:1" in done.stderr
    assert "göndermeyin" not in done.stderr


def test_waiting(capsys: pytest.CaptureFixture[str]) -> None:
    """While nobody is there yet, that is said in Turkish too, once."""
    said = ""

    def ask(_left_s: float) -> str:
        nonlocal said
        said += capsys.readouterr().err
        if said:
            return "answer"
        raise ServiceUnavailableError("Nobody.", code="UNAVAILABLE")

    assert asked(ask, 60, Language.TURKISH) == "answer"
    assert said == "iyscheck: Sunucu henüz yanıt vermiyor; en çok 60 s beklenecek.\n"
