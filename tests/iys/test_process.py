import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.iys.clock import SharedClock
from tests.iys.control import RemoteFake
from tests.iys.fake import FakeIys


def test_tls() -> None:
    """By TLS the fake's certificate leads to its own authority, and to none that a client knows."""
    fake, trusting = FakeIys(), ssl.create_default_context()
    fake.authority.configure_trust(trusting)
    with fake.running(tls=True) as url:
        assert httpx.get(f"{url}/sps/1/brands", verify=trusting).status_code == 401
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/sps/1/brands")


@pytest.fixture
def process(tmp_path: Path) -> Iterator[RemoteFake]:
    """A fake in a process of its own, with a clock in a file."""
    command = [sys.executable, "-m", "tests.iys", "--clock", str(tmp_path / "clock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as fake:
        assert fake.stdout is not None
        try:
            yield RemoteFake(fake.stdout.readline().strip())
        finally:
            fake.terminate()


def test_driven_from_outside(process: RemoteFake, tmp_path: Path) -> None:
    """Another process opens accounts, moves consents and time, plans faults and reads the journal, all by HTTP."""
    clock = SharedClock(tmp_path / "clock")
    body = {"grant_type": "password", "username": "acme", "password": "secret"}
    process.do("provider", iys_code=700_001, username="acme", password=body["password"], brands=[600_001])
    process.do("move", brand=600_001, source="IYS", status="RET")
    process.do("plan", operation="changes", fault={"kind": "answer", "status": 503})
    clock.wait(3600.0, threading.Event())
    with httpx.Client(base_url=process.url) as http:
        token = http.post("/oauth2/token", json=body).json()["access_token"]
        headers = {"authorization": f"Bearer {token}"}
        answers = [http.get("/sps/700001/brands/600001/consents/changes", headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [503, 200]
    assert answers[1].json()["list"][0]["status"] == "RET"
    requests = process.do("requests")
    assert isinstance(requests, list)
    assert [seen["operation"] for seen in requests] == ["token", "changes", "changes"]
    process.do("set_quirks", silent=["IYS"])
    process.do("reset")
    assert process.do("requests") == []
