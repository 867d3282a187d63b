"""What the decision index consists of. Its pages are the business of `index.pages`."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from iyscheck.store.layout.checks import CODE_BYTES, checked, corrupt, encode_number, unchecked

META_INDEX: Final = b"index"
"""The field of `meta` that has the state."""
FILE_PAGE_BYTES: Final = 4096
"""What a page of the index takes on disk: one page of LMDB's file. A store with pages of another size is refused."""
_SHARD: Final = struct.Struct(">II")
_INDEX_STATE: Final = struct.Struct(">QIIQIIIQ")


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexState:
    """What the decision index consists of.

    `revision` counts commits that changed it. Of the generation in use: its number, shards and words in use. Of the
    one that is being built, if `building` is not 0: the same, and `frontier`, the first shard that is not built yet.
    """

    revision: int = 0
    generation: int = 0
    shards: int = 0
    entries: int = 0
    building: int = 0
    building_shards: int = 0
    frontier: int = 0
    building_entries: int = 0

    @property
    def bytes(self) -> int:
        """What the pages take on disk, those being built included; the tree above them takes less than a hundredth."""
        return (self.shards + self.frontier) * FILE_PAGE_BYTES


def encode_index_state(state: IndexState) -> bytes:
    """Write the state of the decision index; checked."""
    numbers = (getattr(state, name) for name in IndexState.__slots__)
    return checked(META_INDEX, _INDEX_STATE.pack(*numbers))


def decode_index_state(value: bytes) -> IndexState:
    """Read the state of the decision index."""
    body = unchecked(META_INDEX, value, "index state")
    if len(body) != _INDEX_STATE.size:
        corrupt("index state")
    return IndexState(**dict(zip(IndexState.__slots__, _INDEX_STATE.unpack(body), strict=True)))


def encode_shard(generation: int, shard: int) -> bytes:
    """Write the key of a page of the decision index."""
    return _SHARD.pack(generation, shard)


def encode_shards(generation: int, shards: Sequence[int]) -> list[bytes]:
    """Write the keys of many pages of one generation."""
    return [_SHARD.pack(generation, shard) for shard in shards]


def decode_shard(key: bytes) -> tuple[int, int]:
    """Read the key of a page: generation and shard."""
    if len(key) != _SHARD.size:
        corrupt("index key")
    generation, shard = _SHARD.unpack(key)
    return generation, shard


def encode_index_changes(revision: int, changed: Mapping[int, npt.NDArray[np.int64]]) -> bytes:
    """Write which shards of which generations a revision changed: generation, how many, which (4 each); checked."""
    parts = [
        _SHARD.pack(generation, len(shards)) + shards.astype(">u4").tobytes() for generation, shards in changed.items()
    ]
    return checked(encode_number(revision), b"".join(parts))


def decode_index_changes(key: bytes, value: bytes) -> dict[int, npt.NDArray[np.int64]]:
    """Read which shards a revision changed, by generation."""
    body, at = unchecked(key, value, "index change"), 0
    changed: dict[int, npt.NDArray[np.int64]] = {}
    while at < len(body):
        generation, count = _SHARD.unpack_from(body, at)
        at += _SHARD.size
        changed[generation] = np.frombuffer(body, ">u4", count, at).astype(np.int64)
        at += count * CODE_BYTES
    return changed
