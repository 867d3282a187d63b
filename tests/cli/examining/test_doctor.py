import json
import re
import shutil
import socket
import string
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iyscheck.cli.examining import asking, here
from iyscheck.cli.examining.outcomes import MEANINGS, Group, Outcome, State
from iyscheck.cli.examining.sentences import GROUPS, SENTENCES, SUMMARY
from iyscheck.client.sync import Client
from iyscheck.errors import ServiceError
from iyscheck.keys import AddressKey
from iyscheck.sentences import Language
from iyscheck.store import layout
from iyscheck.store.acknowledged import ACKNOWLEDGED, NOT_THE_PRIMARY
from iyscheck.store.layout import SourceState
from iyscheck.store.log_writer import LogWriter
from iyscheck.store.snapshot import Store
from tests.builders import NOW, StoreBuilder, a_batch
from tests.cli.commands import Done, as_process, iyscheck
from tests.logs import KEY_IDS, PlainSealer, begin, primary, received
from tests.server.conftest import Served, Site, make_site, serve
from tests.server.test_replica import replica
from tests.store.test_verification import damage, flip_last

ROOT = Path(__file__).parents[3]
FREE = ("--listen", "127.0.0.1:0", "--metrics-listen", "")


def doctor(site: Site, *flags: str) -> Done:
    """Examine a site, with no server but what the flags name."""
    keys = ("--store-key", str(site.path / "store.key"), "--address-key", str(site.path / "address.key"))
    return iyscheck(
        "doctor", "--store", str(site.path / "store"), *keys, *(flags if "--listen" in flags else (*FREE, *flags))
    )


def found(site: Site, *flags: str) -> dict[Outcome, dict[str, Any]]:
    """Examine a site; gives the findings by their outcome."""
    done = doctor(site, *flags, "--json")
    told = json.loads(done.stdout)
    findings = {Outcome(finding["finding"]): finding for finding in told["findings"]}
    worst = max((State(finding["state"]) for finding in told["findings"]), key=list(State).index)
    assert (told["worst"], done.returncode) == (worst.value, list(State).index(worst))
    assert done.stderr == ""
    return findings


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site of which all is well but one brand."""
    return make_site(tmp_path)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Served]]:
    """A server with metrics, and its site."""
    made = make_site(tmp_path_factory.mktemp("site"))
    with serve(made, metrics_listen="127.0.0.1:0") as served:
        yield made, served


class TestHere:
    """What can be seen without a server."""

    def test_well(self, site: Site) -> None:
        """Of a site whose second brand has no watermark only that, and the missing server, is to look at."""
        outcomes = found(site)

        assert {outcome for outcome in outcomes if MEANINGS[outcome].state is not State.OK} == {
            Outcome.BRANDS_STALE,
            Outcome.SERVER_ABSENT,
        }
        assert outcomes.keys() >= {
            Outcome.STORE_KEY_GOOD, Outcome.ADDRESS_KEY_GOOD, Outcome.KEYS_FIT, Outcome.STORE_OPEN,
            Outcome.SAMPLE_WHOLE, Outcome.DISK_ENOUGH, Outcome.READERS_FEW, Outcome.FRESH, Outcome.REJECTS_NONE,
            Outcome.CLOCK_PLAUSIBLE, Outcome.KERNEL_COMPILED, Outcome.PLAIN_TEXT_INSIDE, Outcome.CALLERS_NONE,
            Outcome.PORT_FREE, Outcome.METRICS_OFF,
        }  # fmt: skip
        assert outcomes[Outcome.BRANDS_STALE]["facts"] == {"stale": 1, "brands": 2}

    def test_settings(self, site: Site) -> None:
        """Settings with which no server would start are one fault, and so is an unknown variable."""
        (bad,) = found(site, "--listen", "0.0.0.0:0").values()
        unknown = as_process("doctor", "--json", IYSCHECK_STROE="x")

        assert "0.0.0.0:0 is not a loopback address" in bad["message"]
        assert unknown.returncode == 2
        assert "IYSCHECK_STROE" in json.loads(unknown.stdout)["findings"][0]["message"]

    def test_environment(self, site: Site) -> None:
        """It examines what `serve` would use with the same variables."""
        keys = {
            "IYSCHECK_STORE_KEY": str(site.path / "store.key"),
            "IYSCHECK_ADDRESS_KEY": str(site.path / "address.key"),
        }
        done = as_process(
            "doctor", "--json", IYSCHECK_STORE=str(site.path / "store"), IYSCHECK_LISTEN="127.0.0.1:0",
            IYSCHECK_METRICS_LISTEN="", IYSCHECK_FRESHNESS_LIMIT="1s", **keys,
        )  # fmt: skip

        assert done.returncode in {1, 2}
        outcomes = {finding["finding"]: finding for finding in json.loads(done.stdout)["findings"]}
        assert {"KEYS_FIT", "STORE_OPEN"} <= outcomes.keys()
        assert outcomes.keys() & {"FRESH", "STALE"}

    @pytest.mark.parametrize(
        ("key", "bad"),
        [("store.key", Outcome.STORE_KEY_BAD), ("address.key", Outcome.ADDRESS_KEY_BAD)],
    )
    def test_keys(self, site: Site, key: str, bad: Outcome) -> None:
        """A key file that others can read, or that is not there, is a fault that says what to do."""
        (site.path / key).chmod(0o644)
        readable = found(site)[bad]
        (site.path / key).unlink()
        missing = found(site)[bad]

        assert "chmod 600" in readable["message"]
        assert "does not exist" in missing["message"]

    def test_other_keys(self, site: Site) -> None:
        """Keys with which the store was not written are a fault, without which the store is still looked at."""
        (site.path / "address.key").unlink()
        AddressKey.create(site.path / "address.key")

        outcomes = found(site)

        assert outcomes.keys() >= {Outcome.KEYS_OF_ANOTHER, Outcome.SAMPLE_WHOLE, Outcome.FRESH}

    def test_no_store(self, site: Site) -> None:
        """Without a store there is one fault for it, and the rest is looked at."""
        shutil.rmtree(site.path / "store")

        outcomes = found(site)

        assert "There is no store" in outcomes[Outcome.STORE_NOT_OPEN]["message"]
        assert Outcome.KERNEL_COMPILED in outcomes

    def test_damaged(self, tmp_path: Path) -> None:
        """Damage in the sample is a fault, and no tag is in what is told."""
        made = make_site(tmp_path)
        with StoreBuilder(tmp_path / "store") as builder:
            damage(builder, layout.RECORDS, flip_last)
            with builder.store.snapshot() as snapshot:
                tags = [key[6:].hex() for key, _ in snapshot.items(layout.RECORDS)]

        outcomes = found(made)

        assert "damaged" in outcomes[Outcome.SAMPLE_DAMAGED]["message"]
        assert not any(tag in json.dumps(outcomes) for tag in tags)

    @pytest.mark.parametrize(
        ("age_s", "outcome"),
        [(40 * 3600, Outcome.STALE), (-400, Outcome.CLOCK_BEHIND), (None, Outcome.NO_WATERMARK)],
    )
    def test_data(self, tmp_path: Path, age_s: int | None, outcome: Outcome) -> None:
        """Old data, data of the future and data without a watermark are faults."""
        made = make_site(tmp_path)
        shutil.rmtree(tmp_path / "store")
        with StoreBuilder(tmp_path / "store") as builder:
            builder.brand(1, watermark=None if age_s is None else int(time.time()) - age_s).consent().commit()

        assert outcome in found(made)

    def test_no_brands(self, tmp_path: Path) -> None:
        """A store without a brand is a fault."""
        made = make_site(tmp_path)
        shutil.rmtree(tmp_path / "store")
        with StoreBuilder(tmp_path / "store") as builder:
            builder.consent().commit()

        assert Outcome.NO_BRANDS in found(made)

    def test_rejects(self, tmp_path: Path) -> None:
        """Rejected rows that nobody has accepted are said, with how many brands wait for them."""
        made = make_site(tmp_path)
        with StoreBuilder(tmp_path / "store") as builder:
            state = SourceState(name="held", rejected=1, rejected_brands=(1,), watermarks=((1, NOW),))
            builder.writer.apply(a_batch(rows=1), state, finished=True)

        assert found(made)[Outcome.REJECTS_WAIT]["facts"] == {"sources": 1, "brands": 1}

    def test_of_a_log(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of a primary its term and batch are told; of a replica how far it is behind, and why it is not believed."""
        made = make_site(tmp_path)
        shutil.rmtree(tmp_path / "store")
        begin(tmp_path / "store")
        with StoreBuilder(tmp_path / "store", sealer=PlainSealer()) as builder:
            builder.brand(1, now=True).consent().commit()
        with primary(tmp_path / "store") as loading:
            assert loading.heartbeat(0)
        told = found(made)
        (tmp_path / "store" / ACKNOWLEDGED).write_bytes(NOT_THE_PRIMARY.to_bytes(8))
        no_more = found(made)
        (tmp_path / "store").rename(tmp_path / "primary")
        with Store.open(tmp_path / "primary") as store, LogWriter.open(tmp_path / "store", **KEY_IDS) as writer:
            batches = received(store)
            writer.become_replica(log_id=batches[0].batch.log_id)
            writer.follow(batches, stream_created="s")
        near = found(made)
        with LogWriter.open(tmp_path / "store", **KEY_IDS) as writer:
            writer.distrust("its digest is another one")
        untrusted = found(made)
        monkeypatch.setattr(here, "MOST_LAG_S", 0.0)
        late = found(made)

        assert told[Outcome.PRIMARY_OF_LOG]["facts"] == {"term": 1, "batch": batches[-1].batch.batch}
        assert "promote --rebase" in no_more[Outcome.PRIMARY_NO_MORE]["do"]
        assert Outcome.PRIMARY_OF_LOG not in no_more
        assert near[Outcome.REPLICA_FOLLOWS]["facts"]["batch"] == batches[-1].batch.batch
        assert late[Outcome.REPLICA_LAGS]["facts"]["term"] == 1
        assert "its digest is another one" in untrusted[Outcome.REPLICA_UNTRUSTED]["message"]
        assert not {*told, *near} & {Outcome.REPLICA_UNTRUSTED, Outcome.REPLICA_LAGS}

    @pytest.mark.parametrize(
        ("free", "outcome"),
        [(10**6, Outcome.DISK_FULL), (10**8, Outcome.DISK_SHORT), (10**15, Outcome.DISK_ENOUGH)],
    )
    def test_disk(self, site: Site, free: int, outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
        """A disk without room is a fault, one with less than half of the store's size is to look at."""
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, free))
        monkeypatch.setattr(here, "_SHORT_SHARE", 1e4)  # of a store as small as this

        assert outcome in found(site)

    def test_door(self, site: Site, tmp_path: Path) -> None:
        """Certificates are examined as a server would, and their end and names are told."""
        assert iyscheck("certs", "dev", str(tmp_path / "certs")).returncode == 0
        pair = ("--tls-cert", str(tmp_path / "certs/server.pem"), "--tls-key", str(tmp_path / "certs/server.key"))
        wrong = (*pair[:3], str(tmp_path / "certs/client.key"))

        good, bad, other = found(site, *pair), found(site, *wrong), found(site, *pair, "--listen", "127.0.0.2:0")

        assert good[Outcome.CERTIFICATE_GOOD]["facts"]["names"] == "localhost, 127.0.0.1, ::1"
        assert "is not the key of the certificate" in bad[Outcome.CERTIFICATE_BAD]["message"]
        assert other[Outcome.CERTIFICATE_OTHER_NAME]["facts"]["host"] == "127.0.0.2"

    def test_ends_soon(self, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A certificate that ends within two weeks is to look at."""
        monkeypatch.setattr("iyscheck.cli.issuing.DAYS", 13)
        assert iyscheck("certs", "dev", str(tmp_path / "certs")).returncode == 0
        pair = ("--tls-cert", str(tmp_path / "certs/server.pem"), "--tls-key", str(tmp_path / "certs/server.key"))

        assert Outcome.CERTIFICATE_ENDS in found(site, *pair)

    def test_outside(self, site: Site) -> None:
        """Plain text, and no callers file, are to look at where a network is listened to."""
        outcomes = found(site, "--listen", "0.0.0.0:0", "--insecure", "--metrics-listen", "")

        assert outcomes.keys() >= {Outcome.PLAIN_TEXT_OUTSIDE, Outcome.CALLERS_NONE_OUTSIDE}

    def test_callers(self, site: Site) -> None:
        """A callers file is read; what is wrong in it is told with its line."""
        file = site.path / "callers.toml"
        file.write_text('[caller.acme]\ncertificates = ["dns:a.example"]\nbrands = "all"\n')
        good = found(site, "--callers", str(file))
        file.write_text('[caller.acme]\nbrnads = "all"\n')
        bad = found(site, "--callers", str(file))

        assert good[Outcome.CALLERS_GOOD]["facts"] == {"callers": 1}
        assert "brnads" in bad[Outcome.CALLERS_BAD]["message"]

    def test_failed_look(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        """A look that fails in a way that nobody has thought of is a fault by its kind, and costs no other look."""
        monkeypatch.setattr(here, "kernel", lambda: 1 / 0)

        outcomes = found(site)

        assert outcomes[Outcome.NOT_EXAMINED]["facts"] == {"what": "kernel", "error": "ZeroDivisionError"}
        assert Outcome.CALLERS_NONE in outcomes


class TestServer:
    """What only asking shows."""

    def test_serves(self, running: tuple[Site, Served]) -> None:
        """A server that runs is known by its ports, and says how it is."""
        site, served = running
        ports = ("--listen", served.server.address, "--metrics-listen", served.server.metrics_address)

        outcomes = found(site, *ports, "--timeout", "30")

        assert outcomes.keys() >= {
            Outcome.PORT_OURS, Outcome.SERVER_SERVES, Outcome.SERVER_FRESH, Outcome.SERVER_KEYS_FIT,
            Outcome.METRICS_READ,
        }  # fmt: skip
        assert Outcome.SERVER_ABSENT not in outcomes

    def test_other_server(self, running: tuple[Site, Served], tmp_path: Path) -> None:
        """A server of another store is told from the own one by its keys."""
        _, served = running
        other = make_site(tmp_path)
        (tmp_path / "address.key").unlink()
        AddressKey.create(tmp_path / "address.key")

        assert Outcome.SERVER_OTHER_KEYS in found(other, "--server", served.server.address)

    def test_other_store(self, running: tuple[Site, Served], tmp_path: Path) -> None:
        """A server of another store with the same keys is told by its log."""
        _, served = running
        other = make_site(tmp_path)

        outcomes = found(other, "--server", served.server.address)
        assert Outcome.SERVER_OTHER_STORE in outcomes
        assert Outcome.SERVER_KEYS_FIT not in outcomes

    def test_named(self, site: Site) -> None:
        """A server that was named and is not there is a fault."""
        assert "No iyscheck server" in found(site, "--server", "127.0.0.1:1")[Outcome.SERVER_UNREACHABLE]["message"]

    def test_somebody_else(self, site: Site) -> None:
        """A port on which another program listens is a fault."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = f"127.0.0.1:{taken.getsockname()[1]}"
            outcomes = found(site, "--listen", port, "--metrics-listen", port, "--timeout", "0.3")

        assert "cannot be used" in outcomes[Outcome.PORT_TAKEN]["message"]
        assert not outcomes.keys() & {Outcome.PORT_OURS, Outcome.METRICS_READ}

    def test_stale(self, tmp_path: Path) -> None:
        """A server whose service does not serve is told from one that is not there."""
        made = make_site(tmp_path)
        shutil.rmtree(tmp_path / "store")
        with StoreBuilder(tmp_path / "store") as builder:
            builder.brand(1, watermark=NOW).consent().commit()
        with serve(made) as served:
            outcomes = found(made, "--listen", served.server.address, "--metrics-listen", "127.0.0.1:1")

        assert outcomes.keys() >= {Outcome.SERVER_SERVES, Outcome.SERVER_STALE, Outcome.METRICS_NOT_READ}

    def test_silent(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of one that is not fresh, and tells no more, nobody says why."""

        def refused(*_: object, **__: object) -> None:
            raise ServiceError("It wants a key.")

        monkeypatch.setattr(Client, "server_info", refused)
        made = replica(tmp_path, lag_s=900).site
        with serve(made) as served:
            outcomes = found(made, "--listen", served.server.address, "--metrics-listen", "")

        assert outcomes.keys() >= {Outcome.SERVER_NOT_FRESH, Outcome.SERVER_SILENT}
        assert not outcomes.keys() & {Outcome.SERVER_STALE, Outcome.SERVER_BEHIND}

    def test_behind(self, tmp_path: Path) -> None:
        """A replica that is behind answers, which is said; only one that is stale or not believed denies."""
        told = []
        for name, terms in (("near", {}), ("behind", {"lag_s": 900}), ("untrusted", {"lag_s": 900, "untrusted": "x"})):
            (tmp_path / name).mkdir()
            made = replica(tmp_path / name, **terms).site
            with serve(made) as served:
                flags = ("--listen", served.server.address, "--metrics-listen", "")
                told.append(found(made, *flags))
                lines = doctor(made, *flags, "--lang", "tr").stdout
            if name == "behind":
                assert "sn gerisinde: yanıtlar sürüyor" in lines
                assert ", sınırın (26 h) içinde." in lines
        near, behind, untrusted = told

        kinds = {Outcome.SERVER_FRESH, Outcome.SERVER_BEHIND, Outcome.SERVER_STALE, Outcome.SERVER_NOT_FRESH}
        assert near.keys() & kinds == {Outcome.SERVER_FRESH}
        assert behind.keys() & kinds == {Outcome.SERVER_BEHIND}
        assert behind[Outcome.SERVER_BEHIND]["facts"]["lag"] >= 900
        assert "answers go on" in behind[Outcome.SERVER_BEHIND]["message"]
        assert untrusted.keys() & kinds == {Outcome.SERVER_STALE}

    def test_tls(self, site: Site, tmp_path: Path) -> None:
        """Over TLS server and metrics are asked with the CA that is given; without it the cause is told."""
        assert iyscheck("certs", "dev", str(tmp_path / "certs")).returncode == 0
        certs = {name: tmp_path / "certs" / f"server.{end}" for name, end in (("tls_cert", "pem"), ("tls_key", "key"))}
        with serve(site, metrics_listen="127.0.0.1:0", **certs) as served:
            flags = [f"--listen={served.server.address}", f"--metrics-listen={served.server.metrics_address}"]
            flags += [f"--{name.replace('_', '-')}={path}" for name, path in certs.items()]
            keys = [f"--store-key={site.path / 'store.key'}", f"--address-key={site.path / 'address.key'}"]
            ask = ["doctor", "--json", f"--store={site.path / 'store'}", *keys, *flags]
            ca = f"--tls-ca={tmp_path / 'certs' / 'ca.pem'}"
            known, unknown = iyscheck(*ask, ca), iyscheck(*ask)

        good, bad = (
            {each["finding"]: each for each in json.loads(done.stdout)["findings"]} for done in (known, unknown)
        )
        assert good.keys() >= {"PORT_OURS", "SERVER_SERVES", "SERVER_KEYS_FIT", "METRICS_READ", "CERTIFICATE_GOOD"}
        assert "CA that this client trusts" in bad["SERVER_UNREACHABLE"]["message"]
        assert "PORT_TAKEN" not in bad, "nobody is told to end what may be the server"
        assert "PORT_UNSURE" in bad


@pytest.mark.parametrize(("server", "outcome"), [("h:5", Outcome.PORT_OURS), ("h:6", Outcome.PORT_TAKEN)])
def test_by_name(monkeypatch: pytest.MonkeyPatch, server: str, outcome: Outcome) -> None:
    """A port is ours if a server answers there by the name that its certificate is for."""
    monkeypatch.setattr(asking, "_taken", lambda _: "in use")
    monkeypatch.setattr(asking, "_answers", lambda route, _: route.target == server)
    settings: Any = SimpleNamespace(serves_tls=False, listen=("127.0.0.1:5",))
    reach = asking.Reach(server=server, tls=None, api_key=None, insecure=False, timeout_s=1.0)

    assert [finding.outcome for finding in asking.ports(settings, reach)] == [outcome]


class TestTold:
    """How findings are told."""

    def test_text(self, site: Site) -> None:
        """For people each finding is a line with its sign, in groups; what is not well says what to do, and where."""
        done = doctor(site)

        lines = done.stdout.splitlines()
        assert done.returncode == 1
        assert [line for line in lines if line and not line.startswith(" ")][:-1] == list(
            GROUPS[Language.ENGLISH].values()
        )
        assert "  ‼ 1 of 2 active brands are stale or have no watermark." in lines
        advice = lines[lines.index("  ‼ 1 of 2 active brands are stale or have no watermark.") + 1]
        assert advice.endswith("(docs/loader.md#watermarks)")
        assert re.fullmatch(r"\d+ good, 2 to look at, 0 to mend\.", lines[-1])

    def test_turkish(self, site: Site) -> None:
        """Turkish has the same signs in the same order, and its own words."""
        english, turkish = doctor(site).stdout.splitlines(), doctor(site, "--lang", "tr").stdout.splitlines()

        assert [line.strip()[:1] for line in english if line[2:3] in "√‼×"] == [
            line.strip()[:1] for line in turkish if line[2:3] in "√‼×"
        ]
        assert "Depo" in turkish

    @pytest.mark.parametrize("language", Language)
    def test_every_outcome(self, language: Language) -> None:
        """Each outcome has sentences with the same facts in every language; what is not well has advice."""
        other = SENTENCES[next(each for each in Language if each is not language)]

        assert SENTENCES[language].keys() == MEANINGS.keys() == set(Outcome)
        assert GROUPS[language].keys() == set(Group)
        assert _places(SUMMARY[language]) == {"ok", "warnings", "faults"}
        for outcome, (said, advice) in SENTENCES[language].items():
            assert _places(said) == _places(other[outcome].found), outcome
            assert bool(advice) is (MEANINGS[outcome].state is not State.OK), outcome
            assert said not in {"", other[outcome].found} or said == "{error}", outcome

    def test_links(self) -> None:
        """Each link names a heading that is there."""
        for _, _, link in MEANINGS.values():
            file, _, anchor = link.partition("#")
            headings = re.findall(r"^#+ (.+)$", (ROOT / file).read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, link

    def test_changes_nothing(self, site: Site) -> None:
        """It leaves the files of the store as they were."""
        before = {path: path.stat().st_size for path in site.path.rglob("*.mdb") if path.name != "lock.mdb"}

        doctor(site)

        assert {path: path.stat().st_size for path in before} == before


def _places(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name}
