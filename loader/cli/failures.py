"""Whatever goes wrong in a command: one sentence, or one JSON object, and an exit code."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

import typer

from iyscheck import output
from iyscheck.errors import InputError, IyscheckError

EXIT_REJECTS: Final = 1
EXIT_ERROR: Final = 2


@contextmanager
def errors(*, as_json: bool) -> Iterator[None]:
    """End with one sentence (or one JSON object) on stderr, whatever went wrong."""
    try:
        yield
    except IyscheckError as error:
        _fail(error.reason, str(error), getattr(error, "field", "") if isinstance(error, InputError) else "", as_json)
    except (typer.Exit, typer.Abort):
        raise
    except BrokenPipeError:
        raise typer.Exit(EXIT_ERROR) from None
    except MemoryError:
        _fail("OUT_OF_MEMORY", "There is not enough memory. Lower --commit-rows.", "", as_json)
    except OSError as error:  # of what is left then: standard output on a full disk, no thread, no temporary folder
        _fail(
            "SYSTEM",
            f"The system refused something that is needed: {error.strerror or 'no reason given'}.",
            "",
            as_json,
        )
    except Exception as error:  # noqa: BLE001 - a user gets a sentence; its text might hold content, its type cannot
        _fail("INTERNAL", f"Unexpected {type(error).__name__}: this is a bug of iyscheck-loader.", "", as_json)


def _fail(reason: str, message: str, field: str, as_json: bool) -> NoReturn:  # noqa: FBT001 - private, one caller
    if as_json:
        text = output.as_json({"error": {"reason": reason, "field": field, "message": message}})
    else:
        text = f"iyscheck-loader: {message}"
    typer.echo(text, err=True)
    raise typer.Exit(EXIT_ERROR) from None
