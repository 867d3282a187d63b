"""`digest`: what a store holds, as one number, so that stores of one log can be compared."""

from typing import Annotated

import typer

from iyscheck.errors import StoreRoleError
from iyscheck.store.log import digest_of, sums_of
from iyscheck.store.snapshot import Store
from loader.cli.failures import EXIT_REJECTS, errors
from loader.cli.options import JsonOption, StoreOption
from loader.reports.summary import print_json


def digest(
    store: StoreOption,
    brands: Annotated[  # noqa: FBT002 - a flag of the command line
        bool, typer.Option("--brands", help="Also the part of each brand; 0 is what belongs to none.")
    ] = False,
    recompute: Annotated[  # noqa: FBT002 - a flag of the command line
        bool, typer.Option("--recompute", help="Read all of the store, and compare; exit code 1 where it differs.")
    ] = False,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Print the digest of a store that is in a log. At the same batch all stores of a log have the same one.

    Example:
        iyscheck-loader digest --store /var/lib/iyscheck --brands --json
    """
    with errors(as_json=as_json):
        with Store.open(store) as opened, opened.snapshot() as snapshot:
            state, position, sums = snapshot.log, snapshot.position, snapshot.sums()
            if state is None:
                raise StoreRoleError(
                    f"The store at '{store}' is in no log, and keeps no digest.",
                    fix="Make it a primary with 'iyscheck-loader create-log'.",
                )
            again = sums_of(snapshot.items) if recompute else sums
        differing = sorted(brand for brand in {*sums, *again} if sums.get(brand, 0) != again.get(brand, 0))
        is_right = not differing and state.digest == digest_of(again)
        if as_json:
            facts: dict[str, object] = {
                "log_id": position.log_id.hex(),
                "role": state.role,
                "term": state.term,
                "batch": state.batch,
                "sequence": position.sequence,
                "digest": state.digest.hex(),
            }
            if brands:
                facts["brands"] = {str(brand): f"{total:032x}" for brand, total in sorted(sums.items())}
            if recompute:
                facts |= {"recomputed": digest_of(again).hex(), "differing_brands": differing}
            print_json(facts)
        else:
            typer.echo(f"log       {position.log_id.hex()}, here the {state.role}")
            typer.echo(f"batch     {state.batch:,} of term {state.term}, position {position.sequence:,}")
            typer.echo(f"digest    {state.digest.hex()}")
            for brand, total in sorted(sums.items()) if brands else ():
                typer.echo(f"{brand:9} {total:032x}")
            if recompute:
                typer.echo(f"read      {digest_of(again).hex()}{'' if is_right else ': it differs'}")
                for brand in differing:
                    typer.echo(f"brand {brand} differs" if brand else "what belongs to no brand differs")
    if not is_right:
        raise typer.Exit(EXIT_REJECTS)
