"""The feeds file: what it may say, and that each mistake is told with its field, its line and what to write instead."""

import ipaddress
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.errors import FeedsFileError, SettingsError
from loader.mirror.config import (
    AccountConfig,
    AccountKind,
    Config,
    MirrorConfig,
    PushRows,
    ReceiveConfig,
    check_password,
    parsed,
    read,
)
from tests.dice import often
from tests.loader.feeds import Command

FOLDER = Path("/etc/iyscheck")
ACCOUNT = """\
[[account]]
name = "acme"
kind = "provider"
code = 700001
username = "acme-api"
password_file = "acme.password"
"""
FULL = f"""\
[mirror]
url = "http://127.0.0.1:8080/"
interval = "5m"
idle_interval = "1h"
rate = 2.5
token_requests = 90
reconcile = false
reconcile_from = "03:30"
reconcile_until = "11:00"
agree = true
archive_keep = "0"
push_apply = "all"
directory = "/var/spool/iys"
authorities = "ca.pem"

{ACCOUNT}
[[account]]
name = "group"
kind = "integrator"
code = 700001
username = "g"
password_file = "/run/secrets/group"
brands = [600_001, 600_002]

[receive]
listen = "[::]:8443"
public_url = "https://push.example.com/iys"
certificate = "push.pem"
key = "push.key"
networks = ["192.0.2.0/24", "2001:db8::/32"]
"""


def of(text: str) -> Config:
    """Read a text as if it stood in /etc/iyscheck."""
    return parsed(text.encode(), "F", FOLDER)


class TestGood:
    """A file that is right."""

    def test_all_fields(self) -> None:
        """Each field is read, and paths count from the folder of the file."""
        assert of(FULL) == Config(
            accounts=(
                AccountConfig(
                    name="acme",
                    kind=AccountKind.PROVIDER,
                    code=700_001,
                    username="acme-api",
                    password_file=FOLDER / "acme.password",
                ),
                AccountConfig(
                    name="group",
                    kind=AccountKind.INTEGRATOR,
                    code=700_001,
                    username="g",
                    password_file=Path("/run/secrets/group"),
                    brands=frozenset({600_001, 600_002}),
                ),
            ),
            mirror=MirrorConfig(
                url="http://127.0.0.1:8080",
                interval_s=300,
                idle_interval_s=3_600,
                rate=2.5,
                token_requests=90,
                reconciles=False,
                reconcile_from_s=12_600,
                reconcile_until_s=39_600,
                agrees=True,
                archive_keep_s=0,
                push_apply=PushRows.ALL,
                directory=Path("/var/spool/iys"),
                authorities=FOLDER / "ca.pem",
            ),
            receive=ReceiveConfig(
                listen="[::]:8443",
                public_url="https://push.example.com/iys",
                certificate=FOLDER / "push.pem",
                key=FOLDER / "push.key",
                networks=(ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("2001:db8::/32")),
            ),
        )

    def test_defaults(self) -> None:
        """One account is enough."""
        found = of(ACCOUNT)

        assert (found.mirror, found.receive) == (MirrorConfig(), None)
        assert found.mirror.url == "https://api.iys.org.tr"
        assert not found.warnings

    def test_a_longer_interval_alone(self) -> None:
        """Idle brands are never asked more often than busy ones."""
        assert of('[mirror]\ninterval = "2h"\n' + ACCOUNT).mirror.idle_interval_s == 7_200

    def test_names_nobody(self) -> None:
        """The user name is not in what is printed of a configuration."""
        assert "acme-api" not in repr(of(ACCOUNT))

    @pytest.mark.parametrize(("accounts", "budget", "fits"), [(16, 10, True), (17, 10, False), (144, 90, True)])
    def test_tokens(self, accounts: int, budget: int, *, fits: bool) -> None:
        """More accounts than the tokens of an hour suffice for are warned of."""
        texts = [ACCOUNT.replace("acme", f"a{n}").replace("700001", str(n + 1)) for n in range(accounts)]

        warnings = of(f"[mirror]\ntoken_requests = {budget}\n" + "".join(texts)).warnings

        assert (not warnings) is fits
        assert fits or "At most 16 accounts fit" in warnings[0]


def account(rules: str = "", **replaced: str) -> str:
    """Give a file whose second account, in line 8, has other values, and `rules` in its last line."""
    second = ACCOUNT.replace("acme", "other").replace("700001", "700002")
    for key, value in replaced.items():
        second = re.sub(rf"^{key} = .*\n", f"{key} = {value}\n" if value else "", second, flags=re.MULTILINE)
    return f"{ACCOUNT}\n{second}{rules}\n"


def mirror(rule: str) -> str:
    """Give a file with one rule for the mirror, in line 2."""
    return f"[mirror]\n{rule}\n{ACCOUNT}"


def receive(*rules: str) -> str:
    """Give a file with a receiver from line 1 on."""
    return "\n".join(("[receive]", *rules, ACCOUNT))


MISTAKES = {
    "unknown table": (ACCOUNT + "[accounts]\n", 7, "accounts", "Known are: mirror, account, receive."),
    "one bracket": (ACCOUNT.replace("[[account]]", "[account]"), 1, "account", "two brackets"),
    "no account": ("[mirror]\n", None, "F", r"has no account.*\[\[account\]\]"),
    "inline": ("account = [5]\n", 1, "account[1]", "must be a table"),
    "unknown field": (account('pasword_file = "x"'), 14, "account[2].pasword_file", "Known are: name, kind, code, us"),
    "no name": (account(name=""), 8, "account[2].name", "is missing"),
    "name": (account(name='"Acme"'), 9, "account[2].name", "Take up to 40 of a to z"),
    "name twice": (account(name='"acme"'), 9, "account[2].name", r"is that of account\[1\] too"),
    "no kind": (account(kind=""), 8, "account[2].kind", "Known are: provider, integrator"),
    "kind": (account(kind='"partner"'), 10, "account[2].kind", "Known are: provider, integrator"),
    "kind of lists": (account(kind="[[]]"), 10, "account[2].kind", "Known are: provider, integrator"),
    "code text": (account(code='"700002"'), 11, "account[2].code", "whole number from 1.* Without quotes"),
    "code true": (account(code="true"), 11, "account[2].code", "whole number"),
    "no code": (account(code=""), 8, "account[2].code", "is missing"),
    "code twice": (account(code="700001"), 11, "account[2].code", r"is that of account\[1\] too"),
    "no username": (account(username=""), 8, "account[2].username", "is missing"),
    "blank username": (account(username='" "'), 12, "account[2].username", "must be a text"),
    "password file": (account(password_file=str(5)), 13, "account[2].password_file", "must be a text"),
    "no brands": (account("brands = []"), 14, "account[2].brands", 'or write brands = "all"'),
    "brands word": (account('brands = "some"'), 14, "account[2].brands", "must be a list"),
    "brand": (account('brands = [1, "2"]'), 14, "account[2].brands", "item 2 .*from 1 to 4294967295"),
    "unknown setting": (mirror('intervall = "5m"'), 2, "mirror.intervall", "Known are: url, interval"),
    "interval number": (mirror("interval = 300"), 2, "mirror.interval", 'from 60 to 86400 seconds.*"10m"'),
    "interval short": (mirror('interval = "59s"'), 2, "mirror.interval", "from 60"),
    "interval text": (mirror('interval = "often"'), 2, "mirror.interval", "from 60"),
    "idle": (mirror('idle_interval = "5m"'), 2, "mirror.idle_interval", "from 600"),
    "rate": (mirror("rate = 10"), 2, "mirror.rate", "from 0.1 to 9.0.*limit is 10"),
    "rate nan": (mirror("rate = nan"), 2, "mirror.rate", "from 0.1"),
    "rate true": (mirror("rate = true"), 2, "mirror.rate", "from 0.1"),
    "tokens": (mirror("token_requests = 100"), 2, "mirror.token_requests", "from 1 to 90"),
    "http": (mirror('url = "http://api.iys.org.tr"'), 2, "mirror.url", "must be https"),
    "file": (mirror('url = "file:///etc/passwd"'), 2, "mirror.url", "no address of İYS"),
    "user in url": (mirror('url = "https://a:b@api.iys.org.tr"'), 2, "mirror.url", "no address of İYS"),
    "port": (mirror('url = "https://a:99999"'), 2, "mirror.url", "no address of İYS"),
    "time": (mirror('reconcile_from = "24:00"'), 2, "mirror.reconcile_from", '"02:00"'),
    "times": (mirror('reconcile_from = "05:00"\nreconcile_until = "04:59"'), 3, "mirror.reconcile_until", "is before"),
    "flag": (mirror("agree = 1"), 2, "mirror.agree", "true or false"),
    "push": (mirror('push_apply = "approvals"'), 2, "mirror.push_apply", "Known are: refusals, all"),
    "mirror": ("mirror = 5\n" + ACCOUNT, 1, "mirror", "must be a table"),
    "listen": (receive('listen = "8443"'), 2, "receive.listen", "HOST:PORT"),
    "listen port": (receive('listen = "0.0.0.0:65536"'), 2, "receive.listen", "HOST:PORT"),
    "no listen": (receive('public_url = "https://a"'), 1, "receive.listen", "is missing"),
    "push over http": (
        receive('listen = "[::]:1"', 'public_url = "http://a"'),
        3,
        "receive.public_url",
        "İYS pushes to https only",
    ),
    "key alone": (receive('listen = "a:1"', 'public_url = "https://a"', 'key = "k"'), 1, "receive.certificate", "each"),
    "network": (
        receive('listen = "a:1"', 'public_url = "https://a"', 'networks = ["192.0.2.1/24"]'),
        4,
        "receive.networks",
        "item 1 is no network",
    ),
    "not TOML": (account("x"), 14, "F", "line 14 is not TOML"),
}


class TestMistakes:
    """A file with a mistake is refused whole."""

    @pytest.mark.parametrize(("text", "line", "name", "says"), MISTAKES.values(), ids=MISTAKES)
    def test_each(self, text: str, line: int | None, name: str, says: str) -> None:
        """Line, field and fix of each mistake."""
        with pytest.raises(FeedsFileError) as caught:
            of(text)

        assert (caught.value.line, caught.value.field) == (line, name)
        assert re.search(says, str(caught.value)), str(caught.value)
        assert caught.value.fix

    @given(
        content=st.builds(
            lambda place, cut, put: FULL[:place] + put + FULL[place + cut :],
            st.integers(0, len(FULL)),
            st.integers(0, 9),
            st.text(max_size=5) | st.sampled_from(["[", "]", '"', "= ", "\n", "[[account]]\n", "true", "-1"]),
        ).map(lambda text: text.encode("utf-8", "replace"))
    )
    @settings(max_examples=often(300), deadline=None)
    def test_any_edit(self, content: bytes) -> None:
        """Whatever an edit leaves is a configuration or our error, with a field."""
        try:
            named = parsed(content, "F", FOLDER).accounts[0].name
        except FeedsFileError as error:
            named = error.field

        assert named

    def test_private(self, tmp_path: Path) -> None:
        """A file that others can read or write is not taken, nor one that is not there or too large."""
        path = tmp_path / "feeds.toml"
        with pytest.raises(SettingsError, match="No such file"):
            read(path)
        path.write_text(ACCOUNT)
        for mode in (0o644, 0o620):
            path.chmod(mode)
            with pytest.raises(SettingsError, match=f"mode 0{mode:o}.* chmod 600"):
                read(path)
        path.chmod(0o600)
        assert read(path).accounts[0].password_file == tmp_path / "acme.password"
        path.write_text("#" * (1024 * 1024 + 1))
        with pytest.raises(FeedsFileError, match="more than"):
            read(path)


def test_config_check(tmp_path: Path) -> None:
    """`config check` reads the file and what it names: what would not work is told, and nothing of a password is."""
    command = Command(tmp_path)
    (tmp_path / "feeds.toml").write_text(f'[mirror]\ndirectory = "in"\n{ACCOUNT}')
    (tmp_path / "feeds.toml").chmod(0o600)
    password = tmp_path / "acme.password"
    password.write_text("hunter2-secret")
    password.chmod(0o644)

    bad = command.run("config", "check", "--config", "feeds.toml")
    password.chmod(0o600)
    (tmp_path / "in").mkdir()
    good = command.run("config", "check", "--config", "feeds.toml", "--json")

    assert (bad.returncode, good.returncode) == (1, 0)
    assert b"account[1].password_file: others can read or write" in bad.stdout
    assert b"mirror.directory: " in bad.stdout
    assert json.loads(good.stdout)["accounts"] == [{"name": "acme", "kind": "provider", "code": 700001}]
    assert b"hunter2" not in bad.stdout + bad.stderr + good.stdout + good.stderr


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "no password"),
        (b"\n", "no password"),
        (b"one\ntwo\n", "more in it"),
        (b"\xef\xbb\xbfone", "more in it"),
        (b"one\t", "more in it"),
        (b"\xff\xfeo\0", "not UTF-8"),
    ],
)
def test_no_password(tmp_path: Path, content: bytes, word: str) -> None:
    """A file that holds no password, or more than one, is told before İYS is asked with it."""
    file = tmp_path / "password"
    file.write_bytes(content)
    file.chmod(0o600)
    account = AccountConfig(name="a", kind=AccountKind.PROVIDER, code=1, username="a", password_file=file)
    with pytest.raises(SettingsError, match=word):
        check_password(account, "account[1].password_file")


def test_password(tmp_path: Path) -> None:
    """A password may have any letters, and a line end behind it."""
    file = tmp_path / "password"
    file.write_text("şifre mit Ümläuten 123 #\r\n")
    file.chmod(0o600)
    account = AccountConfig(name="a", kind=AccountKind.PROVIDER, code=1, username="a", password_file=file)
    check_password(account, "account[1].password_file")
