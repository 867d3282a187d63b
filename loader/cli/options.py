"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from loader.reading.vocabulary import BRAND_MAX

StoreOption = Annotated[Path, typer.Option("--store", envvar="IYSCHECK_STORE", help="Directory of the store.")]
AddressKeyOption = Annotated[
    Path, typer.Option("--address-key", envvar="IYSCHECK_ADDRESS_KEY", help="File of the address key.")
]
StoreKeyOption = Annotated[
    Path, typer.Option("--store-key", envvar="IYSCHECK_STORE_KEY", help="File of the store key.")
]
BrandOption = Annotated[
    int | None, typer.Option("--brand", min=1, max=BRAND_MAX, help="Brand code of rows that name none.")
]
RejectsOption = Annotated[
    Path | None, typer.Option("--rejects", help="Directory of the rejects files; default STORE.rejects.")
]
CommitRowsOption = Annotated[int, typer.Option("--commit-rows", min=1, help="Rows in one durable commit.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
