"""A log for real: a primary that loads and publishes, a nats-server, a replica and its server, all of it watched.

The replica makes snapshots, too.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.soak.site import free_port
from iyscheck.keys import SigningKey, StreamKey
from loader.replication.log import NatsLog
from loader.replication.messages import LogMovedError
from tests.deploy.watched import Feed, Prometheus, Started, brand, consent, eventually
from tests.loader.replication.servers import NatsServer, one_server
from tests.processes import Site, turkish_now


@dataclass
class Replicated:
    """All processes of it; `site` is the primary's, `store` the replica's."""

    site: Site
    store: Path
    nats: NatsServer
    loader: Started
    publisher: Started
    replica: Started
    server: Started
    feed: Feed
    prometheus: Prometheus

    @classmethod
    @contextmanager
    def running(cls, folder: Path, *, divisor: int = 30) -> Iterator["Replicated"]:
        """Run everything, and wait until Prometheus has seen a replica that follows."""
        site = Site.make(folder)
        at = {name: f"127.0.0.1:{free_port()}" for name in ("server", "loader", "publisher", "replica")}
        feed = Feed(folder / "feed")
        first = [brand(1), consent(1, "+905321000001", "ONAY", "2024-05-02 10:00:00")]
        watermark: dict[str, object] = {"kind": "watermark", "completeUntil": turkish_now()}
        assert site.load(str(site.feed("first.jsonl", [*first, watermark]))) == 0, site.printed
        with ExitStack() as parts:
            nats = parts.enter_context(one_server(folder / "nats"))
            cluster = _cluster(folder, nats)
            log = [f"--cluster={cluster}"]
            of_replica = [f"--store={folder / 'replica' / 'store'}", *log, "--snapshots"]
            keys = [f"--address-key={folder / 'address.key'}", f"--store-key={folder / 'store.key'}"]

            def started(name: str, *command: str, ready: str = "") -> Started:
                made = Started(
                    [sys.executable, "-m", *command, f"--metrics-listen={at[name]}"], folder / f"{name}.log", ready
                )
                parts.callback(made.kill)
                return made

            follow = ["follow", str(feed.folder), "--poll-seconds=0.2", "--settle-seconds=0", *site.flags]
            serve = ["serve", f"--store={folder / 'replica' / 'store'}", *keys, "--listen=127.0.0.1:0", "--workers=1"]
            targets = {
                "iyscheck": [at["server"]],
                "iyscheck-loader": [at["loader"]],
                "iyscheck-log": [at["publisher"], at["replica"]],
            }
            made = cls(
                site=site,
                store=folder / "replica" / "store",
                nats=nats,
                loader=started("loader", "loader", *follow),
                publisher=started("publisher", "loader", "publish", f"--store={site.store}", *log),
                replica=started("replica", "loader", "replicate", *of_replica),
                server=started("server", "iyscheck", *serve, ready='"event": "serving"'),
                feed=feed,
                prometheus=parts.enter_context(Prometheus.watching(folder / "prometheus", targets, divisor=divisor)),
            )
            made.create_log()
            made.snapshot()
            parts.enter_context(feed.flowing())
            for process in (made.loader, made.publisher, made.replica):
                process.start()
            eventually((made.store / "data.mdb").exists, made.replica.log.read_text)
            made.server.start()
            made.wait_fresh()
            yield made

    def create_log(self) -> None:
        """Make the stream, and the store a primary, if they are none."""
        self.command("create-log", *self.site.flags, self._cluster, "--replicas=1", "--kept-gb=1")

    def snapshot(self) -> None:
        """Make a snapshot of the primary."""
        self.command("snapshot", f"--store={self.site.store}", self._cluster)

    def command(self, *arguments: str) -> None:
        """Run a command of the loader to its end."""
        ran = subprocess.run(
            [sys.executable, "-m", "loader", *arguments], check=False, capture_output=True, text=True, timeout=120
        )
        assert ran.returncode == 0, ran.stderr

    def wait_fresh(self) -> None:
        """Wait until the replica's server says that it is fresh."""
        fresh = 'consent_serving{service="iyscheck.v1.ConsentCheckService/fresh"} == 1'
        eventually(
            lambda: self.prometheus.ask(f"{fresh} and on (instance) consent_replica_lag_seconds"),
            lambda: self.replica.log.read_text()[-2_000:] + self.publisher.log.read_text()[-2_000:],
        )

    def emptied(self) -> None:
        """Let NATS lose all that it has, and make the log anew; the publisher is started again if it has ended."""
        self.nats.kill()
        shutil.rmtree(self.nats.data)
        self.nats.start()
        self.create_log()
        self.publisher.kill()
        self.publisher.start()

    def stranger(self) -> None:
        """Append to the log what no primary made."""
        log = NatsLog.connect(self.nats.settings())
        try:
            eventually(lambda: _appended(log), "somebody else appends all the time")
        finally:
            log.close()

    @property
    def _cluster(self) -> str:
        return f"--cluster={self.site.folder / 'cluster.toml'}"


def _appended(log: NatsLog) -> bool:
    try:
        log.append(log.ends().last, b"nobody has signed this")
    except LogMovedError:
        return False
    return True


def _cluster(folder: Path, nats: NatsServer) -> Path:
    StreamKey.create(folder / "stream.key")
    public = SigningKey.create(folder / "signing.key").public.hex()
    file = folder / "cluster.toml"
    file.write_text(
        f'stream_key = "stream.key"\nsigning_key = "signing.key"\n[nats]\nservers = ["{nats.url}"]\nname = "all"\n'
        f'[signers.primary]\npublic = "{public}"\nmay = ["changes", "snapshots"]\n'
        '[snapshots]\ndirectory = "snapshots"\nevery = "1m"\n'
    )
    return file
