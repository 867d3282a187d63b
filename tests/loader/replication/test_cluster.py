"""The cluster file: what it may say, and that each mistake is told by field and line, with what to write instead."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.errors import ClusterError, KeyFileError
from iyscheck.keys import SigningKey, StreamKey
from iyscheck.store import layout
from iyscheck.store.encoded import ROW_DTYPE, EncodedChanges
from iyscheck.store.log_batch import Kind, LogBatch
from loader.replication.cluster import Cluster, Signer, SnapshotSettings
from loader.replication.messages import NatsSettings
from tests.dice import often

FILE = Path("/etc/iyscheck/cluster.toml")
FOLDER = FILE.parent
ONE, OTHER = SigningKey(bytes(range(32))), SigningKey(bytes(range(32, 64)))
EXAMPLE = Path(__file__).parents[3] / "deploy" / "cluster" / "cluster.example.toml"
LEAST = f"""\
stream_key = "stream.key"

[nats]
servers = ["nats://127.0.0.1:4222"]
name = "follower"

[signers.primary]
public = "{ONE.public.hex()}"
may = ["changes"]
"""
FULL = f"""\
stream_key = "/run/secrets/stream"
signing_key = "signing.key"

[nats]
servers = ["nats://nats-1.example:4222", "nats://[2001:db8::1]"]
name = "publisher"
stream = "IYS-2"
api = "iys.api"
nkey = "nats.nk"
ca = "ca.pem"
cert = "nats.pem"
key = "nats.key"

[signers.primary]
public = "{ONE.public.hex()}"
may = ["changes"]

[signers.maker]
public = "{OTHER.public.hex()}"
may = ["snapshots", "changes"]

[snapshots]
url = "https://snapshots.example/iys/"
ca = "web.pem"
every = "20m"
keep = 5
"""


def of(text: str) -> Cluster:
    """Read a text as if it stood in /etc/iyscheck."""
    return Cluster.parsed(text.encode(), FILE)


class TestGood:
    """A file that is right."""

    def test_all_fields(self) -> None:
        """Each field is read, and paths count from the folder of the file."""
        assert of(FULL) == Cluster(
            path=FILE,
            nats=NatsSettings(
                servers=("nats://nats-1.example:4222", "nats://[2001:db8::1]"),
                name="publisher",
                stream="IYS-2",
                api="iys.api",
                nkey=FOLDER / "nats.nk",
                ca=FOLDER / "ca.pem",
                cert=FOLDER / "nats.pem",
                key=FOLDER / "nats.key",
            ),
            stream_key_file=Path("/run/secrets/stream"),
            signing_key_file=FOLDER / "signing.key",
            signers_by_name={
                "primary": Signer(public=ONE.public, may=frozenset({"changes"})),
                "maker": Signer(public=OTHER.public, may=frozenset({"changes", "snapshots"})),
            },
            snapshots=SnapshotSettings(
                url="https://snapshots.example/iys", ca=FOLDER / "web.pem", every_s=1_200, keep=5
            ),
        )

    def test_defaults(self) -> None:
        """What need not be said has a default."""
        cluster = of(LEAST + '[snapshots]\nbucket = "COPIES"\n')

        assert cluster.nats == NatsSettings(servers=("nats://127.0.0.1:4222",), name="follower")
        assert cluster.signing_key_file is None
        assert cluster.snapshots == SnapshotSettings(bucket="COPIES", every_s=3_600, keep=3)
        assert of(LEAST).snapshots is None
        assert of(LEAST + '[snapshots]\ndirectory = "copies"\n').snapshots == SnapshotSettings(
            directory=FOLDER / "copies"
        )

    def test_example(self) -> None:
        """The example is right but for the public key that stands there for yours."""
        text = EXAMPLE.read_text()
        with pytest.raises(ClusterError, match=r"signers\.primary\.public: is no public key"):
            of(text)

        cluster = of(text.replace("0" * 64, ONE.public.hex()))

        assert cluster.snapshots is not None
        assert cluster.snapshots.directory == Path("/var/lib/iyscheck-snapshots")

    def test_documentation(self) -> None:
        """The file that docs/replicas.md shows is right as it stands, and its table has each field of the example."""
        document = (EXAMPLE.parents[2] / "docs" / "replicas.md").read_text()
        shown = re.search(r"^    stream_key = .*?(?=^\| field)", document, re.MULTILINE | re.DOTALL)
        assert shown is not None

        cluster = of("\n".join(line.removeprefix("    ") for line in shown[0].splitlines()))

        assert cluster.nats.name == "publisher"
        fields = set(re.findall(r"^(?:# )?([a-z_]+) = ", EXAMPLE.read_text(), re.MULTILINE))
        assert all(f"`{field}`" in document or f" {field}`" in document for field in fields)

    def test_example_in_full(self) -> None:
        """What the example has as comments is right, too."""
        text = EXAMPLE.read_text().replace("0" * 64, ONE.public.hex()).replace('"..."', f'"{OTHER.public.hex()}"', 1)
        text = text.replace('"..."', f'"{SigningKey(bytes(range(64, 96))).public.hex()}"')
        said = re.sub(r"^# (\[.*|[a-z]+ = .*)$", r"\1", text, flags=re.MULTILINE)
        said = re.sub(r"^(directory|bucket) = .*$", "", said, flags=re.MULTILINE)

        cluster = of(said)

        assert set(cluster.signers_by_name) == {"primary", "standby", "maker"}
        assert cluster.snapshots == SnapshotSettings(
            url="https://snapshots.example/iys", ca=FOLDER / "snapshots-ca.pem", every_s=3_600, keep=3
        )


WRONG = {
    "misspelt": ("stream_key", "streamkey", "streamkey: is not known here", 1),
    "misspelt signer": ('may = ["changes"]', 'may = ["changes"]\nmight = 1', "signers.primary.might: is not known", 10),
    "misspelt nats": ('name = "follower"', 'name = "follower"\nuser = "a"', "nats.user: is not known here", 6),
    "misspelt place": (
        "[signers.primary]",
        '[snapshots]\nfolder = "a"\n[signers.primary]',
        "snapshots.folder: is not",
        8,
    ),
    "no stream key": ('stream_key = "stream.key"', "", "stream_key: is missing", None),
    "a number": ('"stream.key"', "5", "stream_key: must be a text", 1),
    "no nats": ("[nats]", "[signers.nats]", "nats: is missing", None),
    "no servers": ('servers = ["nats://127.0.0.1:4222"]', "servers = []", "nats.servers: is missing", 4),
    "one server": ('["nats://127.0.0.1:4222"]', '"nats://a"', "nats.servers: must be a list", 4),
    "scheme": ("nats://127", "http://127", "nats.servers: item 1 is no server of NATS", 4),
    "no host": ("nats://127.0.0.1:4222", "nats://:4222", "nats.servers: item 1 is no server of NATS", 4),
    "no port": ("127.0.0.1:4222", "a:99999", "nats.servers: item 1 is no server of NATS", 4),
    "password": ("127.0.0.1", "u:hunter2@a", "nats.servers: item 1 has a user in it", 4),
    "no name": ('name = "follower"', "", "nats.name: is missing", 3),
    "name": ('"follower"', '"a.b"', "nats.name: is no name that can be used", 5),
    "stream": ('name = "follower"', 'name = "follower"\nstream = "I YS"', "nats.stream: is no name", 6),
    "api": ('name = "follower"', 'name = "follower"\napi = "iys.*"', "nats.api: is no subject", 6),
    "cert alone": ('name = "follower"', 'name = "follower"\ncert = "c.pem"', "nats.cert: and key need each", 6),
    "signer's name": ("signers.primary", 'signers."a b"', "signers.a b: is no name that can be used", 7),
    "no table": ("[signers.primary]", "[signers]", "signers.public: must be a table", 8),
    "capitals": (ONE.public.hex(), ONE.public.hex().upper(), "signers.primary.public: is no public key", 8),
    "short": (ONE.public.hex(), ONE.public.hex()[2:], "signers.primary.public: is no public key", 8),
    "placeholder": (ONE.public.hex(), "01" * 32, "signers.primary.public: is no public key", 8),
    "no right": ('["changes"]', "[]", "signers.primary.may: must say what it may sign", 9),
    "other right": ('["changes"]', '["changes", "all"]', "signers.primary.may: must say what it may sign", 9),
    "right twice": ('["changes"]', '["changes", "changes"]', "signers.primary.may: must say what it may sign", 9),
    "signer twice": (
        "[signers.primary]",
        f'[signers.old]\npublic = "{ONE.public.hex()}"\nmay = ["changes"]\n[signers.primary]',
        "signers.primary.public: is that of old too",
        11,
    ),
    "no place": ("[signers.primary]", "[snapshots]\nkeep = 3\n[signers.primary]", "snapshots: needs one place", 7),
    "two places": (
        "[signers.primary]",
        '[snapshots]\nbucket = "A"\nurl = "https://a"\n[signers.primary]',
        "snapshots.url: needs one place",
        9,
    ),
    "ca": (
        "[signers.primary]",
        '[snapshots]\nbucket = "A"\nca = "a.pem"\n[signers.primary]',
        "snapshots.ca: is of no use without url",
        9,
    ),
    "http": (
        "[signers.primary]",
        '[snapshots]\nurl = "http://a"\n[signers.primary]',
        "snapshots.url: must be https",
        8,
    ),
    "url": ("[signers.primary]", '[snapshots]\nurl = "a/b"\n[signers.primary]', "snapshots.url: is no address", 8),
    "user": (
        "[signers.primary]",
        '[snapshots]\nurl = "https://u@a"\n[signers.primary]',
        "snapshots.url: is no addr",
        8,
    ),
    "every": (
        "[signers.primary]",
        '[snapshots]\nbucket = "A"\nevery = "5s"\n[signers.primary]',
        "snapshots.every: must be a duration from 60 to 604800 seconds",
        9,
    ),
    "keep": (
        "[signers.primary]",
        '[snapshots]\nbucket = "A"\nkeep = 0\n[signers.primary]',
        "snapshots.keep: must be a whole number from 1 to 100",
        9,
    ),
}


class TestWrong:
    """A file with a mistake."""

    @pytest.mark.parametrize("name", WRONG)
    def test_mistakes(self, name: str) -> None:
        """Each mistake is told by its field and line, and with what to do."""
        old, new, told, line = WRONG[name]
        assert old in LEAST

        with pytest.raises(ClusterError, match=re.escape(told)) as caught:
            of(LEAST.replace(old, new))

        assert caught.value.line == line
        assert caught.value.fix
        assert "hunter2" not in str(caught.value)

    def test_loopback(self) -> None:
        """Without TLS snapshots are taken from this machine only."""
        cluster = of(LEAST + '[snapshots]\nurl = "http://127.0.0.1:8080"\n')

        assert cluster.snapshots is not None
        assert cluster.snapshots.url == "http://127.0.0.1:8080"

    @given(place=st.integers(0, len(FULL)), new=st.text(max_size=3), cut=st.integers(0, 5))
    @settings(max_examples=often(600), deadline=None)
    def test_damaged(self, place: int, new: str, cut: int) -> None:
        """A file that was changed anywhere is read, or refused by our error."""
        text = FULL[:place] + new + FULL[place + cut :]

        try:
            of(text.encode("utf-8", "surrogatepass").decode("utf-8", "replace"))
        except ClusterError as error:
            assert error.message  # noqa: PT017 - both ends are fine, an exception of another kind is not


class TestFile:
    """Who may change the file, and from where its paths count."""

    def test_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file that others can read is fine; its path is told from the root on, whoever asked how."""
        (tmp_path / "cluster.toml").write_text(LEAST)
        (tmp_path / "cluster.toml").chmod(0o644)
        monkeypatch.chdir(tmp_path)

        cluster = Cluster.read("cluster.toml")

        assert cluster.path == tmp_path / "cluster.toml"
        assert cluster.stream_key_file == tmp_path / "stream.key"

    @pytest.mark.parametrize("mode", [0o660, 0o606, 0o622])
    def test_writable(self, tmp_path: Path, mode: int) -> None:
        """Who can write it says whom to believe: only its owner may."""
        (tmp_path / "a b.toml").write_text(LEAST)
        (tmp_path / "a b.toml").chmod(mode)

        with pytest.raises(ClusterError, match=f"mode {mode:04o}.*say whom to believe.*chmod go-w '.*a b.toml'"):
            Cluster.read(tmp_path / "a b.toml")

    def test_owner(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It belongs to us or to root."""
        (tmp_path / "c.toml").write_text(LEAST)
        (tmp_path / "c.toml").chmod(0o600)
        real = os.fstat

        def of_another(descriptor: int) -> os.stat_result:
            found = list(real(descriptor))
            found[4] = os.geteuid() + 1
            return os.stat_result(found)

        monkeypatch.setattr(os, "fstat", of_another)

        with pytest.raises(ClusterError, match="belongs to another user"):
            Cluster.read(tmp_path / "c.toml")

    def test_no_file(self, tmp_path: Path) -> None:
        """What is no file, or too large, is told."""
        (tmp_path / "large.toml").write_bytes(b"#" * 300_000)

        for name, told in (("none", "does not exist"), (".", "not a regular file"), ("large.toml", "more than 262144")):
            with pytest.raises(ClusterError, match=told):
                Cluster.read(tmp_path / name)


class TestKeys:
    """Keys are read when they are asked for."""

    @pytest.fixture(name="folder")
    @staticmethod
    def _folder(tmp_path: Path) -> Path:
        """A file that names the keys beside it, and signs by one of its signers."""
        StreamKey.create(tmp_path / "stream.key")
        public = SigningKey.create(tmp_path / "signing.key").public.hex()
        text = f'signing_key = "signing.key"\n{LEAST}[signers.us]\npublic = "{public}"\nmay = ["snapshots"]\n'
        (tmp_path / "cluster.toml").write_text(text)
        (tmp_path / "cluster.toml").chmod(0o600)
        return tmp_path

    def test_lazy(self, folder: Path) -> None:
        """A file of keys that is not there hurts only who needs it."""
        (folder / "stream.key").unlink()

        cluster = Cluster.read(folder / "cluster.toml")

        assert cluster.signing_key("snapshots").public == cluster.signers_by_name["us"].public
        with pytest.raises(KeyFileError, match=r"stream\.key does not exist\..*iyscheck keys create-stream"):
            cluster.stream_key()

    def test_rights(self, folder: Path) -> None:
        """A signature counts for what its signer may make, and for nothing else."""
        cluster = Cluster.read(folder / "cluster.toml")
        ours = cluster.signing_key().sign(b"text")

        assert cluster.signers("snapshots").signed(ours, b"text")
        assert not cluster.signers("changes").signed(ours, b"text")
        assert cluster.signers("changes").signed(ONE.sign(b"text"), b"text")

    def test_believed_by_nobody(self, folder: Path) -> None:
        """A key that nobody would believe for that is refused before anything is signed with it."""
        cluster = Cluster.read(folder / "cluster.toml")

        with pytest.raises(
            ClusterError, match=r"none has the public key of .* may sign changes.*Add public = "
        ) as caught:
            cluster.sealer()

        assert cluster.signing_key().public.hex() in caught.value.fix

    def test_none(self) -> None:
        """Without a signing key, or without signers, it is said what to do."""
        with pytest.raises(ClusterError, match=r"signing_key: is missing .*keys create-signing"):
            of(LEAST).signing_key()
        with pytest.raises(ClusterError, match=r"signers: none may sign snapshots .*Add \[signers.NAME\]"):
            of(LEAST).signers("snapshots")

    def test_sealer_and_opener(self, folder: Path) -> None:
        """Who has the file seals and opens."""
        text = (folder / "cluster.toml").read_text()
        (folder / "cluster.toml").write_text(text.replace('["snapshots"]', '["changes"]'))
        cluster = Cluster.read(folder / "cluster.toml")
        batch = LogBatch(
            kind=Kind.HEARTBEAT,
            log_id=b"l" * 16,
            term=1,
            batch=2,
            first=3,
            last=3,
            created_ms=6,
            prev=bytes(32),
            digest=bytes(16),
            rows=EncodedChanges(rows=np.empty(0, ROW_DTYPE)),
            values=[(layout.WATERMARKS, b"k", b"v")],
        )

        assert cluster.opener(b"l" * 16).opened(cluster.sealer().seal(batch)).values == batch.values
