"""The place of snapshots that a cluster file names, and who makes them there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from iyscheck.errors import ClusterError, PlaceAwayError
from iyscheck.keys import SigningKey
from loader.replication.cluster import Cluster, SnapshotSettings
from loader.replication.maker import Maker
from loader.replication.places import DirectoryPlace, MakersPlace, ObjectsPlace, Place, UrlPlace


@contextmanager
def place_of(cluster: Cluster) -> Iterator[Place]:
    """Give the place that snapshots are taken from.

    Raises ClusterError where none is named, SettingsError, PlaceAwayError for a directory that is not there.
    """
    settings = _settings(cluster)
    if settings.directory is not None and not settings.directory.is_dir():
        raise PlaceAwayError(
            f"snapshots.directory: {settings.directory} is no directory ({cluster.path}).",
            fix="Is the path right, and is it mounted here? The first snapshot makes it.",
        )
    if settings.url is not None:
        yield UrlPlace(settings.url, settings.ca)
    else:
        with makers_place_of(cluster) as place:
            yield place


@contextmanager
def makers_place_of(cluster: Cluster) -> Iterator[MakersPlace]:
    """Give the place that snapshots are put to. Raises ClusterError where none is named, or only a URL."""
    settings = _settings(cluster)
    if settings.directory is not None:
        yield DirectoryPlace(settings.directory)
        return
    if settings.bucket is None:
        raise ClusterError(
            "snapshots.url",
            f"snapshots are only taken from there ({cluster.path}).",
            fix="In the cluster file of a maker name the directory that this server gives out.",
        )
    from loader.replication.log_objects import NatsObjects  # of an extra, which makers with a directory do without

    objects = NatsObjects.connect(cluster.nats, settings.bucket)
    try:
        yield ObjectsPlace(objects)
    finally:
        objects.close()


def maker_at(place: MakersPlace, cluster: Cluster, store: Path, signing_key: SigningKey) -> Maker:
    """Give who makes snapshots of a store there. Raises ClusterError, KeyFileError."""
    return Maker(
        store,
        place,
        stream_key=cluster.stream_key(),
        signing_key=signing_key,
        signers=cluster.signers("snapshots"),
        keep=_settings(cluster).keep,
    )


def _settings(cluster: Cluster) -> SnapshotSettings:
    if cluster.snapshots is None:
        raise ClusterError(
            "snapshots",
            f"is missing ({cluster.path}), so nobody knows where snapshots lie.",
            fix='Add [snapshots] with directory = "…", bucket = "…" or url = "https://…".',
        )
    return cluster.snapshots
