"""The Python that documentation shows runs as it stands, against a real store or server."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from iyscheck import engine
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.server.app import Server
from iyscheck.server.log import open_log
from iyscheck.server.settings import PREFIX, Settings, default_text
from loader.cli.app import app
from tests.loader.replication.servers import free_ports
from tests.processes import Site, turkish_now

ROOT = Path(__file__).parent.parent
ROWS: list[dict[str, object]] = [
    {"kind": "brand", "brandCode": 600123, "iysCode": 1, "active": True, "creationDate": "2024-01-01 09:00:00"},
    {
        "brandCode": 600123,
        "recipient": "+905321234567",
        "recipientType": "BIREYSEL",
        "type": "MESAJ",
        "status": "ONAY",
        "source": "HS_WEB",
        "consentDate": "2024-05-02 10:00:00",
        "creationDate": "2024-05-02 10:05:00",
    },
]


def blocks(text: str) -> list[str]:
    """Return the blocks of Python of a text."""
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


README = [block for block in blocks((ROOT / "README.md").read_text()) if "iyscheck.engine" in block]
MODULE = blocks(engine.__doc__ or "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as the documentation's: keys in `keys`, a loaded store in `store`."""
    (tmp_path / "keys").mkdir()
    AddressKey.create(tmp_path / "keys" / "address.key")
    StoreKey.create(tmp_path / "keys" / "store.key")
    site = Site(folder=tmp_path)
    for name in ("address.key", "store.key"):
        (tmp_path / name).symlink_to(tmp_path / "keys" / name)
    watermark: dict[str, object] = {"kind": "watermark", "completeUntil": turkish_now()}
    assert site.load(str(site.feed("rows.jsonl", [*ROWS, watermark]))) == 0, site.printed
    return tmp_path


def run(folder: Path, program: str) -> str:
    """Run a program in a folder; return what it printed."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


class TestEmbedded:
    """The embedded mode's chapter and the head of its module."""

    def test_readme(self, folder: Path) -> None:
        """The chapter's program permits who consented, with its evidence."""
        (program,) = README

        assert run(folder, program).startswith("True CONSENTED Evidence(status=<Status.ONAY: 1>")

    def test_module(self, folder: Path) -> None:
        """The module's program answers singly, in a batch and in a column."""
        (program,) = MODULE

        printed = run(folder, program + "\nprint(may_send, allowed)")

        assert printed.splitlines() == ["CONSENTED", "NO_CONSENT", "True ['+90 532 123 45 67']"]

    def test_one_line(self, folder: Path) -> None:
        """With the one line that opens changed for a client's, the chapter's program says the same."""
        (program,) = README
        keys = folder / "keys"
        settings = Settings.read(
            store=folder / "store",
            address_key=keys / "address.key",
            store_key=keys / "store.key",
            listen="127.0.0.1:0",
            metrics_listen="",
            drain_seconds=0,
        )
        opening = re.compile(r"^with Engine\.open\(.*\) as engine:", re.MULTILINE)
        with Server.start(settings, open_log("error", io.StringIO())) as server:
            client = f'with Client("{server.address}", address_key=address_key, timeout_s=10) as engine:'
            changed, times = opening.subn(client, program)
            asked = run(folder, "from iyscheck.client import Client\n" + changed)

        assert times == 1
        assert asked == run(folder, program)


def commands(chapter: str) -> str:
    """Return the commands of a chapter of the README, as they stand there."""
    text = (ROOT / "README.md").read_text().partition(f"\n## {chapter}\n")[2].partition("\n## ")[0]
    return "".join(f"{line.removeprefix('    ')}\n" for line in text.splitlines() if re.match(" {4}|$", line))


class TestMoreThanOneMachine:
    """The chapter's commands, behind those of the first five minutes."""

    @pytest.mark.thorough
    def test_readme(self, tmp_path: Path) -> None:
        """As they stand there a replica permits what the primary loaded, and refuses as soon as the primary does."""
        first, second = commands("Five minutes"), commands("More than one machine")
        made = first[first.index("iyscheck keys create keys") : first.index("iyscheck serve")]
        script = made + second[second.index("nats-server ") :]
        nats, monitor, served = free_ports(3)
        for was, becomes in (
            ("--addr 127.0.0.1", f"--addr 127.0.0.1 --port {nats} --http_port {monitor}"),
            ("127.0.0.1:4222", f"127.0.0.1:{nats}"),
            ("50061", str(served)),
        ):
            assert was in script, was
            script = script.replace(was, becomes)
        script, checks = re.subn(r"^(iyscheck check .*)$", r"\1; echo answered $?", script, flags=re.MULTILINE)
        path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
        ran = subprocess.run(
            ["bash", "-c", script + "wait\n"],
            cwd=tmp_path,
            env={"PATH": path, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

        assert checks == 2
        assert re.findall(r"answered (\d)", ran.stdout) == ["0", "1"], ran.stdout + ran.stderr


SHOWN = re.compile(r"(?:(?<=[\s`/(])|^)iyscheck-loader ([a-z][a-z-]+[^`\n#|&;<>]*)", re.MULTILINE)
"""A command of the loader, as far as it goes, on a line of its own or between words."""
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "deploy").glob("*.md"))]


class TestLoader:
    """The loader's commands, wherever they are shown."""

    @pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
    def test_flags(self, document: Path) -> None:
        """A command that is there is shown with flags that it has."""
        root: Any = typer.main.get_command(app)
        for found in SHOWN.finditer(document.read_text().replace("\\\n", " ")):
            command, known = root, set[str]()
            for word in found[1].split():
                if word in getattr(command, "commands", {}):
                    command = command.commands[word]
                    known |= {flag for each in command.params for flag in (*each.opts, *each.secondary_opts)}
            given = set(re.findall(r"(?<=\s)--[a-z][a-z-]*", found[0]))
            assert command is root or given <= known | {"--help"}, found[0]


class TestSettings:
    """The table of the server's settings."""

    def test_readme(self) -> None:
        """README lists each setting with its flag, variable, default and description, in the order of `--help`."""
        rows = re.findall(
            r"^\| `(--\S+)` \| `(\w+)` \| (.*?) \| (.*?) \|$", (ROOT / "README.md").read_text(), re.MULTILINE
        )
        shown = [(flag, variable, default.strip("`"), text) for flag, variable, default, text in rows]

        assert shown == [
            (f"--{name.replace('_', '-')}", PREFIX + name.upper(), default_text(name) or "none", field.description)
            for name, field in Settings.model_fields.items()
        ]
