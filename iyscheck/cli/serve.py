"""`iyscheck serve`: each setting of the server is a flag."""

import inspect
import sys
from collections.abc import Sequence
from types import GenericAlias
from typing import Annotated, Final, cast, get_origin

import typer
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from iyscheck.server import serving
from iyscheck.server.settings import PREFIX, Settings, default_text

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


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    """Make a setting a flag. Its default is not given here, so that its variable counts."""
    default = default_text(name)
    help_text = f"{field.description}{f' Default: {default}.' if default else ''} [{PREFIX}{name.upper()}]"
    metavar = "<str>" if _type(field) == list[str] else None
    option = typer.Option(help=help_text, show_default=False, metavar=metavar)
    annotation = Annotated[_type(field) | None, option]  # type: ignore[valid-type] # it is made here
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _type(field: FieldInfo) -> type | GenericAlias:
    """Say as what the command line reads a flag: text, where the settings know better how it is spelt."""
    if get_origin(field.annotation) is tuple:
        return cast("GenericAlias", list[str])
    if any(isinstance(each, BeforeValidator) for each in field.metadata):
        return str
    kinds: dict[object, type] = {bool: bool, int: int, float: float}
    return kinds.get(field.annotation, str)


serve.__signature__ = inspect.Signature(  # type: ignore[attr-defined] # what typer makes the flags of
    [_parameter(name, field) for name, field in Settings.model_fields.items()]
)
serve.__annotations__ = {}
_commands.command(help=_HELP, context_settings={"help_option_names": ["--help", "-h"]})(serve)


def run(arguments: Sequence[str]) -> None:
    """Read the command line that follows `iyscheck serve`, and serve. Ends in SystemExit or one of our errors."""
    _commands(list(arguments), prog_name="iyscheck serve")
