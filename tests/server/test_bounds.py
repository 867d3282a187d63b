"""How many connections fit under the limit on open files."""

import resource

import pytest

from iyscheck.server.bounds import lift_descriptors, room_for


@pytest.mark.parametrize(
    ("soft", "wanted", "room"),
    [
        (1_024, 10_000, 768),
        (20_000, 10_000, 10_000),
        (100, 10_000, 1),
        (resource.RLIM_INFINITY, 10_000, 10_000),
        (1_024, 5, 5),
    ],
)
def test_room(monkeypatch: pytest.MonkeyPatch, soft: int, wanted: int, room: int) -> None:
    """As many as wanted, or what the server's own files leave, but at least one."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))

    assert room_for(wanted) == room


def test_lifted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit in force is lifted to the one that the system allows."""
    set_to: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1_024, 524_288))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: set_to.append((kind, limits)))

    lift_descriptors()

    assert set_to == [(resource.RLIMIT_NOFILE, (524_288, 524_288))]
