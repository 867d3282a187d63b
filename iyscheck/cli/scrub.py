"""`iyscheck scrub`: wash a list before a campaign."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final, Literal, NamedTuple

import typer

from iyscheck import output
from iyscheck.cli.check import (
    DEFAULT_SERVER,
    DEFAULT_TIMEOUT_S,
    ClassOption,
    Json,
    KeyOption,
    Server,
    Timeout,
    channel_named,
    moment,
    recipient_type_named,
)
from iyscheck.cli.failing import failing_in
from iyscheck.cli.reaching import ApiKeyFile, Insecure, TlsCa, TlsCert, TlsKey, reached
from iyscheck.cli.scrubbing.answering import Answering
from iyscheck.cli.scrubbing.answers import Writer
from iyscheck.cli.scrubbing.detecting import UTF_8, WINDOWS_1254, Detection, Layout, Survey, delimiter_name, survey
from iyscheck.cli.scrubbing.lists import RowFault
from iyscheck.cli.scrubbing.text import TextList
from iyscheck.cli.scrubbing.washing import Kept, Places, Washed, Washing
from iyscheck.cli.scrubbing.words import SCRUB_WORDS, explain_fault
from iyscheck.cli.starting import asked
from iyscheck.consent import Channel, MessageClass, Reason, RecipientType
from iyscheck.errors import InputError, SettingsError
from iyscheck.keys import AddressKey
from iyscheck.question import Context, FrameResult
from iyscheck.sentences import Language, explain

if TYPE_CHECKING:
    from iyscheck.client.sync import Client

HELP: Final = """Wash LIST: ask about every row of a CSV or TXT file, and write each answer behind its row.

The bytes of the list stay as they are. The results stand beside it, for you only, once they are whole:
LIST.iyscheck.csv (or LIST.izinli.csv and LIST.izinsiz.csv), and LIST.okunamayan.csv with the rows that cannot be read.
Killed or interrupted, it goes on where it was when the same command is run again.

Exit code: 0 washed, 1 washed but the first answers have ended meanwhile (do not send), 2 error.

\b
Examples:
  iyscheck scrub list.csv --brand 1001 --channel mesaj --recipient-type bireysel
  iyscheck scrub list.csv --brand 1001 --channel eposta --recipient-type tacir --column E-posta --split --lang tr
"""
ENDED: Final = 1
_ENCODINGS: Final = {"utf-8": UTF_8, "windows-1254": WINDOWS_1254}
_NAMES: Final = {UTF_8: "UTF-8", WINDOWS_1254: "Windows-1254"}


def _delimiter(text: str) -> bytes:
    known = {"tab": b"\t", "\\t": b"\t", ";": b";", ",": b",", "\t": b"\t"}
    if text not in known:
        raise typer.BadParameter("choose one of ; , tab.")
    return known[text]


RetailerOption = Annotated[
    int | None, typer.Option("--retailer", min=1, help="İYS retailerCode in whose name the message goes out.")
]
ColumnOption = Annotated[
    str | None, typer.Option("--column", metavar="N|NAME", help="Where the addresses stand, by number or header.")
]
EncodingOption = Annotated[
    Literal["utf-8", "windows-1254"] | None, typer.Option("--encoding", help="How the list's letters are written.")
]
DelimiterOption = Annotated[
    bytes | None, typer.Option("--delimiter", parser=_delimiter, metavar=";|,|tab", help="What stands between cells.")
]
HeaderOption = Annotated[
    bool | None, typer.Option("--header/--no-header", help="Whether the first row has the names of the columns.")
]
OnlyOption = Annotated[Literal["permitted", "denied"] | None, typer.Option("--only", help="Write only these rows.")]
FolderOption = Annotated[
    Path | None, typer.Option("--into", metavar="DIRECTORY", help="Where the results go; beside LIST unless said.")
]


class _Order(NamedTuple):
    """What the user has ordered, beside where the server is."""

    path: Path
    folder: Path
    context: Context
    kept: Kept
    language: Language
    column: str | None
    encoding: str | None
    delimiter: bytes | None
    header: bool | None
    afresh: bool


def scrub(  # noqa: PLR0913 - one parameter for each option
    path: Annotated[Path, typer.Argument(metavar="LIST", help="The list: CSV or TXT.")],
    *,
    brand: Annotated[int, typer.Option("--brand", min=1, help="İYS brandCode of the sending brand.")],
    channel: Annotated[Channel, typer.Option("--channel", parser=channel_named, metavar="arama|mesaj|eposta")],
    recipient_type: Annotated[
        RecipientType, typer.Option("--recipient-type", parser=recipient_type_named, metavar="bireysel|tacir")
    ],
    message_class: ClassOption = None,
    retailer: RetailerOption = None,
    column: ColumnOption = None,
    encoding: EncodingOption = None,
    delimiter: DelimiterOption = None,
    header: HeaderOption = None,
    only: OnlyOption = None,
    split: Annotated[bool, typer.Option("--split", help="Write permitted and denied rows to their own files.")] = False,
    folder: FolderOption = None,
    afresh: Annotated[
        bool, typer.Option("--afresh", help="Begin anew: forget what was washed before, and write over its results.")
    ] = False,
    server: Server = DEFAULT_SERVER,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    api_key_file: ApiKeyFile = None,
    insecure: Insecure = False,
    address_key: KeyOption = None,
    language: Annotated[
        Language, typer.Option("--lang", envvar="IYSCHECK_LANG", case_sensitive=False, help="Language of sentences.")
    ] = Language.ENGLISH,
    as_json: Json = False,
    timeout_s: Timeout = DEFAULT_TIMEOUT_S,
) -> None:
    """Wash and tell; leaves with exit code 1 where answers ended meanwhile. The user's help is `HELP`."""
    from iyscheck.client.sync import Client

    with failing_in(language):
        if only and split:
            raise SettingsError("--only", "cannot go with --split.", fix="--split writes both, each to its own file.")
        order = _Order(
            path=path,
            folder=folder or path.parent,
            context=Context(
                brand=brand,
                channel=channel,
                recipient_type=recipient_type,
                message_class=message_class or MessageClass.COMMERCIAL,
                retailer=retailer,
            ),
            kept="split" if split else only or "all",
            language=language,
            column=column,
            encoding=None if encoding is None else _ENCODINGS[encoding],
            delimiter=delimiter,
            header=header,
            afresh=afresh,
        )
        key = AddressKey.load(address_key) if address_key else None
        reach = reached(tls_ca, tls_cert, tls_key, api_key_file, insecure=insecure)
        with _opened(path) as file, Client(server, address_key=key, batch_timeout_s=timeout_s, **reach) as client:
            _scrub(file, client, order, timeout_s, as_json=as_json)


def _scrub(file: BinaryIO, client: "Client", order: _Order, timeout_s: float, *, as_json: bool) -> None:
    context, words = order.context, SCRUB_WORDS[order.language]
    before = os.fstat(file.fileno())
    found = survey(file, order.encoding)
    detection = Detection(file, found, context.channel, delimiter=order.delimiter, header=order.header)
    layout = detection.layout(order.column)
    typer.echo(words.detected.format(list=order.path, parts=", ".join(_detected(found, layout, order))), err=True)

    def ask(addresses: Sequence[str]) -> Iterator[FrameResult]:
        return client.stream_column(
            brand=context.brand,
            channel=context.channel,
            recipient_type=context.recipient_type,
            message_class=context.message_class,
            retailer=context.retailer,
            recipients=addresses,
        )

    def unchanged() -> None:
        now = order.path.stat()
        if (now.st_ino, now.st_size, now.st_mtime_ns) != (before.st_ino, before.st_size, before.st_mtime_ns):
            raise InputError("LIST", "has changed while it was washed.", fix="Wash it again, with --afresh.")

    asked(lambda left_s: client.server_info(timeout_s=left_s), timeout_s, order.language)
    places = Places.of(order.path, order.folder, order.kept)
    places.prepare(afresh=order.afresh)
    writer = Writer(
        delimiter=layout.delimiter, encoding=layout.encoding, channel=context.channel, language=order.language
    )
    washing = Washing(
        TextList(file, layout), Answering(layout.head, writer, ask), places, _decisive(found, layout, order)
    )
    with _bar(words.asking, found.size) as watch:
        washed = washing.run(lambda rows: typer.echo(words.resumed.format(rows=rows), err=True), watch, unchanged)
    ended = washed.tally.valid_until is not None and time.time() > washed.tally.valid_until
    if as_json:
        output.say(output.as_json(_summary(washed, found, layout, order, ended=ended)))
    else:
        for line in _told(washed, layout, order, ended=ended):
            output.say(line)
    if ended:
        raise typer.Exit(ENDED)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if path.exists() and not path.is_file():
        raise InputError("LIST", f"{path} is not a file.", fix="A list is read more than once: save it as a file.")
    try:
        file = path.open("rb", buffering=1024 * 1024)
    except OSError as error:
        raise InputError("LIST", f"{path} cannot be read: {error.strerror}.") from None
    with file:
        yield file


@contextmanager
def _bar(task: str, size: int) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        shown = progress.add_task(task, total=size)
        yield lambda offset, rows: progress.update(shown, completed=offset, description=f"{task} {rows:,}")


def _decisive(found: Survey, layout: Layout, order: _Order) -> dict[str, str | int | bool | None]:
    """Name all that decides the bytes of the outputs."""
    context = order.context
    return {
        "sha256": found.sha256,
        "--brand": context.brand,
        "--channel": context.channel.name,
        "--recipient-type": context.recipient_type.name,
        "--class": context.message_class.name,
        "--retailer": context.retailer,
        "--lang": order.language.value,
        "--only or --split": order.kept,
        "--column": layout.column,
        "--encoding": layout.encoding,
        "--delimiter": layout.delimiter.decode(),
        "--header": bool(layout.names),
        "columns": layout.columns,
    }


def _detected(found: Survey, layout: Layout, order: _Order) -> Iterator[str]:
    """Say what the list was taken for, piece by piece."""
    words = SCRUB_WORDS[order.language]
    encoding = _NAMES[layout.encoding]
    spelt = words.with_mark if found.mark else words.only_ascii if found.only_ascii else "{encoding}"
    yield spelt.format(encoding=encoding)
    parted = words.one_column if layout.columns == 1 else words.parted
    yield parted.format(columns=layout.columns, delimiter=delimiter_name(layout.delimiter))
    names = " | ".join(map(_shown, layout.names))
    yield words.header.format(names=names) if names else words.no_header
    yield _column(layout, order.language)


def _column(layout: Layout, language: Language) -> str:
    words = SCRUB_WORDS[language]
    named = words.named_column if layout.column_name else words.column
    return named.format(column=layout.column, name=_shown(layout.column_name))


def _shown(name: str) -> str:
    """Leave out of a header what a terminal would obey."""
    return "".join(letter if letter.isprintable() else " " for letter in name)


def _summary(washed: Washed, found: Survey, layout: Layout, order: _Order, *, ended: bool) -> dict[str, object]:
    tally = washed.tally
    return {
        "list": str(order.path),
        "files": [str(path) for path in washed.files],
        "detected": {
            "encoding": _NAMES[layout.encoding],
            "byte_order_mark": bool(found.mark),
            "delimiter": delimiter_name(layout.delimiter),
            "columns": layout.columns,
            "header": list(layout.names) or None,
            "column": layout.column,
            "column_name": layout.column_name or None,
        },
        "rows": tally.rows,
        "permitted": tally.permitted,
        "denied": tally.rows - tally.permitted,
        "unreadable": tally.unreadable,
        "blank": tally.blank,
        "reasons": dict(sorted(tally.reasons.items())),
        "as_of": moment(tally.as_of) if tally.all_have_as_of else None,
        "valid_until": moment(tally.valid_until),
        "ended": ended,
        "policy_ids": tally.policy_ids,
        "resumed_rows": washed.resumed_rows,
        "evidence": False,
    }


def _told(washed: Washed, layout: Layout, order: _Order, *, ended: bool) -> Iterator[str]:
    tally, words = washed.tally, SCRUB_WORDS[order.language]
    yield words.rows.format(rows=tally.rows, permitted=tally.permitted, denied=tally.rows - tally.permitted)
    for reason, rows in sorted(tally.reasons.items(), key=lambda item: -item[1]):
        yield f"  {reason:<24} {rows:>13,}  {_why(reason, order.language)}"
    if tally.unreadable:
        yield words.unreadable.format(rows=tally.unreadable)
    if tally.blank:
        yield words.blank.format(blank=tally.blank)
    yield f"{_column(layout, order.language)}."
    if tally.frames:
        known = tally.all_have_as_of
        yield words.data_until.format(time=moment(tally.as_of)) if known else words.data_unknown
        if len(tally.policy_ids) > 1:
            yield words.several_policies
    yield words.no_evidence
    for path in washed.files:
        yield words.written.format(path=path)
    if tally.valid_until is not None:
        yield (words.ended if ended else words.hold_until).format(time=moment(tally.valid_until))


def _why(reason: str, language: Language) -> str:
    if reason in RowFault.__members__:
        return explain_fault(RowFault(reason), language)
    return explain(Reason[reason], language).why
