"""`iyscheck status`: how a server and its data are, and what waits for somebody."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Final

import typer

from iyscheck import output
from iyscheck.change import LogStanding
from iyscheck.cli.check import DEFAULT_SERVER, DEFAULT_TIMEOUT_S, Json, Server, Timeout, moment
from iyscheck.cli.info import standing_fields
from iyscheck.cli.reaching import ApiKeyFile, Insecure, TlsCa, TlsCert, TlsKey, reached
from iyscheck.cli.starting import asked
from iyscheck.cli.status_sentences import BRAND_STATES, LOADED, STATUS_WORDS, StatusWords
from iyscheck.overview import (
    BrandOrder,
    BrandOverview,
    BrandState,
    Loaded,
    Overview,
    SourceOverview,
    StoreOverview,
)
from iyscheck.sentences import Language
from iyscheck.times import duration_text, rfc3339

if TYPE_CHECKING:
    from iyscheck.client.admin import Admin

HELP: Final = """Show how a server is: its store, how fresh its brands are, and which rejected rows wait.

It needs the right `admin` where the server has a callers file, and changes nothing.

\b
Examples:
  iyscheck status
  iyscheck status --lang tr
  iyscheck status --server gw1.example:50051 --tls-ca ca.pem --api-key-file ops.key --json
"""
TROUBLED: Final = (BrandState.STALE, BrandState.NONE, BrandState.UNREGISTERED, BrandState.LATE)
SHOWN: Final = 20
_UNITS: Final = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


def status(  # noqa: PLR0913 - one parameter for each option
    *,
    server: Server = DEFAULT_SERVER,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    api_key_file: ApiKeyFile = None,
    insecure: Insecure = False,
    language: Annotated[
        Language, typer.Option("--lang", envvar="IYSCHECK_LANG", case_sensitive=False, help="Language of sentences.")
    ] = Language.ENGLISH,
    as_json: Json = False,
    timeout_s: Timeout = DEFAULT_TIMEOUT_S,
) -> None:
    """Ask and print. The user's help is `HELP`."""
    from iyscheck.client.sync import Client

    with Client(server, **reached(tls_ca, tls_cert, tls_key, api_key_file, insecure=insecure)) as client:
        admin = client.admin
        overview = asked(lambda left_s: admin.status(timeout_s=left_s), timeout_s, language)
        readable = overview.store is not None
        most = None if as_json else SHOWN + 1
        brands = list(islice(_troubled(admin), most)) if readable else []
        sources = list(islice(admin.all_sources(state=Loaded.HELD), most)) if readable else []
    if as_json:
        output.say(output.as_json(_fields(overview, brands, sources)))
        return
    for line in _lines(overview, brands, sources, language):
        output.say(output.visible(line))


def _troubled(admin: "Admin") -> Iterator[BrandOverview]:
    for state in TROUBLED:
        yield from admin.all_brands(state=state, order=BrandOrder.WATERMARK)


def _lines(
    overview: Overview, brands: Sequence[BrandOverview], sources: Sequence[SourceOverview], language: Language
) -> Iterator[str]:
    words, build, worker, store = STATUS_WORDS[language], overview.build, overview.worker, overview.store
    down = [name or '""' for name, serves in overview.serving.items() if not serves]
    yield words.not_serving.format(names=", ".join(down)) if down else words.serving
    yield words.build.format(
        version=build.version, kernel=build.kernel, python=build.python_version, grpc=build.grpc_version
    )
    yield words.worker.format(number=worker.number + 1, workers=worker.workers, since=rfc3339(worker.started_at))
    if store is None:
        yield words.unreadable.format(reason=overview.store_error)
    else:
        yield from _store_lines(store, overview, language)
        yield from _waiting_lines(store, brands, sources, language)
    callers = overview.callers
    if callers is None:
        yield words.no_callers
    else:
        yield (words.callers if callers.file_usable else words.callers_unusable).format(callers=callers.callers)


def _store_lines(store: StoreOverview, overview: Overview, language: Language) -> Iterator[str]:
    words, size, index, marks = STATUS_WORDS[language], store.size, overview.index, store.watermarks
    yield words.position.format(sequence=store.position.sequence, log_id=store.position.log_id.hex())
    yield from standing_lines(store.standing, words)
    yield words.store.format(
        records=size.records,
        size=_bytes(size.size_bytes),
        free=_bytes(size.disk_free_bytes),
        readers=size.readers,
        max_readers=size.max_readers,
    )
    bad = index.pages_not_taken
    yield (words.index_damaged if bad else words.index).format(pages=index.pages, bad=bad)
    if marks.newest is None:
        yield words.no_watermarks
    else:
        yield words.watermarks.format(
            newest=moment(marks.newest), median=moment(marks.median), oldest=moment(marks.oldest)
        )
    yield words.limit.format(limit=duration_text(overview.policy.freshness_limit_s))
    states = ", ".join(
        f"{brands:,} {BRAND_STATES[language][state]}" for state, brands in store.brands.items() if brands
    )
    yield words.brands.format(brands=sum(store.brands.values()), states=states or "-")
    for feed in store.feeds:
        yield words.feed.format(name=feed.name, succeeded=moment(feed.succeeded_at) or words.never)


def standing_lines(standing: LogStanding | None, words: StatusWords) -> Iterator[str]:
    """Say how a store stands in its log, if it is in one."""
    if standing is None:
        return
    if standing.lag_s is None:
        yield words.primary.format(batch=standing.batch, term=standing.term)
    else:
        yield words.replica.format(batch=standing.batch, term=standing.term, lag=standing.lag_s)
    if standing.untrusted:
        yield words.untrusted


def _waiting_lines(
    store: StoreOverview, brands: Sequence[BrandOverview], sources: Sequence[SourceOverview], language: Language
) -> Iterator[str]:
    words = STATUS_WORDS[language]
    if store.sources_held:
        yield words.waits.format(
            rows=store.rejected_rows_waiting, sources=store.sources_held, brands=store.withheld_brands
        )
    else:
        yield words.nothing_waits
    for source in sources[:SHOWN]:
        yield "  " + words.source.format(
            name=source.name, state=LOADED[language][source.state], rows=source.rows, rejected=source.rejected
        )
        for row in source.rejects:
            yield "  " + words.reject.format(line=row.line, reason=row.reason, field=row.field).rstrip()
    if store.sources_held:
        yield "  " + words.accept
    for brand in brands[:SHOWN]:
        yield "  " + words.brand.format(
            brand=brand.brand,
            state=BRAND_STATES[language][brand.state],
            watermark=moment(brand.watermark) or words.never,
        )
    yield from _more(words, brands, sources)


def _more(words: StatusWords, *lists: Sequence[object]) -> Iterator[str]:
    if any(len(each) > SHOWN for each in lists):
        yield "  " + words.more


def _bytes(number: int) -> str:
    for unit, of_bytes in _UNITS:
        if number >= of_bytes:
            return f"{number / of_bytes:,.1f} {unit}"
    return f"{number} B"


def _fields(
    overview: Overview, brands: Sequence[BrandOverview], sources: Sequence[SourceOverview]
) -> dict[str, object]:
    """Say it to a program."""
    build, worker, index, callers, policy = (
        overview.build,
        overview.worker,
        overview.index,
        overview.callers,
        overview.policy,
    )
    return {
        "answered_at": rfc3339(overview.answered_at),
        "serving": dict(overview.serving),
        "store_error": overview.store_error,
        "store": None if overview.store is None else _store_fields(overview.store),
        "index": {
            "pages": index.pages,
            "pages_not_taken": index.pages_not_taken,
            "recipients_from_records": index.recipients_from_records,
        },
        "build": {
            "version": build.version,
            "kernel": build.kernel,
            "rule_version": build.rule_version,
            "address_form": build.address_form,
            "store_format": build.store_format,
            "grpc_version": build.grpc_version,
            "python_version": build.python_version,
        },
        "policy": {
            "policy_id": policy.policy_id,
            "merchants_need_record": policy.merchants_need_record,
            "legacy_deadline": policy.legacy_deadline.name,
            "freshness_limit_s": policy.freshness_limit_s,
            "answer_ttl_s": overview.answer_ttl_s,
        },
        "limits": dict(overview.limits),
        "settings": dict(overview.settings),
        "worker": {
            "number": worker.number,
            "workers": worker.workers,
            "started_at": rfc3339(worker.started_at),
        },
        "callers": None if callers is None else {"callers": callers.callers, "file_usable": callers.file_usable},
        "troubled_brands": [_brand_fields(brand) for brand in brands],
        "held_sources": [_source_fields(source) for source in sources],
    }


def _store_fields(store: StoreOverview) -> dict[str, object]:
    size, marks = store.size, store.watermarks
    return {
        "log_id": store.position.log_id.hex(),
        "sequence": store.position.sequence,
        **standing_fields(store.standing),
        "newest_watermark": moment(marks.newest),
        "median_watermark": moment(marks.median),
        "oldest_watermark": moment(marks.oldest),
        "brands": {state.name.lower(): brands for state, brands in store.brands.items()},
        "withheld_brands": store.withheld_brands,
        "sources_held": store.sources_held,
        "rejected_rows_waiting": store.rejected_rows_waiting,
        "records": size.records,
        "size_bytes": size.size_bytes,
        "disk_free_bytes": size.disk_free_bytes,
        "readers": size.readers,
        "max_readers": size.max_readers,
        "feeds": [
            {
                "name": feed.name,
                "committed_at": moment(feed.committed_at),
                "succeeded_at": moment(feed.succeeded_at),
                "expected_interval_s": feed.expected_interval_s,
                "refusals": feed.refusals,
                "refusals_late": feed.late,
            }
            for feed in store.feeds
        ],
    }


def _brand_fields(brand: BrandOverview) -> dict[str, object]:
    return {
        "brand_code": brand.brand,
        "state": brand.state.name.lower(),
        "watermark": moment(brand.watermark),
        "stale_from": moment(brand.stale_from),
        "withheld": moment(brand.withheld),
        "held_by": list(brand.held_by),
        "records": brand.records,
    }


def _source_fields(source: SourceOverview) -> dict[str, object]:
    return {
        "name": source.name,
        "finished": source.finished,
        "rows": source.rows,
        "rejected": source.rejected,
        "brands_held": source.brands_held,
        "rejects": [{"line": row.line, "field": row.field, "reason": row.reason} for row in source.rejects],
    }
