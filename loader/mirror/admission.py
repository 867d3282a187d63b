"""Lets a brand or channels be read again that had been gone at İYS, by the word of an operator.

What was registered while they were away is in the store only if somebody loaded a list since. Nothing here can know.
"""

from collections.abc import Set as AbstractSet
from pathlib import Path

from iyscheck.change import Brand, ConsentColumns
from iyscheck.consent import Channel
from iyscheck.errors import AdmissionError
from iyscheck.store.layout import SourceState
from iyscheck.store.snapshot import Store
from iyscheck.store.writer import Batch, Writer
from loader.iys.messages import ListedBrand
from loader.mirror.accounts import ENDED, admitted
from loader.mirror.discovery import all_remembered
from loader.reading import times

_SOURCE = "iys:admissions"
_ASK = "'iyscheck-loader mirror' asks İYS every hour what is listed."


def admit(writer: Writer, folder: Path, brand: int, channels: AbstractSet[Channel], *, now_s: float) -> Brand:
    """Admit channels of a brand, or without any all that İYS lists; return the brand as it is then.

    Raises AdmissionError where İYS does not list it, or where nothing of it waits; StoreError.
    """
    shown = _listed(folder, brand)
    if missing := channels - shown.channels:
        names = ", ".join(sorted(channel.name for channel in missing))
        raise AdmissionError(f"İYS does not list {names} for brand {brand}.", fix=_ASK)
    with Store(writer.environment).snapshot() as snapshot:
        old = snapshot.brand(brand).brand
    if old is None:
        raise AdmissionError(f"Brand {brand} is not registered yet, so nothing of it was ever gone.", fix=_ASK)
    new = admitted(old, shown, channels or shown.channels, times.local_now(now_s))
    if new.active == old.active and new.channels == old.channels:
        raise AdmissionError(f"Nothing of brand {brand} waits to be admitted.", fix="Nothing need be done.")
    nothing = ConsentColumns.of(())
    source = writer.source(_SOURCE) or SourceState(name=_SOURCE)
    writer.apply(Batch(consents=nothing, access=(), brands=(new,), rows=1), source, finished=True)
    return new


def _listed(folder: Path, brand: int) -> ListedBrand:
    """Find a brand in what İYS listed last."""
    for listing in all_remembered(folder):
        if brand in listing.shown and listing.state_of(listing.shown[brand].iys_code) not in ENDED:
            return listing.shown[brand]
    raise AdmissionError(f"İYS does not list brand {brand} with any subscription that is not over.", fix=_ASK)
