"""Days at İYS that the tests of reconciliation share: rows, files, summaries, and what İYS says of them."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date
from itertools import product
from pathlib import Path

from iyscheck.consent import Channel, RecipientType
from loader.iys.messages import Agreement, AgreementState, FeedSource, SummaryLine
from loader.reading import times
from loader.sources.days.facts import FileFacts
from loader.sources.days.judgement import Evidence

DAY = date(2025, 6, 1)
NEXT_DAY = "2025-06-02"
MORNING = float(times.watermark(f"{NEXT_DAY} 07:00:00"))
"""When all that may be known of the day is known."""
HEADER = "creationDate,transactionId,recipient,recipientType,type,status,consentDate,source\n"


def row(
    number: int = 0,
    *,
    time: str = "12:00:00",
    status: str = "ONAY",
    source: str = "HS_WEB",
    channel: str = "MESAJ",
    recipient_type: str = "BIREYSEL",
) -> str:
    """Write a row of the day's file."""
    recipient = f"a{number}@example.com" if channel == "EPOSTA" else f"+90532100{number:04d}"
    fields = (f"{DAY} {time}", f"{number:064x}", recipient, recipient_type, channel, status, f"{DAY} {time}", source)
    return ",".join(fields) + "\n"


def summary(rows: Iterable[str], *, pending: int = 0, without: int = 0) -> tuple[SummaryLine, ...]:
    """Count rows as İYS does; `pending` more are not finished, `without` kinds are not listed."""
    counts: Counter[tuple[str, ...]] = Counter()
    for each in rows:
        _, _, _, type_text, channel_text, status, _, source = each.rstrip("\n").split(",")
        counts[type_text, channel_text, source[:3].rstrip("_"), status] += 1
    lines = []
    for kind, channel, half in product(RecipientType, Channel, FeedSource):
        approval, rejection = (counts[kind.name, channel.name, half.value, each] for each in ("ONAY", "RET"))
        waiting = pending if (kind, channel, half) == (RecipientType.TACIR, Channel.ARAMA, FeedSource.HS) else 0
        line = SummaryLine(
            channel=channel,
            recipient_type=kind,
            source=half,
            approval=approval,
            rejection=rejection,
            pending=waiting,
            total=approval + rejection + waiting,
        )
        lines.append(line)
    return tuple(lines[without * len(FeedSource) :])


def agreement(
    content: bytes | None = None, *, algorithm: str = "sha384", state: AgreementState = AgreementState.COMPLETED
) -> Agreement:
    """Say what İYS says of the day's file, with its digest if there is a content."""
    digest = "" if content is None else hashlib.new(algorithm, content).hexdigest()
    return Agreement(day=DAY, state=state, hash=digest, method="SHA-384" if digest else "")


def facts(path: Path, content: bytes) -> FileFacts:
    """Write a file, and say what it is."""
    path.write_bytes(content)
    return FileFacts.of(path)


def evidence(
    file: FileFacts | None,
    said: Agreement,
    counted: Sequence[SummaryLine],
    *,
    asked_s: float = MORNING,
) -> Evidence:
    """Put together what is known of the day."""
    return Evidence(day=DAY, asked_s=asked_s, summary=tuple(counted), agreement=said, file=file)
