"""What a machine shows of our processes: command lines, variables, limits, logs and metrics tell no secret."""

import base64
import os
import resource
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from iyscheck.callers.identity import NewKey
from iyscheck.cli.certs import CLIENT_NAME
from iyscheck.dumps import leave_no_dumps
from iyscheck.engine import Engine
from tests.builders import ADDRESS_KEY, STORE_KEY, StoreBuilder
from tests.processes import START_S, Site, turkish_now
from tests.server.processes.running import eventually

BRAND = 600123
PHONE = "5321112233"
NO_DUMP = ["0", "0"] if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0 else ["1", "1"]
QUICK = {"PYTHONPATH": str(Path(__file__).parent / "server" / "processes" / "without_numba")}
ADDRESSES = (PHONE, PHONE[1:], "532 111 22 33", "ayse.ozel")
FEED: list[Mapping[str, object] | str] = [
    {"kind": "brand", "brandCode": BRAND, "iysCode": 1, "active": True, "creationDate": "2024-01-01 09:00:00"},
    *(
        {
            "brandCode": BRAND,
            "recipient": recipient,
            "recipientType": "BIREYSEL",
            "type": channel,
            "status": "ONAY",
            "source": "HS_WEB",
            "consentDate": "2024-05-02 10:00:00",
            "creationDate": "2024-05-02 10:05:00",
        }
        for recipient, channel in ((f"+90{PHONE}", "MESAJ"), ("ayse.ozel@example.com", "EPOSTA"))
    ),
    {"kind": "watermark", "completeUntil": turkish_now()},
]


def children(pid: int) -> list[int]:
    """List the processes that a process has started."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def shown(pid: int) -> str:
    """Read what a machine shows of a process to its user."""
    return "".join(Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace") for name in ("cmdline", "environ"))


def core_limits(pid: int) -> list[str]:
    """Read how large a core dump of a process may be."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line for line in lines if line.startswith("Max core file size")).split()[4:6]


@contextmanager
def started(folder: Path, *command: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run one of our commands, whose output is kept in files; its input is ours."""
    name = "-".join(command[:2])
    with (folder / f"{name}.out").open("wb") as out, (folder / f"{name}.err").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=err,
            env=os.environ | QUICK,
            preexec_fn=unlimited,  # noqa: PLW1509 - a limit of ours, before anything else runs
        )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def unlimited() -> None:
    """Let a process leave as large a dump as this one may."""
    most = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))


class Scene:
    """Everything at work: certificates, callers, a loader that follows, a server with workers, and who asks it."""

    def __init__(self, folder: Path) -> None:
        self.site = Site.make(folder)
        self.certs = folder / "certs"
        self.api_key = NewKey.create()
        made = [sys.executable, "-m", "iyscheck", "certs", "dev", str(self.certs)]
        subprocess.run(made, check=True, capture_output=True)
        (folder / "api.key").touch(0o600)
        (folder / "api.key").write_text(f"{self.api_key.text}\n")
        (folder / "callers.toml").write_text(
            f'[caller.acme]\nkeys = ["{self.api_key.key.line}"]\ncertificates = ["dns:{CLIENT_NAME}"]\n'
            f'brands = "all"\naddresses = true\n'
        )
        (folder / "feeds").mkdir()

    @property
    def secrets(self) -> list[str]:
        """What must not be seen: keys in the ways in which they may be written, and addresses."""
        folder = self.site.folder
        secrets = [each.read_text().split()[-1] for each in (folder / "address.key", folder / "store.key")]
        raw = [bytes.fromhex(each) for each in secrets]
        private = [line for each in self.certs.glob("*.key") for line in each.read_text().splitlines()[1:-1]]
        _, _, own = self.api_key.text.rpartition("_")
        return [
            *secrets,
            *(each.upper() for each in secrets),
            *(base64.b64encode(each).decode() for each in raw),
            *(repr(each)[2:-1] for each in raw),
            *private,
            own,
            *ADDRESSES,
        ]

    @property
    def serve(self) -> list[str]:
        """The server's command."""
        folder = self.site.folder
        tls = [f"--tls-cert={self.certs / 'server.pem'}", f"--tls-key={self.certs / 'server.key'}"]
        listen = ["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", "--workers=2", "--drain-seconds=0"]
        callers = [f"--tls-client-ca={self.certs / 'ca.pem'}", f"--callers={folder / 'callers.toml'}"]
        return ["iyscheck", "serve", *self.site.flags, *tls, *callers, *listen]

    @property
    def follow(self) -> list[str]:
        """The loader's command."""
        where = [str(self.site.folder / "feeds"), "--settle-seconds=0.1", "--metrics-listen=127.0.0.1:0"]
        return ["loader", "follow", *where, *self.site.flags]

    def check(self, target: str) -> list[str]:
        """A question's command, whose address comes from the standard input."""
        pair = [f"--tls-cert={self.certs / 'client.pem'}", f"--tls-key={self.certs / 'client.key'}"]
        reach = [f"--server={target}", f"--tls-ca={self.certs / 'ca.pem'}", *pair]
        keys = [f"--api-key-file={self.site.folder / 'api.key'}", f"--address-key={self.site.folder / 'address.key'}"]
        who = [f"--brand={BRAND}", "--channel=mesaj", "--recipient-type=bireysel", "--timeout=60", "--json"]
        return ["iyscheck", "check", "-", *who, *reach, *keys]


@pytest.mark.slow
def test_nothing_secret_in_ps(tmp_path: Path) -> None:
    """No key and no address is in what the system shows of loader, server, workers and client, or in what they write.

    None of them leaves a core dump.
    """
    scene = Scene(tmp_path)
    log = tmp_path / "iyscheck-serve.err"
    with started(tmp_path, *scene.follow) as loader:
        scene.site.feed("feeds/first.jsonl", FEED)
        eventually(lambda: "source loaded" in (tmp_path / "loader-follow.err").read_text(), "nothing is loaded")
        with started(tmp_path, *scene.serve) as server:
            said = scene.site.ready(server, log)
            with started(tmp_path, *scene.check(said["listen"])) as client:
                eventually(lambda: "--channel" in shown(client.pid), "it does not begin")
                eventually(lambda: core_limits(client.pid) == NO_DUMP, "the client may leave a dump")
                pids = {"loader": loader.pid, "server": server.pid, "client": client.pid}
                pids |= {f"worker {number}": pid for number, pid in enumerate(children(server.pid))}
                seen = {name: shown(pid) for name, pid in pids.items()}
                limits = {name: core_limits(pid) for name, pid in pids.items()}
                client.communicate(f"0{PHONE}\n".encode(), START_S)
            metrics = metrics_of(scene, said)
            server.terminate()
            ended = server.wait(START_S)

    written = {path.name: path.read_text() for path in tmp_path.glob("*.err")}
    written |= {path.name: path.read_text() for path in tmp_path.glob("*.out")}
    assert (client.returncode, ended) == (0, 0)
    assert '"CONSENTED"' in written["iyscheck-check.out"]
    assert len(pids) == 5
    assert all("address.key" in seen[name] for name in ("loader", "server", "client"))
    assert "acme" in metrics
    for name, text in (seen | written | {"metrics": metrics}).items():
        assert not [number for number, secret in enumerate(scene.secrets) if secret in text], f"found in {name}"
    assert all(limit == NO_DUMP for limit in limits.values())


def metrics_of(scene: Scene, said: dict[str, str]) -> str:
    """Scrape the server, which demands a certificate."""
    import ssl

    context = ssl.create_default_context(cafile=str(scene.certs / "ca.pem"))
    context.load_cert_chain(scene.certs / "client.pem", scene.certs / "client.key")
    with urllib.request.urlopen(f"https://{said['metrics_listen']}/metrics", timeout=20, context=context) as page:
        return str(page.read().decode())


def test_engine_changes_no_limit(tmp_path: Path) -> None:
    """An engine leaves the limits of the program that it is in alone."""
    StoreBuilder(tmp_path / "store").close()
    before = resource.getrlimit(resource.RLIMIT_CORE)
    with Engine.open(tmp_path / "store", store_key=STORE_KEY, address_key=ADDRESS_KEY):
        assert resource.getrlimit(resource.RLIMIT_CORE) == before


CRASH = """
import os, resource
most = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (most, most))
from iyscheck.dumps import leave_no_dumps
{before}
os.abort()
"""


def test_crash(tmp_path: Path) -> None:
    """A process that crashes leaves nothing, whatever it was allowed before."""
    done = subprocess.run([sys.executable, "-c", CRASH.format(before="leave_no_dumps()")], check=False, cwd=tmp_path)

    assert done.returncode == -6
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("before", "after"), [((0, 0), None), ((0, 5), (1, 1)), ((-1, -1), (1, 1)), ((4096, 4096), (1, 1))]
)
def test_limits(monkeypatch: pytest.MonkeyPatch, before: tuple[int, int], after: tuple[int, int] | None) -> None:
    """The limit is the one that stops files and programs alike; one that may not be raised stays."""
    found: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: before)
    note: Callable[[int, tuple[int, int]], None] = lambda _, limits: found.append(limits)  # noqa: E731 - one line
    monkeypatch.setattr(resource, "setrlimit", note)

    leave_no_dumps()

    assert found == ([] if after is None else [after])
