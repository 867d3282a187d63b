"""A caller's key goes out in its own form only, and in plain text to this machine only."""

import asyncio
import os
from pathlib import Path

import pytest

from iyscheck.callers.identity import NewKey
from iyscheck.client import AsyncClient, Client, Tls
from iyscheck.client.route import is_near
from iyscheck.errors import SettingsError
from tests.server.test_tls import command

KEY = NewKey.create().text
NEAR = [
    "127.0.0.1:50051",
    "127.8.8.8",
    "localhost:50051",
    "LocalHost",
    "[::1]:50051",
    "::1",
    "unix:/run/iyscheck/socket",
    "unix-abstract:name",
    "dns:localhost:50051",
    "dns:///localhost:50051",
    "ipv4:127.0.0.1:50051,127.0.0.2:50051",
    "ipv6:[::1]:50051",
]
FAR = [
    "10.9.9.1:6001",
    "0.0.0.0:50051",
    "iyscheck:50051",
    "localhost.example:50051",
    "127.0.0.1.example:50051",
    "[fe80::1]:50051",
    "[::1].example:50051",
    "dns:///server.example:50051",
    "dns://10.9.9.1/localhost:50051",
    "ipv4:127.0.0.1:50051,10.9.9.1:50051",
    "xds:///localhost",
]


@pytest.mark.parametrize("target", NEAR)
def test_near(target: str) -> None:
    """To this machine a key may go in plain text."""
    assert is_near(target)
    Client(target, api_key=KEY).close()


@pytest.mark.parametrize("target", FAR)
def test_far(target: str) -> None:
    """To every other it goes only over TLS, or where the caller says that the network is trusted."""
    with pytest.raises(SettingsError, match=r"in plain text, and the network could read it\. Encrypt") as refused:
        Client(target, api_key=KEY)
    assert KEY not in str(refused.value)
    Client(target, api_key=KEY, tls=Tls()).close()
    Client(target, api_key=KEY, insecure=True).close()
    Client(target).close()


def test_far_by_tasks() -> None:
    """The client for asyncio has the same rule."""

    async def made(*, insecure: bool) -> None:
        await AsyncClient("10.9.9.1:1", api_key=KEY, insecure=insecure).close()

    with pytest.raises(SettingsError, match="in plain text"):
        asyncio.run(made(insecure=False))
    asyncio.run(made(insecure=True))


@pytest.mark.parametrize(
    "wrong",
    ["beta.key", f"Bearer {KEY}", f"{KEY}\n", KEY[:-1], KEY.upper(), "", "iys1_ğ"],
    ids=["path", "Bearer", "line end", "too short", "capitals", "nothing", "not ASCII"],
)
def test_form(wrong: str) -> None:
    """What is no key is refused before it goes anywhere, and not shown."""
    with pytest.raises(SettingsError, match=r"is not of the form iys1_<id>_<key>\. Give the key itself") as refused:
        Client("127.0.0.1:1", api_key=wrong)
    assert not wrong or wrong.strip() not in str(refused.value)
    assert KEY.rpartition("_")[2] not in str(refused.value)


def test_command_over_a_network(tmp_path: Path) -> None:
    """The commands refuse it too, unless `--insecure` is given: then they ask."""
    file = tmp_path / "acme.key"
    file.touch(0o600)
    file.write_text(f"{KEY}\n")
    ask = ["info", "--server=ipv4:127.0.0.1:1,192.0.2.1:1", f"--api-key-file={file}", "--timeout=0.1"]
    refused, asked = command(*ask), command(*ask, "--insecure")

    assert refused[0] == asked[0] == 2
    assert "in plain text" in refused[2]
    assert "--insecure" in refused[2]
    assert "in plain text" not in asked[2]
    assert KEY not in refused[2] + asked[2]


@pytest.mark.parametrize("mode", [0o644, 0o666, 0o620])
def test_open_key_file(tmp_path: Path, mode: int) -> None:
    """A file of a key that others can open is refused, as the server's own key is."""
    file = tmp_path / "acme.key"
    file.write_text(f"{KEY}\n")
    file.chmod(mode)
    code, _, said = command("info", "--server=127.0.0.1:1", f"--api-key-file={file}", "--timeout=0.1")

    assert code == 2
    assert f"others can read or write {file} (mode {mode:04o}). Run: chmod 600 {file}" in said
    assert KEY not in said


def test_key_from_a_pipe() -> None:
    """A key comes from a pipe too, such as that of a shell's `<(…)`."""
    reader, writer = os.pipe()
    os.write(writer, f"{KEY}\n".encode())
    os.close(writer)
    code, _, said = command("info", "--server=127.0.0.1:1", f"--api-key-file=/dev/fd/{reader}", "--timeout=0.1")
    os.close(reader)

    assert code == 2
    assert "127.0.0.1:1" in said
