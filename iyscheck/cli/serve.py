"""`iyscheck serve`: the settings as flags."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from iyscheck.server import operation
from iyscheck.server.settings import PREFIX, Settings

_commands = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def _option(field: str) -> typer.models.OptionInfo:
    """Describe a setting as the settings do; its default is not given here, so that its variable counts."""
    info = Settings.model_fields[field]
    default = "" if info.default in (None, "") else f" Default: {_text(info.default)}."
    option: typer.models.OptionInfo = typer.Option(
        help=f"{info.description}{default} [{PREFIX}{field.upper()}]", show_default=False
    )
    return option


def _text(default: object) -> str:
    return str(getattr(default, "name", default)).lower()


_HELP: Final = """Answer consent checks over gRPC until SIGTERM; a flag wins over its environment variable.

With several workers, SIGHUP replaces them one by one while checks go on.

\b
Examples:
  iyscheck serve --store store --store-key keys/store.key --address-key keys/address.key
  iyscheck serve --workers 4 --listen 127.0.0.1:50051 --metrics-listen 127.0.0.1:9464
  iyscheck serve --workers 1                # one process, no supervisor
"""


@_commands.command(help=_HELP, context_settings={"help_option_names": ["--help", "-h"]})
def serve(  # noqa: PLR0913 - one parameter per setting; they are all named
    *,
    store: Annotated[Path | None, _option("store")] = None,
    store_key: Annotated[Path | None, _option("store_key")] = None,
    address_key: Annotated[Path | None, _option("address_key")] = None,
    listen: Annotated[str | None, _option("listen")] = None,
    metrics_listen: Annotated[str | None, _option("metrics_listen")] = None,
    insecure: Annotated[bool | None, _option("insecure")] = None,
    merchants_need_record: Annotated[bool | None, _option("merchants_need_record")] = None,
    legacy_deadline: Annotated[str | None, _option("legacy_deadline")] = None,
    freshness_limit: Annotated[str | None, _option("freshness_limit")] = None,
    answer_ttl: Annotated[str | None, _option("answer_ttl")] = None,
    workers: Annotated[int | None, _option("workers")] = None,
    max_streams: Annotated[int | None, _option("max_streams")] = None,
    unary_workers: Annotated[int | None, _option("unary_workers")] = None,
    drain_seconds: Annotated[float | None, _option("drain_seconds")] = None,
    log_level: Annotated[str | None, _option("log_level")] = None,
    reflection: Annotated[bool | None, _option("reflection")] = None,
) -> None:
    """Read the settings and serve. The user's help is `_HELP`."""
    settings = Settings.read(
        store=store,
        store_key=store_key,
        address_key=address_key,
        listen=listen,
        metrics_listen=metrics_listen,
        insecure=insecure,
        merchants_need_record=merchants_need_record,
        legacy_deadline=legacy_deadline,
        freshness_limit=freshness_limit,
        answer_ttl=answer_ttl,
        workers=workers,
        max_streams=max_streams,
        unary_workers=unary_workers,
        drain_seconds=drain_seconds,
        log_level=log_level,
        reflection=reflection,
    )
    raise typer.Exit(operation.run(settings, typer.echo if sys.stdout.isatty() else None))


def run(arguments: Sequence[str]) -> None:
    """Read the command line that follows `iyscheck serve`, and serve. Ends in SystemExit or one of our errors."""
    _commands(list(arguments), prog_name="iyscheck serve")
