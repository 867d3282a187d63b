"""Places of snapshots: a directory, a server of HTTPS with its faults, and objects in a real nats-server."""

import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from iyscheck.errors import ClusterError, PlaceAwayError, SettingsError, SnapshotMissingError
from loader.replication.cluster import Cluster
from loader.replication.cluster_place import makers_place_of, place_of
from loader.replication.log_objects import NatsObjects
from loader.replication.maker import Maker
from loader.replication.places import LIST, DirectoryPlace, ObjectsPlace, UrlPlace, VanishedError
from tests.loader.replication.servers import one_server
from tests.loader.replication.snapshots import MAKER, SIGNERS, STREAM_KEY, Site, opened
from tests.logs import assert_same

CONTENT = bytes(range(256)) * 9000


def whole(place: DirectoryPlace | UrlPlace | ObjectsPlace, name: str, first: int = 0) -> bytes:
    """Read a file to its end."""
    return b"".join(place.read(name, first))


# --- a directory


def test_directory(tmp_path: Path) -> None:
    """What was put is there whole, from any byte on, until it is removed; names that lead elsewhere are none."""
    place = DirectoryPlace(tmp_path / "a" / "place")
    assert place.names() == []
    place.put("part.00001", [CONTENT[:1000], CONTENT[1000:]])
    place.put("part.00001", [CONTENT])
    (tmp_path / "a" / "secret").write_bytes(b"secret")
    (tmp_path / "a" / "place" / ".hidden").write_bytes(b"secret")

    assert place.names() == ["part.00001"]
    assert whole(place, "part.00001") == CONTENT
    assert whole(place, "part.00001", 2_000_000) == CONTENT[2_000_000:]
    for name in ("../secret", ".hidden", "", "nothing", "a/b", "a\n"):
        with pytest.raises(VanishedError):
            whole(place, name)
    place.remove("part.00001")
    place.remove("part.00001")
    assert place.names() == []


def test_directory_puts_whole_files(tmp_path: Path) -> None:
    """Nobody sees a part of a file, and nothing is left of one that failed."""
    place = DirectoryPlace(tmp_path)

    def pieces() -> Iterator[bytes]:
        yield CONTENT
        assert place.names() == []
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place.put("part.00001", pieces())
    assert list(tmp_path.iterdir()) == []


def test_directory_cannot_be_used(tmp_path: Path) -> None:
    """What is no directory does not answer."""
    (tmp_path / "file").touch()
    place = DirectoryPlace(tmp_path / "file")
    with pytest.raises(PlaceAwayError, match="Not a directory"):
        place.names()
    with pytest.raises(PlaceAwayError, match="exists"):
        place.put("name", [b""])


# --- HTTPS


@dataclass(kw_only=True)
class Web:
    """A server that gives out a directory. `how` says with which faults."""

    directory: Path
    how: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    sent: int = 0

    @contextmanager
    def serving(self, authority: trustme.CA | None) -> Iterator[str]:
        """Serve from a thread; gives the address."""
        web = self

        class Handler(_Handler):
            def do_GET(self) -> None:
                web.answer(self)

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            if authority is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                authority.issue_cert("127.0.0.1").configure_cert(context)
                server.socket = context.wrap_socket(server.socket, server_side=True)
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                scheme = "http" if authority is None else "https"
                yield f"{scheme}://127.0.0.1:{server.server_port}/snapshots"
            finally:
                server.shutdown()
                thread.join()

    def answer(self, call: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        wanted = call.headers.get("Range", "")
        self.asked.append((call.path, wanted))
        path = self.directory / call.path.removeprefix("/snapshots/")
        if self.how == "fails":
            call.send_error(500)
        elif self.how == "moves":
            call.send_response(302)
            call.send_header("Location", "https://127.0.0.1:1/elsewhere")
            call.end_headers()
        elif not call.path.startswith("/snapshots/") or not path.is_file():
            call.send_error(404)
        else:
            self._give(call, path.read_bytes(), wanted)

    def _give(self, call: BaseHTTPRequestHandler, content: bytes, wanted: str) -> None:
        found = re.fullmatch("bytes=([0-9]+)-", wanted)
        first = int(found[1]) if found and self.how != "no ranges" else 0
        if first >= len(content) > 0:
            call.send_error(416)
            return
        body = content[first:]
        call.send_response(206 if first else 200)
        if first:
            told = first - 1 if self.how == "lies" else first
            call.send_header("Content-Range", f"bytes {told}-{len(content) - 1}/{len(content)}")
        if self.how != "no length":
            call.send_header("Content-Length", str(len(body)))
        call.end_headers()
        if self.how in {"cuts", "no length"} and not call.path.endswith(".json"):
            body = body[:30_000]
        call.wfile.write(body)
        self.sent += len(body)
        call.close_connection = True


class _Handler(BaseHTTPRequestHandler):
    """Without a log."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who issues certificates."""
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path) -> Path:
    """The file of its certificate."""
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A primary of some thousand consents; whoever takes snapshots does not wait long before asking again."""
    monkeypatch.setattr("loader.replication.snapshot._PAUSE_S", 0.001)
    return Site.make(tmp_path)


@pytest.mark.parametrize("how", ["", "no ranges", "cuts", "no length"])
def test_boot_over_https(site: Site, authority: trustme.CA, trusted: Path, how: str) -> None:
    """A replica boots from a server over TLS, also from one that knows no ranges or cuts each answer."""
    made = site.maker(part_bytes=300_000).make()
    web = Web(directory=site.directory, how=how)
    with web.serving(authority) as url:
        site.boot(UrlPlace(url, trusted))
    with opened(site.store) as source, opened(site.replica) as copy:
        assert_same(source, copy)
    parts = [(path, wanted) for path, wanted in web.asked if not path.endswith(".json")]
    if how in {"cuts", "no length"}:
        assert len(parts) > len(made.parts)
        assert {wanted for _, wanted in parts} >= {"", "bytes=30000-", "bytes=60000-"}
        lists = sum(path.stat().st_size for path in site.directory.glob("*.json"))
        assert web.sent == made.sent_bytes + lists
    else:
        assert len(parts) == len(made.parts)


@pytest.mark.parametrize("how", ["", "no ranges", "lies"])
def test_from_a_byte_on(authority: trustme.CA, trusted: Path, tmp_path: Path, how: str) -> None:
    """A file is read from a byte on, whether the server knows ranges or not; another range than that is not used."""
    directory = DirectoryPlace(tmp_path / "place")
    directory.put("part.00001", [CONTENT])
    web = Web(directory=tmp_path / "place", how=how)
    with web.serving(authority) as url:
        place = UrlPlace(url, trusted)
        assert whole(place, "part.00001") == CONTENT
        if how == "lies":
            with pytest.raises(PlaceAwayError):
                whole(place, "part.00001", 1_234_567)
        else:
            assert whole(place, "part.00001", 1_234_567) == CONTENT[1_234_567:]


def test_cut_answer(authority: trustme.CA, trusted: Path, tmp_path: Path) -> None:
    """An answer that ends before its length is not taken for the whole file."""
    DirectoryPlace(tmp_path / "place").put("part.00001", [CONTENT])
    with Web(directory=tmp_path / "place", how="cuts").serving(authority) as url, pytest.raises(PlaceAwayError):
        whole(UrlPlace(url, trusted), "part.00001")


def test_resumed_over_https(site: Site, authority: trustme.CA, trusted: Path) -> None:
    """What came before the server went away is not asked for again."""
    made = site.maker().make()
    web = Web(directory=site.directory)
    with web.serving(authority) as url:
        place = UrlPlace(url, trusted)

        def stop(done: int, _total: int) -> None:
            if done > made.sent_bytes // 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            site.take(place, progress=stop)
        asked = len(web.asked)
        site.boot(place)
        assert len([path for path, _ in web.asked[asked:] if not path.endswith(".json")]) < len(made.parts)
    with opened(site.store) as source, opened(site.replica) as copy:
        assert_same(source, copy)


@pytest.mark.parametrize("how", ["fails", "moves"])
def test_server_at_fault(site: Site, authority: trustme.CA, trusted: Path, how: str) -> None:
    """A server that fails or sends elsewhere does not answer; nothing is followed."""
    site.maker().make()
    with Web(directory=site.directory, how=how).serving(authority) as url, pytest.raises(PlaceAwayError):
        site.take(UrlPlace(url, trusted))


def test_fails_in_the_middle(site: Site, authority: trustme.CA, trusted: Path) -> None:
    """Where a server begins to fail, it is asked some times again, and then what is there waits for better times."""
    site.maker().make()
    web = Web(directory=site.directory)
    with web.serving(authority) as url:

        def fail(_done: int, _total: int) -> None:
            web.how = "fails"

        with pytest.raises(PlaceAwayError, match="500"):
            site.take(UrlPlace(url, trusted), progress=fail)
        web.how = ""
        site.boot(UrlPlace(url, trusted))


def test_vanished_over_https(site: Site, authority: trustme.CA, trusted: Path) -> None:
    """What the list names and the server has not is passed over."""
    site.maker().make()
    site.parts()[1].unlink()
    with Web(directory=site.directory).serving(authority) as url, pytest.raises(SnapshotMissingError, match="vanished"):
        site.take(UrlPlace(url, trusted))


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"manifests": 1}', b'{"manifests": [', b"\xff", b"x" * 2**21])
def test_bad_list(tmp_path: Path, authority: trustme.CA, trusted: Path, content: bytes | None) -> None:
    """Without a list that can be read it is no place of snapshots."""
    if content is not None:
        (tmp_path / LIST).write_bytes(content)
    with Web(directory=tmp_path).serving(authority) as url, pytest.raises(PlaceAwayError, match="no list"):
        UrlPlace(url, trusted).names()


def test_list_leads_nowhere_else(tmp_path: Path, authority: trustme.CA, trusted: Path) -> None:
    """Names that lead elsewhere are left out of a list."""
    (tmp_path / LIST).write_bytes(b'{"manifests": ["../../etc/passwd", "/x", "a b", "snapshot.json"]}')
    with Web(directory=tmp_path).serving(authority) as url:
        assert UrlPlace(url, trusted).names() == ["snapshot.json"]


def test_certificates(tmp_path: Path, authority: trustme.CA, trusted: Path) -> None:
    """A server whose certificate is of nobody who is trusted is not asked; nor does one answer that is not there."""
    with Web(directory=tmp_path).serving(authority) as url:
        with pytest.raises(PlaceAwayError, match="CERTIFICATE_VERIFY_FAILED"):
            UrlPlace(url).names()
        stranger = tmp_path / "stranger.pem"
        trustme.CA().cert_pem.write_to_path(stranger)
        with pytest.raises(PlaceAwayError, match="CERTIFICATE_VERIFY_FAILED"):
            UrlPlace(url, stranger).names()
    with pytest.raises(PlaceAwayError, match="refused"):
        UrlPlace(url, trusted).names()


def test_http_on_this_machine(site: Site) -> None:
    """Behind a proxy on the same machine plain HTTP will do."""
    site.maker().make()
    with Web(directory=site.directory).serving(None) as url:
        site.boot(UrlPlace(url))


def test_addresses(tmp_path: Path) -> None:
    """Other kinds of addresses, logins in them, and authorities that are none are refused."""
    for url in ("ftp://host/", "https://", "https://user:secret@host/", "https://host/?a=b"):
        with pytest.raises(SettingsError) as refused:
            UrlPlace(url)
        assert "secret" not in str(refused.value)
    with pytest.raises(SettingsError):
        UrlPlace("https://host/", tmp_path / "missing.pem")
    (tmp_path / "empty.pem").touch()
    with pytest.raises(SettingsError):
        UrlPlace("https://host/", tmp_path / "empty.pem")


# --- objects in NATS


def test_boot_over_nats(site: Site) -> None:
    """A replica boots from objects in a real nats-server, of which only the newest stay; without it they are away.

    Nobody has made the bucket: whoever puts the first snapshot does.
    """
    with one_server(site.folder / "nats") as server:
        objects = NatsObjects.connect(server.settings(connect_timeout_s=1.0), "SNAPSHOTS")
        place = ObjectsPlace(objects)
        assert place.names() == []
        place.remove("nothing")
        with pytest.raises(PlaceAwayError, match="no bucket"):
            whole(place, "nothing")
        terms = {"stream_key": STREAM_KEY, "signing_key": MAKER, "signers": SIGNERS, "part_bytes": 200_000}
        maker = Maker(site.store, place, keep=1, **terms)  # type: ignore[arg-type] # as they are
        maker.make()
        maker.make()
        site.advance(1)
        made = maker.make()
        assert site.boot(place).batch == made.batch
        assert len(place.names()) == len(made.parts) + 1
        with pytest.raises(VanishedError):
            whole(place, "nothing")
        server.kill()
        with pytest.raises(PlaceAwayError, match="does not answer"):
            place.names()
        objects.close()
    with opened(site.store) as source, opened(site.replica) as copy:
        assert_same(source, copy)


def test_bucket_without_room(site: Site) -> None:
    """A bucket that is full says so, and keeps what it had."""
    with one_server(site.folder / "nats") as server:
        objects = NatsObjects.connect(server.settings(connect_timeout_s=1.0), "SNAPSHOTS")
        objects.create_stream(kept_bytes=2**20)
        place = ObjectsPlace(objects)
        place.put("first", [CONTENT[:1000]])
        with pytest.raises(PlaceAwayError, match="full"):
            place.put("second", [CONTENT])
        assert place.names() == ["first"]
        objects.close()


# --- the cluster file


def cluster(folder: Path, snapshots: str) -> Cluster:
    """Read a cluster file that says so of snapshots."""
    text = f'stream_key = "stream.key"\n[nats]\nservers = ["nats://127.0.0.1:1"]\nname = "a"\n{snapshots}'
    return Cluster.parsed(text.encode(), folder / "cluster.toml")


def test_places_of_a_cluster(tmp_path: Path) -> None:
    """The cluster file names the place; from a URL snapshots are only taken."""
    directory = cluster(tmp_path, '[snapshots]\ndirectory = "snapshots"')
    with pytest.raises(PlaceAwayError, match=r"snapshots\.directory: .* is no directory"), place_of(directory):
        pass
    with makers_place_of(directory) as made:
        made.put("a", [b"content"])
    with place_of(directory) as taken:
        assert b"".join(taken.read("a")) == b"content"
    assert (tmp_path / "snapshots" / "a").exists()
    with place_of(cluster(tmp_path, '[snapshots]\nbucket = "SNAPSHOTS"')) as place:
        assert isinstance(place, ObjectsPlace)
    url = cluster(tmp_path, '[snapshots]\nurl = "https://snapshots.example/iys"')
    with place_of(url) as place:
        assert isinstance(place, UrlPlace)
    with pytest.raises(ClusterError, match="only taken"), makers_place_of(url):
        pass
    with pytest.raises(ClusterError, match="missing"), place_of(cluster(tmp_path, "")):
        pass
