"""What a receiver answers İYS, and everybody else (case 28)."""

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from loader.push.credentials import Made
from tests.loader.push.receiving import BRAND, Receiving, body, received, row


@pytest.fixture(scope="module")
def receiving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiving]:
    """A receiver that runs, shared by the tests of this module: each has credentials and rows of its own."""
    with received(tmp_path_factory.mktemp("receiver")) as running:
        yield running


@pytest.fixture(scope="module")
def made(receiving: Receiving) -> Made:
    """Credentials that it takes."""
    return receiving.credential()


@pytest.fixture
def client(receiving: Receiving, made: Made) -> Iterator[httpx.Client]:
    """İYS."""
    with receiving.client(made) as client:
        yield client


def transactions(receiving: Receiving) -> list[object]:
    """Name the rows of the journal."""
    return [each["transactionId"] for each in receiving.journalled()]


class TestCredentials:
    """Who may push."""

    def test_nobody(self, receiving: Receiving, made: Made) -> None:
        """Without credentials, with wrong ones and with what is none: 401, and the word that they are wanted."""
        name, password = made.credential.name, made.password
        with receiving.client() as client:
            wrong = [httpx.BasicAuth(*each) for each in ((name, password + "x"), ("nobody", password), (name, ""))]
            for auth in (httpx.Auth(), *wrong):
                answer = client.post("/push", json=body([row(1)]), auth=auth)
                assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Basic realm="iyscheck"')
            for header in ("Basic", "Basic %%%", "Basic /w==", "Bearer x", f"Digest {name}:{password}"):
                assert client.post("/push", headers={"authorization": header}).status_code == 401
        assert row(1)["transactionId"] not in transactions(receiving)

    def test_asked(self, client: httpx.Client) -> None:
        """Whoever only looks whether credentials work is told so."""
        assert client.get("/push").status_code == 200
        assert client.head("/push").status_code == 200
        assert client.post("/push").status_code == 200

    def test_other_methods(self, client: httpx.Client) -> None:
        """Nothing else can be done."""
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
            assert client.request(method, "/push").status_code == 405


class TestBodies:
    """What is a push."""

    def test_kept(self, receiving: Receiving, client: httpx.Client) -> None:
        """What is answered with 200 is in the journal, without the names of people."""
        named = row(2, citizenName="Somebody")
        assert client.post("/push", json=body([named, row(3)])).status_code == 200
        kept = [each for each in receiving.journalled() if each["transactionId"] == named["transactionId"]]
        assert kept == [row(2)]
        assert row(3)["transactionId"] in transactions(receiving)

    def test_test_row(self, receiving: Receiving, client: httpx.Client) -> None:
        """İYS's own test row is taken, and goes nowhere."""
        before = transactions(receiving)
        answer = client.post("/push", json=body([row(4, iysCode=121_212, brandCode=121_212)]))
        assert (answer.status_code, transactions(receiving)) == (200, before)

    def test_foreign(self, receiving: Receiving, client: httpx.Client) -> None:
        """Rows of other brands are set aside, encrypted; those of its own in the same body are kept."""
        answer = client.post("/push", json=body([row(5, brandCode=BRAND + 7), row(6), row(7, iysCode=1)]))
        assert answer.status_code == 200
        found = transactions(receiving)
        assert row(6)["transactionId"] in found
        assert not {row(5)["transactionId"], row(7)["transactionId"]} & set(found)
        set_aside = list((receiving.push / "quarantine").iterdir())
        assert set_aside
        assert all(path.stat().st_mode & 0o077 == 0 for path in set_aside)
        assert all(b"+90532" not in path.read_bytes() for path in set_aside)

    @pytest.mark.parametrize(
        "content", [b"x", b"[]", b"{}", b'{"list":1}', b'{"list":[1]}', b'{"list":[{]}', b"\xff\xfe", b'{"list":null}']
    )
    def test_malformed(self, receiving: Receiving, client: httpx.Client, content: bytes) -> None:
        """What is no push is refused, and nothing of it is kept as rows."""
        before = transactions(receiving)
        assert client.post("/push", content=content).status_code == 400
        assert transactions(receiving) == before

    def test_too_large(self, client: httpx.Client) -> None:
        """Nobody fills the memory: 8 MiB are the most, whether the length was said before or not."""
        large = b" " * (8 * 2**20 + 1)
        assert client.post("/push", content=large).status_code == 413
        assert client.post("/push", content=iter([large[: 2**20]] * 9)).status_code == 413
        assert client.post("/push", content=b"{}", headers={"content-encoding": "gzip"}).status_code == 415
        assert client.post("/push", json=body([row(8)])).status_code == 200

    def test_never_ends(self, receiving: Receiving, made: Made) -> None:
        """Whoever does not send what he said he would is answered after ten seconds; others are answered meanwhile."""
        context = ssl.create_default_context()
        receiving.authority.configure_trust(context)
        auth = httpx.BasicAuth(made.credential.name, made.password)._auth_header
        with (
            socket.create_connection(("127.0.0.1", receiving.port)) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as slow,
            receiving.client(made) as client,
        ):
            slow.sendall(
                f"POST /push HTTP/1.1\r\nhost: x\r\nauthorization: {auth}\r\ncontent-length: 9\r\n\r\n{{".encode()
            )
            assert client.post("/push", json=body([row(9)])).status_code == 200
            slow.settimeout(60)
            assert slow.recv(100).startswith(b"HTTP/1.1 408")

    def test_many_at_once(self, receiving: Receiving, made: Made) -> None:
        """Pushes that come together are all kept, each once."""
        sent = [row(100 + number) for number in range(64)]
        statuses: list[int] = []

        def push(rows: list[dict[str, object]]) -> None:
            with receiving.client(made) as client:
                statuses.extend(client.post("/push", json=body([each])).status_code for each in rows)

        threads = [threading.Thread(target=push, args=(sent[at::8],)) for at in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(statuses) == {200}
        wanted = {each["transactionId"] for each in sent}
        assert sorted(str(each) for each in transactions(receiving) if each in wanted) == sorted(map(str, wanted))


class TestOperating:
    """What whoever runs it meets."""

    def test_health(self, receiving: Receiving) -> None:
        """Health needs no credentials, and says that rows can be kept."""
        with receiving.client() as client:
            assert client.get("/health").status_code == 200

    def test_certificate_renewed(self, receiving: Receiving, made: Made) -> None:
        """A new certificate counts for the next connections; one that cannot be used changes nothing."""
        serials = set()
        for renewal in (
            lambda: None,
            receiving.renew,
            lambda: (receiving.site.folder / "receiver.pem").write_text("x"),
        ):
            renewal()
            for _ in range(20):
                certificate = ssl.get_server_certificate(("127.0.0.1", receiving.port), timeout=20)
                if certificate not in serials:
                    break
                threading.Event().wait(0.1)
            serials.add(certificate)
        receiving.renew()
        assert len(serials) == 2
        with receiving.client(made) as client:
            assert client.get("/push").status_code == 200

    def test_nothing_told(self, receiving: Receiving, made: Made, client: httpx.Client) -> None:
        """The log has no address, no name, no password and no header."""
        client.post("/push", json=body([row(10, brandCode=1, citizenName="Somebody")]))
        client.post("/push", content=b"+905320000011 Somebody")
        log = receiving.log()
        assert "foreign_rows" in log
        for secret in ("+90532", "Somebody", made.password, "Basic "):
            assert secret not in log


def test_second_receiver(receiving: Receiving) -> None:
    """A second receiver for the same store is refused in a sentence."""
    code, said = receiving.said()
    assert code == 2
    assert "another receiver" in said


def test_no_table(tmp_path: Path) -> None:
    """Without a table for it the receiver does not start, and says what to write."""
    receiving = Receiving.make(tmp_path)
    receiving.config.write_text(receiving.config.read_text().replace("[receive]", "[mirror.x]"))
    code, said = receiving.said()
    assert code == 2
    assert "feeds.toml" in said
