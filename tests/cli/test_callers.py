"""`iyscheck callers`: keys are shown once, files are told as they are, dry runs say what a server would."""

import hashlib
import json
from dataclasses import fields
from pathlib import Path

import pytest

from iyscheck.callers.scopes import CALL_NAMES
from iyscheck.cli.callers_sentences import CALLER_WORDS, VERDICTS, Verdict
from iyscheck.errors import CallerUnknownError, ScopeError
from iyscheck.sentences import Language
from tests.cli.commands import iyscheck

ASK = ("--caller", "acme", "--brand", "600123", "--channel", "mesaj")


@pytest.fixture
def key(tmp_path: Path) -> str:
    """A key of `acme`, whose callers file is in the folder."""
    made = json.loads(iyscheck("callers", "new-key", "acme", "--json").stdout)
    rules = 'brands = [600123]\nchannels = ["MESAJ"]\ncalls = ["check", "info"]\nrate = 50_000\n'
    codes = '[caller.codes]\ncertificates = ["dns:codes.example"]\nbrands = []\naddresses = true\nstreams = 2\n'
    (tmp_path / "callers.toml").write_text(f'[caller.acme]\nkeys = ["{made["line"]}"]\n{rules}{codes}')
    text: str = made["key"]
    return text


@pytest.fixture
def file(key: str, tmp_path: Path) -> str:
    """The path of the callers file."""
    return str(tmp_path / "callers.toml")


class TestNewKey:
    """A key is made and shown once."""

    def test_texts(self) -> None:
        """Standard output has the key and nothing else; the line for the file beside it is its SHA-256."""
        done = iyscheck("callers", "new-key", "acme")

        key = done.stdout.removesuffix("\n")
        assert done.returncode == 0
        assert key.count("\n") == 0
        line = f'"{key.split("_")[1]}:{hashlib.sha256(key.encode()).hexdigest()}"'
        assert line in done.stderr.splitlines()
        assert key.split("_")[2] not in done.stderr

    def test_json(self) -> None:
        """A program gets key, id and line."""
        made = json.loads(iyscheck("callers", "new-key", "acme", "--json").stdout)

        assert made.keys() == {"caller", "key", "key_id", "line"}
        assert made["line"].startswith(made["key_id"] + ":")

    def test_name(self) -> None:
        """A name that no file could have is refused, and a key in its place is not shown again."""
        key = iyscheck("callers", "new-key", "acme").stdout.strip()

        for name in ("a b", "", "anonymous", "ş", key):
            done = iyscheck("callers", "new-key", name)
            assert (done.returncode, done.stdout) == (2, "")
            assert "1 to 64 letters" in done.stderr
            assert key not in done.stderr


class TestList:
    """The callers of a file."""

    def test_json(self, file: str) -> None:
        """A program gets every rule of every caller, and of keys the ids only."""
        acme, codes = json.loads(iyscheck("callers", "list", file, "--json").stdout)["callers"]

        assert len(acme.pop("key_ids")) == 1
        assert acme == {
            "name": "acme",
            "certificates": [],
            "brands": [600123],
            "channels": ["MESAJ"],
            "calls": ["check", "info"],
            "addresses": False,
            "rate": 50_000,
            "streams": None,
        }
        assert (codes["brands"], codes["certificates"], codes["streams"]) == ([], ["dns:codes.example"], 2)

    def test_text(self, file: str, key: str) -> None:
        """People get the same in words, in their language."""
        english, turkish = iyscheck("callers", "list", file), iyscheck("callers", "list", file, "--lang", "tr")

        assert "  rate          50000 recipients a second\n" in english.stdout
        assert "  brands        none: exempt messages only\n" in english.stdout
        assert "saniyede 50000 alıcı" in turkish.stdout
        for name in ("acme", "codes", key.split("_")[1]):
            assert name in english.stdout
            assert name in turkish.stdout

    def test_bad_file(self, file: str) -> None:
        """A file with a mistake is an error with field and line."""
        with Path(file).open("a") as opened:
            opened.write("rates = 5\n")

        for command in (("list",), ("check",), ("whoami",)):
            done = iyscheck("callers", *command, file, "--json")
            error = json.loads(done.stdout)["error"]
            assert done.returncode == 2
            assert error["reason"] == "CALLERS_FILE_UNUSABLE"
            assert error["field"] == "caller.codes.rates"
            assert f"{file}, line 12" in error["message"]


class TestCheck:
    """Dry runs."""

    def test_file(self, file: str) -> None:
        """A file that can be used is counted."""
        text, answer = iyscheck("callers", "check", file), iyscheck("callers", "check", file, "--json")

        assert (text.returncode, answer.returncode) == (0, 0)
        assert text.stdout == "The file can be used. Callers: 2, keys: 1, certificates: 1.\n"
        assert json.loads(answer.stdout) == {"callers": 2, "keys": 1, "certificates": 1}

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ((*ASK, "--call", "check"), "IN_SCOPE"),
            (("--caller", "acme", "--call", "info"), "IN_SCOPE"),
            ((*ASK, "--call", "check", "--brand", "7", "--class", "security-code", "--plaintext"), "EXEMPT_MESSAGE"),
            ((*ASK, "--call", "batch"), "CALL_NOT_ALLOWED"),
            ((*ASK, "--call", "batch", "--class", "security-code"), "CALL_NOT_ALLOWED"),
            (("--caller", "acme", "--call", "admin"), "CALL_NOT_ALLOWED"),
            ((*ASK, "--call", "check", "--brand", "7"), "BRAND_NOT_IN_SCOPE"),
            ((*ASK, "--call", "check", "--channel", "EPOSTA"), "CHANNEL_NOT_IN_SCOPE"),
            ((*ASK, "--call", "check", "--plaintext"), "ADDRESSES_NOT_ALLOWED"),
            ((*ASK, "--call", "check", "--caller", "codes"), "BRAND_NOT_IN_SCOPE"),
        ],
    )
    def test_question(self, file: str, options: tuple[str, ...], reason: str) -> None:
        """One question is let in (0) or not (1), with the reason that a server gives."""
        text, answer = (
            iyscheck("callers", "check", file, *options),
            iyscheck("callers", "check", file, *options, "--json"),
        )

        allowed = reason in {"IN_SCOPE", "EXEMPT_MESSAGE"}
        assert text.returncode == answer.returncode == (0 if allowed else 1)
        assert text.stdout.splitlines()[0] == f"{'ALLOWED' if allowed else 'NOT ALLOWED'}  {reason}"
        fields_ = json.loads(answer.stdout)
        assert (fields_["allowed"], fields_["reason"]) == (allowed, reason)
        assert text.stdout.splitlines()[1] == f"{fields_['why']} {fields_['do']}"

    @pytest.mark.parametrize(
        "options",
        [
            ("--caller", "nobody", "--call", "info"),
            ("--caller", "acme"),
            ("--call", "check"),
            ("--brand", "1"),
            ("--plaintext",),
            ("--class", "delivery"),
            ("--caller", "acme", "--call", "check", "--brand", "1"),
            ("--caller", "acme", "--call", "check", "--channel", "mesaj"),
            ("--caller", "acme", "--call", "nonsense"),
        ],
        ids=" ".join,
    )
    def test_half_a_question(self, file: str, options: tuple[str, ...]) -> None:
        """What cannot be asked is an error, neither allowed nor not."""
        done = iyscheck("callers", "check", file, *options)

        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr


class TestWhoami:
    """Whose key it is; the key comes by the input only."""

    @pytest.mark.parametrize("form", ["{}", "{}\n", "  {}\r\n", "Bearer {}\n", "bearer {}"])
    def test_known(self, file: str, key: str, form: str) -> None:
        """A key is known with and without the word of its header; it is not shown."""
        done = iyscheck("callers", "whoami", file, "--json", text=form.format(key))

        assert done.returncode == 0
        assert json.loads(done.stdout) == {"caller": "acme", "key_id": key.split("_")[1]}

    def test_text(self, file: str, key: str) -> None:
        """People get a sentence."""
        done = iyscheck("callers", "whoami", file, text=key)

        assert done.stdout == f"This is a key of acme (id {key.split('_')[1]}).\n"
        assert done.stderr == ""

    def test_unknown(self, file: str, key: str) -> None:
        """A key of nobody, or a damaged one, ends with 1; none of it is shown."""
        for text in (key[:-1], "nonsense", iyscheck("callers", "new-key", "acme").stdout, f"Basic {key}"):
            done = iyscheck("callers", "whoami", file, text=text)
            assert done.returncode == 1
            assert done.stdout.startswith("NOT ALLOWED  CALLER_UNKNOWN\n")
            assert text.split("_")[-1] not in done.stdout + done.stderr

    @pytest.mark.parametrize("text", ["", "\n", "a b c"])
    def test_no_key(self, file: str, text: str) -> None:
        """An input without one key is an error."""
        done = iyscheck("callers", "whoami", file, text=text)

        assert (done.returncode, done.stdout) == (2, "")
        assert "exactly one key" in done.stderr


class TestSentences:
    """Every verdict in every language."""

    def test_complete(self) -> None:
        """No sentence or word is missing, and none is left standing in the other language."""
        english, turkish = (VERDICTS[language] for language in Language)

        assert english.keys() == turkish.keys() == set(Verdict)
        assert all(english[verdict] != turkish[verdict] for verdict in Verdict)
        for explanation in (*english.values(), *turkish.values()):
            assert explanation.why.endswith(".")
            assert explanation.do.endswith(".")
        for field in fields(CALLER_WORDS[Language.ENGLISH]):
            values = [getattr(CALLER_WORDS[language], field.name) for language in Language]
            assert all(values)
            assert values[0] != values[1]

    def test_reasons(self) -> None:
        """Each refusal of a scope has its sentence."""
        reasons = {kind.reason for kind in ScopeError.__subclasses__()} | {CallerUnknownError.reason}

        assert reasons == {verdict.value for verdict in Verdict if not verdict.allowed}


@pytest.mark.parametrize("command", ["new-key", "list", "check", "whoami"])
def test_help(command: str) -> None:
    """Each command's help shows how to call it."""
    done = iyscheck("callers", command, "--help")

    assert done.returncode == 0
    assert f"iyscheck callers {command} " in done.stdout
    assert set(CALL_NAMES) <= set(done.stdout.replace(",", " ").replace(".", " ").split()) or command != "check"
