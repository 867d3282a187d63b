"""`iyscheck serve`: each setting of the server is a flag."""

import inspect
import sys
from collections.abc import Sequence
from typing import Final

import typer

from iyscheck.cli.flags import settings_flags
from iyscheck.server import serving
from iyscheck.server.settings import Settings

_commands = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

_HELP: Final = """Answer consent checks over gRPC until SIGTERM; a flag wins over its environment variable.

With several workers, SIGHUP replaces them one by one while checks go on.

\b
Examples:
  iyscheck serve --store store --store-key keys/store.key --address-key keys/address.key
  iyscheck serve --workers 4 --listen 127.0.0.1:50051 --metrics-listen 127.0.0.1:9464
  iyscheck serve --listen 127.0.0.1:50051 --listen unix:/run/iyscheck/socket
  iyscheck serve --workers 1                # one process, no supervisor
"""


def serve(**flags: object) -> None:
    """Read the settings and serve. The user's help is `_HELP`."""
    settings = Settings.read(**{name: None if value == [] else value for name, value in flags.items()})
    raise typer.Exit(serving.run(settings, typer.echo if sys.stdout.isatty() else None))


serve.__signature__ = inspect.Signature(  # type: ignore[attr-defined] # what typer makes the flags of
    settings_flags()
)
serve.__annotations__ = {}
_commands.command(help=_HELP, context_settings={"help_option_names": ["--help", "-h"]})(serve)


def run(arguments: Sequence[str]) -> None:
    """Read the command line that follows `iyscheck serve`, and serve. Ends in SystemExit or one of our errors."""
    _commands(list(arguments), prog_name="iyscheck serve")
