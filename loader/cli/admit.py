"""`admit`: a brand or channels that had been gone at İYS may be read again."""

from typing import Annotated

import typer

from iyscheck.consent import Channel
from iyscheck.errors import SettingsError
from iyscheck.keys import AddressKey, StoreKey
from loader.cli.failures import errors
from loader.cli.options import AddressKeyOption, JsonOption, StoreKeyOption, StoreOption
from loader.cli.orders import ordered
from loader.mirror.orders import Admit
from loader.reading.vocabulary import BRAND_MAX
from loader.reports.summary import print_json


def admit(
    brand: Annotated[int, typer.Argument(metavar="BRAND", min=1, max=BRAND_MAX, help="Brand code.")],
    store: StoreOption,
    address_key: AddressKeyOption,
    store_key: StoreKeyOption,
    channel: Annotated[
        list[str] | None, typer.Option("--channel", help="Channel to admit: ARAMA, MESAJ, EPOSTA; default: all.")
    ] = None,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Let a brand or channels be read again that had been gone at İYS. Load a full list of them first.

    Refusals that were registered while they were gone are in the store only if you loaded a list since.

    Example:
        iyscheck-loader admit 600000 --channel EPOSTA
    """
    with errors(as_json=as_json):
        channels = tuple(_channel(each).name for each in channel or ())
        keys = AddressKey.load(address_key), StoreKey.load(store_key)
        done = ordered(Admit(brand=brand, channels=channels), store, keys)
        if as_json:
            print_json({"brand": brand, "channels": list(done.channels)})
        else:
            typer.echo(f"Brand {brand} may be read: {', '.join(done.channels)}.")


def _channel(text: str) -> Channel:
    found = Channel.__members__.get(text.strip().upper())
    if found is None:
        known = ", ".join(each.name for each in Channel)
        raise SettingsError("--channel", f"'{text}' is no channel.", fix=f"Known are {known}.")
    return found
