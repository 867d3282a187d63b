"""`iyscheck info --all`: each server of an address by itself."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cryptography import x509

from iyscheck.client.servers import addresses_of, each_of
from iyscheck.errors import ServiceUnavailableError, SettingsError
from tests.client.fake_server import Service, serving
from tests.server.conftest import serve
from tests.server.test_replica import replica
from tests.server.test_tls import command, issued


@pytest.fixture
def servers() -> Iterator[list[Service]]:
    """Two servers, of which the first is fresh."""
    with ExitStack() as parts:
        found = [parts.enter_context(serving(watched=True)) for _ in range(2)]
        found[0].say_fresh(True)
        found[1].say_fresh(False)
        yield found


def test_each(servers: list[Service]) -> None:
    """Each server of a list has a line, and an entry in JSON, with what it alone says."""
    target = ",".join(server.target for server in servers)
    code, text, _ = command("info", "--all", "--server", target)
    in_json = command("info", "--all", "--server", target, "--json")
    first, second = text.splitlines()
    entries = json.loads(in_json[1])["servers"]

    assert code == in_json[0] == 0
    assert first.startswith(f"{servers[0].target}  fresh, in no log, iyscheck 0.1.0, position 7, no watermark")
    assert second.startswith(f"{servers[1].target}  NOT FRESH, ")
    assert [entry["address"] for entry in entries] == [server.target for server in servers]
    assert [(entry["answers"], entry["fresh"]) for entry in entries] == [(True, True), (True, False)]
    assert {entry["role"] for entry in entries} == {None}


@pytest.mark.parametrize(("language", "says"), [("en", "DOES NOT ANSWER: No iyscheck"), ("tr", "YANIT VERMİYOR: No")])
def test_silent(servers: list[Service], language: str, says: str) -> None:
    """One that does not answer is named, and the exit code says so; the others are shown."""
    target = f"{servers[0].target},127.0.0.1:1"
    code, text, _ = command("info", "--all", "--server", target, "--lang", language, "--timeout", "20")
    in_json = command("info", "--all", "--server", target, "--json", "--timeout", "20")
    entries = json.loads(in_json[1])["servers"]

    assert code == in_json[0] == 1
    assert says in text.splitlines()[1]
    assert [(entry["answers"], entry["error"]) for entry in entries] == [(True, None), (False, "UNAVAILABLE")]


def test_replica(tmp_path: Path) -> None:
    """A replica tells its role and how far it is behind, in two languages, and in the other commands, too."""
    with serve(replica(tmp_path, lag_s=900).site) as served:
        reach = ("--server", served.server.address)
        lines = [command("info", "--all", *reach, "--lang", language)[1] for language in ("en", "tr")]
        entry = json.loads(command("info", "--all", *reach, "--json")[1])["servers"][0]
        alone = json.loads(command("info", *reach, "--json")[1])
        glances = [command("status", *reach, "--lang", language)[1] for language in ("en", "tr")]
        glance = json.loads(command("status", *reach, "--json")[1])["store"]

    assert "NOT FRESH, replica, iyscheck" in lines[0]
    assert " s behind, data complete to " in lines[0]
    assert "GÜNCEL DEĞİL, kopya, iyscheck" in lines[1]
    for fields in (entry, alone, glance):
        assert (fields["role"], fields["term"], fields["untrusted"]) == ("replica", 1, False)
        assert fields["lag_s"] >= 900
    assert "Replica of this log: batch 2 of term 1, made 9" in glances[0]
    assert "Bu günlüğün kopyası: dönem 1, parti 2; parti 9" in glances[1]


def test_over_tls(tmp_path: Path) -> None:
    """Over TLS each address has to prove the name by which all were given."""
    certs = issued(tmp_path / "certs", "server", x509.DNSName("localhost"))
    (tmp_path / "site").mkdir()
    flags = {"tls_cert": certs / "server.pem", "tls_key": certs / "server.key"}
    with serve(replica(tmp_path / "site").site, **flags) as served:
        port = served.server.address.rpartition(":")[2]
        code, text, _ = command(
            "info", "--all", "--server", f"dns:///localhost:{port}", "--tls-ca", str(certs / "ca.pem")
        )
    answered = [line for line in text.splitlines() if line.startswith("127.0.0.1:")]

    assert code in (0, 1)  # the name may have an address of IPv6, where nobody listens
    assert "fresh, replica" in answered[0]


@pytest.mark.parametrize(
    ("target", "addresses"),
    [
        ("127.0.0.1:1", ["127.0.0.1:1"]),
        ("127.0.0.1:1,127.0.0.2:2,127.0.0.1:1", ["127.0.0.1:1", "127.0.0.2:2"]),
        ("ipv6:[::1]:1,[::2]:2", ["[::1]:1", "[::2]:2"]),
        ("unix:/run/a,b", ["unix:/run/a,b"]),
    ],
)
def test_addresses(target: str, addresses: list[str]) -> None:
    """Addresses are taken as they are, each once."""
    assert addresses_of(target) == addresses


@pytest.mark.parametrize("target", ["localhost:7", "dns:///localhost:7", "DNS:localhost:7"])
def test_names(target: str) -> None:
    """Names are looked up."""
    assert "127.0.0.1:7" in addresses_of(target)


def test_no_such_name() -> None:
    """A name without an address, and a server of DNS that is to be asked, are said to be that."""
    with pytest.raises(ServiceUnavailableError, match=r"name nobody\.invalid has no address"):
        each_of("dns:///nobody.invalid:1", timeout_s=1)
    with pytest.raises(SettingsError, match="dns:///NAME:PORT"):
        addresses_of("dns://10.0.0.1/name:1")
