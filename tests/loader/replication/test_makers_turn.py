"""When a maker is due, and what it tells of the newest snapshot."""

from pathlib import Path

import pytest
from prometheus_client import generate_latest

from iyscheck.keys import SigningKey, StreamKey
from iyscheck.service_manager import ServiceManager
from loader.replication.cluster import Cluster
from loader.replication.copies import ClusterMakers
from loader.replication.replica_metrics import ReplicaMetrics


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """A maker's cluster file, whose place is empty."""
    StreamKey.create(tmp_path / "stream.key")
    public = SigningKey.create(tmp_path / "signing.key").public.hex()
    file = tmp_path / "cluster.toml"
    file.write_text(
        'stream_key = "stream.key"\nsigning_key = "signing.key"\n[nats]\nservers = ["nats://127.0.0.1:1"]\nname = "m"\n'
        f'[signers.maker]\npublic = "{public}"\nmay = ["snapshots"]\n[snapshots]\ndirectory = "snapshots"\n'
    )
    (tmp_path / "snapshots").mkdir()
    return Cluster.read(file)


def test_no_snapshot_is_older_than_any(cluster: Cluster, tmp_path: Path) -> None:
    """A maker that has made none yet is due, and says so from its first look on: perhaps it will never make one."""
    metrics = ReplicaMetrics(ServiceManager())
    makers = ClusterMakers(cluster, tmp_path / "store", metrics.snapshot_age)

    assert makers.is_due()
    assert b"consent_snapshot_age_seconds +Inf" in generate_latest(metrics.registry)
