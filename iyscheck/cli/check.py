"""`iyscheck check`: ask about one recipient and explain the answer."""

import sys
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Final, TypeVar

import typer

from iyscheck import output
from iyscheck.address import why_unreadable
from iyscheck.cli.failing import failing_in
from iyscheck.cli.reaching import ApiKeyFile, Insecure, TlsCa, TlsCert, TlsKey, reached
from iyscheck.cli.starting import asked
from iyscheck.consent import Channel, MessageClass, Reason, RecipientType
from iyscheck.errors import SettingsError
from iyscheck.keys import AddressKey
from iyscheck.question import Answer, Evidence
from iyscheck.sentences import WORDS, Language, Words, explain, explain_unreadable
from iyscheck.times import rfc3339

HELP: Final = """Ask whether a message may be sent to ADDRESS, and why.

Exit code: 0 permitted, 1 denied, 2 not answered (then do not send).

\b
Examples:
  iyscheck check +905000000000 --brand 1001 --channel mesaj --recipient-type bireysel
  echo someone@example.org | iyscheck check - --brand 1001 --channel eposta --recipient-type tacir --json
  iyscheck check - --brand 1001 --channel arama --recipient-type bireysel --class delivery --lang tr < number.txt
"""
DEFAULT_SERVER: Final = "127.0.0.1:50051"
DEFAULT_TIMEOUT_S: Final = 5.0
DENIED: Final = 1
_LONGEST_INPUT: Final = 4096

MemberT = TypeVar("MemberT", bound=IntEnum)


def _member(kind: type[MemberT], text: str) -> MemberT:
    name = text.strip().upper().replace("İ", "I").replace("-", "_")  # "BİREYSEL" is a natural way to type it
    if name not in kind.__members__:
        raise typer.BadParameter(f"choose one of {', '.join(member.name.lower() for member in kind)}.")
    return kind[name]


def channel_named(text: str) -> Channel:
    """Read a channel as people type it."""
    return _member(Channel, text)


def recipient_type_named(text: str) -> RecipientType:
    """Read a recipient type as people type it."""
    return _member(RecipientType, text)


def _message_class(text: str) -> MessageClass:
    return _member(MessageClass, text)


Server = Annotated[
    str,
    typer.Option(
        "--server",
        envvar="IYSCHECK_SERVER",
        metavar="ADDRESS",
        help="HOST:PORT or unix:PATH; of several servers dns:///NAME:PORT or IP:PORT,IP:PORT.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, also for errors.")]
Timeout = Annotated[
    float,
    typer.Option(
        "--timeout", min=0.001, metavar="SECONDS", help="How long to wait, also for a server that is just starting."
    ),
]


ClassOption = Annotated[
    MessageClass | None,
    typer.Option(
        "--class",
        parser=_message_class,
        metavar="CLASS",
        help="What you declare the message to be; commercial unless said.",
    ),
]
KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--address-key",
        envvar="IYSCHECK_ADDRESS_KEY",
        metavar="FILE",
        help="Send a token made with this key instead of the address.",
    ),
]


def check(  # noqa: PLR0913 - one parameter for each option
    address: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS",
            help="Phone number or e-mail address; - reads it from the input, out of sight of shell history and `ps`.",
        ),
    ],
    *,
    brand: Annotated[int, typer.Option("--brand", min=1, help="İYS brandCode of the sending brand.")],
    channel: Annotated[Channel, typer.Option("--channel", parser=channel_named, metavar="arama|mesaj|eposta")],
    recipient_type: Annotated[
        RecipientType, typer.Option("--recipient-type", parser=recipient_type_named, metavar="bireysel|tacir")
    ],
    message_class: ClassOption = None,
    retailer: Annotated[
        int | None, typer.Option("--retailer", min=1, help="İYS retailerCode in whose name the message goes out.")
    ] = None,
    server: Server = DEFAULT_SERVER,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    api_key_file: ApiKeyFile = None,
    insecure: Insecure = False,
    address_key: KeyOption = None,
    language: Annotated[
        Language, typer.Option("--lang", envvar="IYSCHECK_LANG", case_sensitive=False, help="Language of the answer.")
    ] = Language.ENGLISH,
    as_json: Json = False,
    timeout_s: Timeout = DEFAULT_TIMEOUT_S,
) -> None:
    """Ask and print; leaves with exit code 1 where the answer is no. The user's help is `HELP`."""
    from iyscheck.client.sync import Client

    with failing_in(language):
        key = AddressKey.load(address_key) if address_key else None
        text = _from_input() if address == "-" else address
        with Client(
            server, address_key=key, **reached(tls_ca, tls_cert, tls_key, api_key_file, insecure=insecure)
        ) as client:
            answer = asked(
                lambda left_s: client.check(
                    brand=brand,
                    channel=channel,
                    recipient_type=recipient_type,
                    address=text,
                    message_class=message_class or MessageClass.COMMERCIAL,
                    retailer=retailer,
                    timeout_s=left_s,
                ),
                timeout_s,
                language,
            )
    cause = why_unreadable(text, channel) if answer.reason is Reason.INVALID_ADDRESS else None
    hint = "" if cause is None else explain_unreadable(cause, language)
    output.say(_as_json(answer, language, hint) if as_json else _as_text(answer, language, hint))
    if not answer.permitted:
        raise typer.Exit(DENIED)


def _from_input() -> str:
    """Read one address from the standard input, without saying in an error what it was."""
    lines = sys.stdin.buffer.read(_LONGEST_INPUT + 1).decode("utf-8", "replace").splitlines()
    if len(lines) != 1 or not lines[0].strip() or len(lines[0]) > _LONGEST_INPUT:
        raise SettingsError("ADDRESS", "the standard input must hold exactly one line with one address.")
    return lines[0]


def moment(seconds: float | None) -> str | None:
    """Spell a time as RFC 3339 in UTC, to the second."""
    return None if seconds is None else rfc3339(seconds)


def _as_json(answer: Answer, language: Language, hint: str) -> str:
    explanation = explain(answer.reason, language)
    envelope = answer.envelope
    return output.as_json(
        {
            "permitted": answer.permitted,
            "reason": answer.reason.name,
            "reason_number": int(answer.reason),
            "why": f"{explanation.why} {hint}".rstrip(),
            "do": explanation.do,
            "message_class": answer.message_class.name,
            "evidence": _evidence_fields(answer.evidence),
            "as_of": moment(envelope.as_of),
            "valid_until": moment(envelope.valid_until),
            "position": {"log_id": envelope.position.log_id.hex(), "sequence": envelope.position.sequence},
            "decision_id": envelope.decision_id,
            "policy_id": envelope.policy_id,
        }
    )


def _evidence_fields(evidence: Evidence | None) -> dict[str, str] | None:
    if evidence is None:
        return None
    return {
        "status": evidence.status.name,
        "source": evidence.source,
        "consent_time": evidence.consent_time,
        "registration_time": evidence.registration_time,
        "transaction_id": evidence.transaction_id,
    }


def _as_text(answer: Answer, language: Language, hint: str) -> str:
    words, explanation, envelope = WORDS[language], explain(answer.reason, language), answer.envelope
    verdict = words.permitted if answer.permitted else words.denied
    as_of = moment(envelope.as_of) or words.never_complete
    policy = f"{words.policy} {envelope.policy_id}, {words.message_class} {answer.message_class.name}"
    lines = (
        f"{verdict}  {answer.reason.name}",
        " ".join(part for part in (explanation.why, hint, explanation.do) if part),
        f"{words.evidence}: {_evidence_text(answer.evidence, words)}",
        f"{words.complete_to}: {as_of} ({words.position} {envelope.position.sequence})",
        f"{words.valid_until}: {moment(envelope.valid_until)}",
        f"{words.decision}: {envelope.decision_id} ({policy})",
    )
    return "\n".join(lines)


def _evidence_text(evidence: Evidence | None, words: Words) -> str:
    if evidence is None:
        return words.no_evidence
    parts = (
        (words.source, evidence.source),
        (words.consented, evidence.consent_time),
        (words.registered, evidence.registration_time),
        (words.transaction, evidence.transaction_id),
    )
    return ", ".join([evidence.status.name, *(f"{word} {value}" for word, value in parts if value)])
