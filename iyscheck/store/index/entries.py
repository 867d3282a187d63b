"""Consents as the index sees them: a place and a word each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from iyscheck.change import ConsentColumns
from iyscheck.consent import Status, states
from iyscheck.errors import StoreError
from iyscheck.store import layout
from iyscheck.store.encoded import Facts
from iyscheck.store.index import pages


@dataclass(frozen=True, slots=True)
class Entries:
    """N consents as the index sees them: places and words, uint64 of shape (N,)."""

    places: pages.Places
    words: pages.Words

    def __len__(self) -> int:
        """Count the consents."""
        return len(self.words)


def entries_of(changes: ConsentColumns | Facts, state: npt.NDArray[np.uint8]) -> Entries:
    """Turn N consents with their state bytes into entries."""
    runs, lengths = context_runs(changes)
    salt = np.repeat(np.array([pages.salts(*context) for context in runs], np.uint64).reshape(-1, 2), lengths, axis=0)
    return Entries(pages.places(changes.tag, salt[:, 0]), pages.fingerprints(changes.tag, salt[:, 1]) | state)


def context_runs(changes: ConsentColumns | Facts) -> tuple[list[tuple[int, int, int]], npt.NDArray[np.int64]]:
    """Return brand, channel and recipient type of each run of changes that share them, and how long the runs are."""
    prefix = changes.brand.astype(np.int64) << 16 | changes.channel.astype(np.int64) << 8 | changes.recipient_type
    begins = np.flatnonzero(np.diff(prefix, prepend=-1))
    runs = [(code >> 16, code >> 8 & 0xFF, code & 0xFF) for code in prefix[begins].tolist()]
    return runs, np.diff(begins, append=len(prefix))


def joined(parts: Sequence[Entries]) -> Entries:
    """Put entries together."""
    nothing = np.zeros(0, np.uint64)
    return Entries(
        np.concatenate([nothing, *(part.places for part in parts)]),
        np.concatenate([nothing, *(part.words for part in parts)]),
    )


def states_of_records(
    keys: Sequence[bytes], values: Sequence[bytes], has_retailers: npt.NDArray[np.bool_]
) -> npt.NDArray[np.uint8]:
    """Return the state bytes of N records; a damaged one counts as an unknown status, which denies."""
    intact = np.fromiter(map(layout.intact, keys, values), np.bool_, len(keys))
    nothing = bytes(layout.RECORD_BYTES)
    fixed = b"".join(
        [value[: layout.RECORD_BYTES] if good else nothing for value, good in zip(values, intact.tolist(), strict=True)]
    )
    rows = np.frombuffer(fixed, layout.RECORD_DTYPE)
    found = states(
        rows["status"],
        rows["consented"].astype(np.int64),
        rows["registered"].astype(np.int64),
        layout.by_citizen(rows, lambda at: values[at][layout.RECORD_BYTES :] if intact[at] else b""),
        has_retailers,
    )
    found[~intact] = Status.UNKNOWN
    return found


def check_contexts(known: dict[tuple[int, int], tuple[int, int, int]], changes: ConsentColumns | Facts) -> None:
    """Refuse a context whose numbers are those of another: the index would take one's consents for the other's.

    `known` maps the numbers of contexts met before to the contexts; new ones are added. Raises StoreError.
    """
    for context in set(context_runs(changes)[0]):
        if known.setdefault(pages.salts(*context), context) != context:
            raise StoreError("Two brands cannot be told apart in the decision index.", fix="Report this fault.")
