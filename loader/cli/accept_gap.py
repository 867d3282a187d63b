"""`accept-gap`: rows of a brand are lost, and its watermark moves over the time that lacks them."""

import time
from typing import Annotated

import typer

from iyscheck.errors import SettingsError
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.times import rfc3339
from loader.cli.failures import errors
from loader.cli.options import AddressKeyOption, JsonOption, StoreKeyOption, StoreOption
from loader.cli.orders import ordered
from loader.loading.options import check_watermark
from loader.mirror.orders import AcceptGap
from loader.reading import times
from loader.reading.vocabulary import BRAND_MAX
from loader.reports.summary import moved, print_json, texts


def accept_gap(
    brand: Annotated[int, typer.Argument(metavar="BRAND", min=1, max=BRAND_MAX, help="Brand code.")],
    store: StoreOption,
    address_key: AddressKeyOption,
    store_key: StoreKeyOption,
    reason: Annotated[str, typer.Option("--reason", help="Why nobody can load the rows; it is kept in the store.")],
    until: Annotated[
        str | None,
        typer.Option("--until", help="Day YYYY-MM-DD at whose beginning the gap ends; default: where the hole ends."),
    ] = None,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Accept that rows of a brand are lost: move its watermark over the gap, and over what is proved behind.

    Refusals of that time are not in the store. Checks may permit what they would have denied.

    Example:
        iyscheck-loader accept-gap 600000 --until 2026-03-04 --reason 'İYS keeps files for seven days only'
    """
    with errors(as_json=as_json):
        if not reason.strip():
            raise SettingsError("--reason", "it is empty.", fix="Say why the days cannot be loaded.")
        end = None if until is None else _midnight(until)
        keys = AddressKey.load(address_key), StoreKey.load(store_key)
        done = ordered(AcceptGap(brand=brand, until=end, reason=reason.strip()), store, keys)
        if as_json:
            print_json({"brand": brand, "until": rfc3339(done.until), "watermarks": texts(done.watermarks)})
        else:
            typer.echo(f"Accepted the gap of brand {brand}; {moved(done.watermarks, {})}.")


def _midnight(until: str) -> int:
    """Read the end of a gap that was given."""
    try:
        end = times.watermark(f"{times.day(until)} 00:00:00")
    except ValueError as error:
        raise SettingsError("--until", f"it is {error}.", fix="It is a day in Turkey.") from None
    check_watermark(end, time.time())
    return end
