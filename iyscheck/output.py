"""What the commands print reaches every terminal, pipe and file, whatever letters its encoding has.

A locale such as ISO-8859-1 has no `İ`. Output for people then shows the nearest plain letter, `I`, or else the
character's number. Output for programs is JSON in ASCII, where JSON has a way of its own to write any letter: it
reads the same in every locale.
"""

import codecs
import io
import json
import os
import re
import shlex
import sys
import unicodedata
from contextlib import suppress
from typing import Final

from iyscheck.errors import InputError, IyscheckError, ServiceError, SystemRefusedError

_STEERING: Final = frozenset({"Cc", "Cf", "Zl", "Zp"})
_HANDLER: Final = "iyscheck.plain"
_NO_DECOMPOSITION: Final = {"ı": "i", "“": '"', "”": '"', "’": "'", "–": "-", "…": "..."}


def take_any_letter() -> None:
    """Let standard output and standard error print texts that their encoding lacks letters of; to be called first."""
    codecs.register_error(_HANDLER, _plainly)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def as_json(value: object) -> str:
    """Write JSON for a program, in ASCII. `value` is of dicts, lists, texts, numbers, bools and None."""
    return json.dumps(value, ensure_ascii=True)


def visible(text: str) -> str:
    """Write what steers a terminal, breaks a line or turns letters round as its number: names come from anywhere."""
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _STEERING else character
        for character in text
    )


def _in_lines(text: str) -> str:
    """Make a text visible, but for its own lines and columns."""
    return re.sub(r"[^\n\t]+", lambda found: visible(found[0]), text)


def shell_word(text: str) -> str:
    """Quote a text as one word of a command, in which nothing steers what shows it."""
    if visible(text) == text:
        return shlex.quote(text)
    return "$'" + visible(text.replace("\\", "\\\\").replace("'", "\\'")) + "'"


class Told(SystemExit):
    """The end of a command that has said already why."""


def say(text: str) -> None:
    """Print a line for whoever asked. Raises SystemRefusedError where nobody can read it, as on a full disk."""
    try:
        print(_in_lines(text), flush=True)  # noqa: T201 - that is its purpose
    except OSError as error:
        with suppress(OSError, ValueError):  # what is left in the buffer would fail once more at the very end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemRefusedError(f"Standard output cannot be written: {error.strerror or 'no reason given'}.") from None


def tell_usage(*, with_json: bool) -> None:
    """Tell a program that its command line was wrong; people read the usage on standard error."""
    if with_json:
        _tell_program("USAGE", "", "The command line is wrong.", "See standard error.")


def tell_error(program: str, error: IyscheckError, *, with_json: bool) -> None:
    """Say as one sentence on standard error how a command failed, and to a program as JSON on standard output.

    Its notes come first, for people only. Where nobody can read it the exit code still says it.
    """
    notes: list[str] = getattr(error, "__notes__", [])
    if with_json:
        reason = error.code if isinstance(error, ServiceError) else error.reason
        field = error.field if isinstance(error, ServiceError | InputError) else ""
        _tell_program(reason, field, error.message, error.fix)
    with suppress(OSError):
        print(visible(" ".join([f"{program}:", *notes, str(error)])), file=sys.stderr, flush=True)  # noqa: T201 - the same


def _tell_program(reason: str, field: str, message: str, fix: str) -> None:
    with suppress(OSError):
        told = {"reason": reason, "field": field, "message": message, "fix": fix}
        print(as_json({"error": told}), flush=True)  # noqa: T201 - that is its purpose


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """Stand in for what cannot be encoded: the plain letter of each character, or its number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(character: str) -> str:
    letter = (
        _NO_DECOMPOSITION.get(character) or unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    )
    return letter or character.encode("ascii", "backslashreplace").decode()
