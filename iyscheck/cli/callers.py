"""`iyscheck callers`: keys for callers, what the callers file says, and who may do what. A server is not asked."""

import getpass
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from iyscheck import output
from iyscheck.callers.file import is_caller_name, read
from iyscheck.callers.identity import Callers, Entry, NewKey, bearer_of
from iyscheck.callers.scopes import CALL_NAMES, ensure_call, ensure_question
from iyscheck.cli.callers_sentences import CALLER_WORDS, VERDICTS, CallerWords, Verdict
from iyscheck.cli.check import ClassOption, Json, channel_named
from iyscheck.consent import Channel, MessageClass
from iyscheck.errors import CallerUnknownError, ScopeError, SettingsError
from iyscheck.sentences import Language

HELP: Final = "Make keys for callers, and see what the callers file lets them do."
NEW_KEY_HELP: Final = """Make a key for the caller NAME, and print it once, with its line for the callers file.

The key alone goes to standard output. The callers file holds its hash; nobody can get the key back from that.

\b
Examples:
  iyscheck callers new-key acme
  (umask 077; iyscheck callers new-key acme > acme.key)
"""
LIST_HELP: Final = """List the callers of FILE and what each may do.

\b
Example:
  iyscheck callers list callers.toml
"""
CHECK_HELP: Final = """Check that a server can use FILE; with --caller, whether one question would be let in.

Exit code: 0 usable, allowed; 1 not allowed; 2 error.

\b
Examples:
  iyscheck callers check callers.toml
  iyscheck callers check callers.toml --caller acme --call batch --brand 1001 --channel mesaj --plaintext
"""
WHOAMI_HELP: Final = """Say whose key it is that stands in the standard input.

Exit code: 0 known, 1 nobody's, 2 error.

\b
Example:
  iyscheck callers whoami callers.toml < acme.key
"""
NOT_ALLOWED: Final = 1
_WITHOUT_QUESTION: Final = frozenset({"info", "console", "admin"})
_LONGEST_INPUT: Final = 4096

app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode=None)


def _call_named(text: str) -> str:
    if text not in CALL_NAMES:
        raise typer.BadParameter(f"choose one of {', '.join(CALL_NAMES)}.")
    return text


File = Annotated[Path, typer.Argument(metavar="FILE", help="The callers file.")]
Lang = Annotated[
    Language, typer.Option("--lang", envvar="IYSCHECK_LANG", case_sensitive=False, help="Language of the answer.")
]


@app.command("new-key", help=NEW_KEY_HELP)
def new_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The caller's name in the callers file.")],
    *,
    language: Lang = Language.ENGLISH,
    as_json: Json = False,
) -> None:
    """Make a key and print it."""
    if not is_caller_name(name):
        raise SettingsError(
            "NAME", "is not a name for a caller.", fix="Use 1 to 64 letters (a-z, A-Z), digits, - _ and dots."
        )
    new = NewKey.create()
    if as_json:
        fields = {"caller": name, "key": new.text, "key_id": new.key.key_id, "line": new.key.line}
        output.say(output.as_json(fields))
        return
    words = CALLER_WORDS[language]
    typer.echo(words.new_key.format(name=name), err=True)
    typer.echo(new.text)  # nothing else, so that it can go into a file
    typer.echo(words.put_line.format(name=name), err=True)
    typer.echo(f'"{new.key.line}"', err=True)


@app.command("list", help=LIST_HELP)
def list_callers(file: File, *, language: Lang = Language.ENGLISH, as_json: Json = False) -> None:
    """Print every caller."""
    entries = read(file).entries.values()
    if as_json:
        output.say(output.as_json({"callers": [_fields(entry) for entry in entries]}))
        return
    for entry in entries:
        output.say(entry.caller.name)
        for name, value in _rows(entry, CALLER_WORDS[language]):
            output.say(f"  {name:<13} {value}")


@app.command("check", help=CHECK_HELP)
def check(  # noqa: PLR0913 - one parameter for each option
    file: File,
    *,
    caller: Annotated[str | None, typer.Option("--caller", metavar="NAME", help="Who would ask.")] = None,
    call: Annotated[
        str | None,
        typer.Option("--call", parser=_call_named, metavar="CALL", help=f"By what call: {', '.join(CALL_NAMES)}."),
    ] = None,
    brand: Annotated[int | None, typer.Option("--brand", min=1, help="About which brand.")] = None,
    channel: Annotated[
        Channel | None, typer.Option("--channel", parser=channel_named, metavar="arama|mesaj|eposta")
    ] = None,
    message_class: ClassOption = None,
    plaintext: Annotated[bool, typer.Option("--plaintext", help="With a plain address, not a token.")] = False,
    language: Lang = Language.ENGLISH,
    as_json: Json = False,
) -> None:
    """Read the file; with a caller, leave with exit code 1 where its question would not be let in."""
    callers = read(file)
    if caller is None:
        if call or brand or channel or message_class or plaintext:
            raise SettingsError("--caller", "is missing: these options are about one caller's question.")
        _tell_file(callers, language, as_json=as_json)
        return
    if call is None:
        raise SettingsError("--call", "is missing.", fix=f"It is one of {', '.join(CALL_NAMES)}.")
    if caller not in callers.entries:
        raise SettingsError(
            "--caller", f"{file} lists no caller of this name.", fix="`iyscheck callers list` shows all."
        )
    asked: tuple[int, Channel] | None = None
    if call not in _WITHOUT_QUESTION:
        if brand is None or channel is None:
            raise SettingsError("--call", "asks about a brand on a channel.", fix="Give --brand and --channel.")
        asked = brand, channel
    kind = message_class or MessageClass.COMMERCIAL
    verdict = _verdict(callers.entries[caller], call, asked, kind, plaintext=plaintext)
    _tell_verdict(verdict, language, as_json=as_json)


@app.command("whoami", help=WHOAMI_HELP)
def whoami(file: File, *, language: Lang = Language.ENGLISH, as_json: Json = False) -> None:
    """Print the caller of a key. It comes by the input: a command line is seen by all users of the machine."""
    callers = read(file)
    try:
        found = callers.identify(_key_from_input())
    except CallerUnknownError:
        _tell_verdict(Verdict.CALLER_UNKNOWN, language, as_json=as_json)
        return
    name, key_id = found.caller.name, "" if found.key is None else found.key.key_id
    if as_json:
        output.say(output.as_json({"caller": name, "key_id": key_id}))
        return
    output.say(CALLER_WORDS[language].of_caller.format(name=name, key_id=key_id))


def _key_from_input() -> str:
    """Read one key, with or without the word Bearer; what is typed is not shown."""
    if sys.stdin.isatty():
        text = getpass.getpass("key: ")
    else:
        text = sys.stdin.buffer.read(_LONGEST_INPUT).decode("utf-8", "replace")
    words = text.split()
    if not words or len(words) > 2:  # noqa: PLR2004 - Bearer and the key
        raise SettingsError("KEY", "the standard input must hold exactly one key.")
    return words[0] if len(words) == 1 else bearer_of(" ".join(words)) or ""


def _verdict(
    entry: Entry, call: str, asked: tuple[int, Channel] | None, message_class: MessageClass, *, plaintext: bool
) -> Verdict:
    """Ask the functions that a server asks."""
    try:
        ensure_call(entry.caller, call)
        if asked is not None:
            ensure_question(entry.caller, *asked, message_class, plaintext=plaintext)
    except ScopeError as error:
        return Verdict(error.reason)
    return Verdict.EXEMPT_MESSAGE if asked is not None and message_class.exempt else Verdict.IN_SCOPE


def _tell_verdict(verdict: Verdict, language: Language, *, as_json: bool) -> None:
    words, explanation = CALLER_WORDS[language], VERDICTS[language][verdict]
    if as_json:
        fields = {"allowed": verdict.allowed, "reason": verdict.value, "why": explanation.why, "do": explanation.do}
        output.say(output.as_json(fields))
    else:
        output.say(f"{words.allowed if verdict.allowed else words.not_allowed}  {verdict.value}")
        output.say(f"{explanation.why} {explanation.do}")
    if not verdict.allowed:
        raise typer.Exit(NOT_ALLOWED)


def _tell_file(callers: Callers, language: Language, *, as_json: bool) -> None:
    entries = callers.entries.values()
    counts = {
        "callers": len(entries),
        "keys": sum(len(entry.keys) for entry in entries),
        "certificates": sum(len(entry.certificates) for entry in entries),
    }
    output.say(output.as_json(counts) if as_json else CALLER_WORDS[language].good_file.format(**counts))


def _fields(entry: Entry) -> dict[str, object]:
    caller = entry.caller
    return {
        "name": caller.name,
        "key_ids": sorted(key.key_id for key in entry.keys),
        "certificates": sorted(entry.certificates),
        "brands": "all" if caller.brands is None else sorted(caller.brands),
        "channels": [channel.name for channel in Channel if channel in caller.channels],
        "calls": [call for call in CALL_NAMES if call in caller.calls],
        "addresses": caller.addresses,
        "rate": caller.rate,
        "streams": caller.streams,
    }


def _rows(entry: Entry, words: CallerWords) -> list[tuple[str, str]]:
    caller = entry.caller
    brands = words.all_brands if caller.brands is None else ", ".join(map(str, sorted(caller.brands)))
    return [
        (words.keys, ", ".join(sorted(key.key_id for key in entry.keys)) or words.none),
        (words.certificates, ", ".join(sorted(entry.certificates)) or words.none),
        (words.brands, brands or words.only_exempt),
        (words.channels, ", ".join(channel.name for channel in Channel if channel in caller.channels)),
        (words.calls, ", ".join(call for call in CALL_NAMES if call in caller.calls)),
        (words.addresses, words.plaintext if caller.addresses else words.tokens_only),
        (words.rate, words.no_limit if caller.rate is None else words.a_second.format(rate=caller.rate)),
        (words.streams, words.no_limit if caller.streams is None else str(caller.streams)),
    ]
