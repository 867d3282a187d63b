"""What the commands print reaches every terminal, pipe and file, whatever letters its encoding has.

A locale such as ISO-8859-1 has no `İ`. Output for people then shows the nearest plain letter, `I`, or else the
character's number. Output for programs is JSON in ASCII, where JSON has a way of its own to write any letter: it
reads the same in every locale.
"""

import codecs
import io
import json
import sys
import unicodedata
from typing import Final

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
