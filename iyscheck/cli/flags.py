"""Each setting of the server as a flag: for the command that serves, and the one that examines what it would use."""

import inspect
from types import GenericAlias
from typing import Annotated, cast, get_origin

import typer
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from iyscheck.server.settings import PREFIX, Settings, default_text


def settings_flags() -> list[inspect.Parameter]:
    """Make the flags."""
    return [_parameter(name, field) for name, field in Settings.model_fields.items()]


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
