"""What strangers may take of a server before it knows who they are: time, memory and connections.

The table "Bounds" of `docs/operating.md` says what each end looks like from outside.
"""

import resource
from typing import Final

import msgspec

_OWN_DESCRIPTORS: Final = 256
"""For everything but callers' connections: the store, the log, scrapes, sockets that wait to be closed."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much, and how long. No setting: a good client never comes near one of them."""

    handshake_s: float = 10.0
    """From a connection's first byte to its first SETTINGS, the handshake of TLS included."""
    idle_s: float = 300.0
    """Without a call. A slow header counts as none, so whoever sends one byte a minute ends here, too."""
    age_s: float = 600.0
    """Of a connection; else connection balancers pin clients to old servers."""
    grace_s: float = 300.0
    """What calls that are open then may still take. With `age_s` it bounds a stream that sends nothing."""
    metadata_bytes: int = 16 * 1024
    """Header fields of a call. From here on some calls are refused, from twice as much on all."""
    unread_s: float = 30.0
    """For a reply to be taken. A slow link takes it in parts: 64 KB in that time are 2 KB a second."""
    unread_bytes: int = 128 * 1024 * 1024
    """All replies that are not taken yet, in one process. The oldest are given up first."""


BOUNDS: Final = Bounds()


def milliseconds(seconds: float) -> int:
    """Write seconds as gRPC takes them."""
    return int(seconds * 1_000)


def lift_descriptors() -> None:
    """Let this process, and those that it starts, open as many files as they may at all."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def room_for(connections: int) -> int:
    """Say how many connections fit under the limit on open files: as many as wanted, or fewer, but at least one.

    Beyond it the next connection would wait unaccepted, and the server could not open what it needs itself.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return connections
    return min(connections, max(soft - _OWN_DESCRIPTORS, 1))
