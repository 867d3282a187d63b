"""Options that several commands share."""

import re
from pathlib import Path
from typing import Annotated, Final

import typer

from iyscheck.errors import SettingsError
from iyscheck.store.deliveries import OTHER, PROMISE_S
from iyscheck.times import duration_s
from loader.loading.options import FeedTerms
from loader.reading.vocabulary import BRAND_MAX

StoreOption = Annotated[Path, typer.Option("--store", envvar="IYSCHECK_STORE", help="Directory of the store.")]
AddressKeyOption = Annotated[
    Path, typer.Option("--address-key", envvar="IYSCHECK_ADDRESS_KEY", help="File of the address key.")
]
StoreKeyOption = Annotated[
    Path, typer.Option("--store-key", envvar="IYSCHECK_STORE_KEY", help="File of the store key.")
]
ConfigOption = Annotated[
    Path, typer.Option("--config", envvar="IYSCHECK_FEEDS", help="The feeds file: TOML that names accounts at İYS.")
]
ClusterOption = Annotated[
    Path,
    typer.Option("--cluster", envvar="IYSCHECK_CLUSTER", help="The cluster file: TOML that names the log."),
]
BrandOption = Annotated[
    int | None, typer.Option("--brand", min=1, max=BRAND_MAX, help="Brand code of rows that name none.")
]
RejectsOption = Annotated[
    Path | None, typer.Option("--rejects", help="Directory of the rejects files; default STORE.rejects.")
]
CommitRowsOption = Annotated[int, typer.Option("--commit-rows", min=1, help="Rows in one durable commit.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
MetricsOption = Annotated[str | None, typer.Option("--metrics-listen", help="Serve Prometheus metrics on HOST:PORT.")]
FeedOption = Annotated[
    str | None, typer.Option("--feed", help="Name of the feed in the metrics; default: the name of this command.")
]
EveryOption = Annotated[
    str | None,
    typer.Option("--every", help="How often the feed brings something, such as 24h: metrics and alerts go by it."),
]
PromiseOption = Annotated[
    str, typer.Option("--promise", help="After how long a refusal of this feed is late, such as 90m.")
]
PROMISE: Final = f"{PROMISE_S // 3600}h"
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,39}")


def feed_terms(name: str, every: str | None, promise: str, *, learns: bool = False) -> FeedTerms:
    """Read what is said of a feed. Raises SettingsError."""
    if not _NAME.fullmatch(name) or name == OTHER:
        raise SettingsError(
            "--feed", f"'{name}' is no name of a feed.", fix="Take up to 40 letters a to z, digits, - and _: daily."
        )
    return FeedTerms(
        name=name,
        every_s=None if every is None else _seconds("--every", every),
        promise_s=_seconds("--promise", promise),
        learns=learns,
    )


def _seconds(flag: str, text: str) -> int:
    try:
        return duration_s(text)
    except ValueError as error:
        raise SettingsError(flag, f"'{text}' is {error}.", fix="Write for example 24h, 90m or 300s.") from None
