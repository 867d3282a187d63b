"""What each screen shows: made of what is known, as texts and numbers for the templates."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Final, Generic, TypeVar

import jinja2

from iyscheck import output
from iyscheck.address import why_unreadable
from iyscheck.callers.scopes import Caller
from iyscheck.consent import Reason, permits
from iyscheck.console.readings import (
    BOUNDS_S,
    CALLS,
    CALLS_FAILED,
    CHECK,
    FRAME,
    PROBE,
    REASONS,
    bucket,
    quantile,
)
from iyscheck.console.ring import HOUR_S
from iyscheck.console.sentences import Texts
from iyscheck.console.sources import Listed, Server, Watch
from iyscheck.console.spelling import UNKNOWN, Spelling
from iyscheck.overview import BRAND_STATES, BrandOverview, BrandState, Loaded, Overview, SourceOverview
from iyscheck.question import Answer, Context
from iyscheck.sentences import WORDS, Language, Words, explain, explain_unreadable

GOOD, LOOK, ACT, NOT_KNOWN = "good", "look", "act", "unknown"
ROWS_SHOWN: Final = 50
SPANS_MIN: Final = {5: 5, 15: 10, 60: 30}
"""How much time a chart can show, in minutes, and how long each of its steps is, in seconds: two looks at least, since
looks that come a little early or late would leave gaps."""

_NOW_S, _RATE_S, _MINUTES_S = 10, 60, 300
_FAILED_SHARE: Final = (0.0005, 0.005)
_LATENCY_S: Final = (0.005, 0.1)
_STALE_SHARE: Final = (0.005, 0.05)
_AGE_SHARE: Final = (0.5, 0.8)
"""Above the first of two somebody should look, above the second act; the same as in the dashboards."""

_NEEDS_NO_DATA: Final = (Reason.EXEMPT_MESSAGE, Reason.INVALID_ADDRESS, Reason.BRAND_NOT_REGISTERED)
_PERMITTING: Final = tuple(name for name in REASONS if permits(Reason[name]))
_DENYING: Final = tuple(name for name in REASONS if not permits(Reason[name]))
_SIGNS: Final = {
    BrandState.FRESH: GOOD,
    BrandState.LATE: LOOK,
    BrandState.STALE: ACT,
    BrandState.NONE: ACT,
    BrandState.INACTIVE: NOT_KNOWN,
    BrandState.UNREGISTERED: NOT_KNOWN,
    BrandState.UNSPECIFIED: NOT_KNOWN,
}
SOURCE_STATES: Final = (Loaded.HELD, Loaded.UNFINISHED, Loaded.FINISHED)
_SOURCE_SIGNS: Final = {Loaded.UNSPECIFIED: NOT_KNOWN, Loaded.FINISHED: GOOD, Loaded.UNFINISHED: LOOK, Loaded.HELD: ACT}

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)

ItemT = TypeVar("ItemT")
Sums = Mapping[str, float]


class Renderer:
    """Makes pages of templates. Texts that come from anywhere are escaped; a name that is not there is an error."""

    def __init__(self) -> None:
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters["quoted"] = output.shell_word  # a command is there to be copied into a shell

    def page(self, name: str, language: Language, **shown: object) -> str:
        """Make a page, or a part of one, in a language."""
        words = {"t": Texts(language), "s": Spelling(language), "language": language.value}
        return self._templates.get_template(f"{name}.html").render(**words, **shown)


# --- Overview ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure with what it is, what it is of, and whether it is well."""

    label: str
    value: str
    note: str
    state: str


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table beside a chart: what it is, its numbers as texts, and which line of the chart it is."""

    name: str
    code: str
    numbers: tuple[str, ...]
    line: str = ""


@dataclass(frozen=True, slots=True)
class ServerRow:
    """One server: its state in words and as a sign, and what it said last."""

    target: str
    state: str
    sign: str
    heard: str
    cells: tuple[str, ...]


class OverviewScreen:
    """Everything the overview shows at a moment."""

    def __init__(self, watch: Watch, language: Language, now: float) -> None:
        self._t = Texts(language)
        self._s = Spelling(language)
        self._watch = watch
        self._now = now
        self._sums = {span: watch.ring.sums(now, span) for span in (_NOW_S, _RATE_S, _MINUTES_S, int(HOUR_S))}

    def parts(self) -> dict[str, object]:
        """What the templates take."""
        return {
            "looked_at": self._s.clock(self._now),
            "looks": self._watch.looks,
            "tiles": self._tiles(),
            "answers": self._answers(),
            "latency": self._latency(),
            "servers": self.servers(),
            "pages": [self._page(each.name, each.trouble) for each in self._watch.metrics],
            "has_metrics": bool(self._watch.metrics),
            "spans": tuple(SPANS_MIN),
        }

    def servers(self) -> list[ServerRow]:
        """Tell of each server."""
        return [self._server(each) for each in self._watch.servers]

    def _tiles(self) -> list[Tile]:
        t, s, minutes = self._t, self._s, self._sums[_MINUTES_S]
        calls, failed = _number(minutes[CALLS]), _number(minutes[CALLS_FAILED]) or 0.0
        failed_share = None if not calls else failed / calls
        probe = _quantile(minutes, PROBE, 0.99)
        latency = _quantile(minutes, CHECK, 0.99) if probe is None else probe
        answered = _sum(minutes, REASONS)
        free = _sum(minutes, [reason.name for reason in _NEEDS_NO_DATA]) or 0.0
        stale = _number(minutes[Reason.DATA_STALE.name]) or 0.0
        stale_share = None if answered is None or answered <= free else stale / (answered - free)
        rate = _rate(_sum(self._sums[_RATE_S], REASONS), self._sums[_RATE_S])
        return [
            self._serving(),
            Tile(t("tile_failed"), s.percent(failed_share), t("tile_failed_note"), _state(failed_share, _FAILED_SHARE)),
            Tile(
                t("tile_latency"),
                UNKNOWN if latency is None else f"{s.milliseconds(latency)} ms",
                t("tile_latency_note" if probe is None else "tile_latency_probe"),
                _state(latency, _LATENCY_S),
            ),
            Tile(t("tile_stale"), s.percent(stale_share), t("tile_stale_note"), _state(stale_share, _STALE_SHARE)),
            self._age(),
            Tile(t("tile_rate"), s.rate(rate), t("tile_rate_note"), NOT_KNOWN if rate is None else GOOD),
        ]

    def _serving(self) -> Tile:
        t, servers = self._t, self._watch.servers
        well = sum(1 for each in servers if _sign(each) == GOOD)
        state = NOT_KNOWN if not servers else GOOD if well == len(servers) else LOOK if well else ACT
        value = t("tile_serving_value", serving=well, servers=len(servers)) if servers else UNKNOWN
        return Tile(t("tile_serving"), value, t("tile_serving_note"), state)

    def _age(self) -> Tile:
        """Tell of the server whose data is nearest to its limit."""
        worst: tuple[float, float, int] | None = None
        for each in self._watch.servers:
            said = each.overview
            if not each.answers or said is None or said.store is None or said.store.watermarks.newest is None:
                continue
            age, limit = said.answered_at - said.store.watermarks.newest, said.policy.freshness_limit_s
            found = (age / limit if limit else 0.0, age, limit)
            worst = found if worst is None else max(worst, found)
        t, s = self._t, self._s
        if worst is None:
            return Tile(t("tile_age"), UNKNOWN, t("tile_age_note", limit=UNKNOWN), NOT_KNOWN)
        share, age, limit = worst
        return Tile(t("tile_age"), s.age(age), t("tile_age_note", limit=s.age(limit)), _state(share, _AGE_SHARE))

    def _answers(self) -> list[Row]:
        hour = self._sums[int(HOUR_S)]
        total = _sum(hour, REASONS)
        if not total:
            return []
        rows = [self._reasons(self._t("permitted"), "", _PERMITTING, total, "permitted")]
        rows.append(self._reasons(self._t("denied"), "", _DENYING, total, "denied"))
        asked = sorted((name for name in REASONS if (_number(hour[name]) or 0) > 0), key=lambda name: -hour[name])
        return rows + [self._reasons(self._t(f"reason_{name}"), name, (name,), total) for name in asked]

    def _reasons(self, name: str, code: str, reasons: Sequence[str], total: float, line: str = "") -> Row:
        s, sums = self._s, self._sums
        rates = [_rate(_sum(sums[span], reasons), sums[span]) for span in (_NOW_S, _MINUTES_S, int(HOUR_S))]
        share = (_sum(sums[int(HOUR_S)], reasons) or 0.0) / total
        return Row(name, code, (*(s.rate(rate) for rate in rates), s.percent(share)), line)

    def _latency(self) -> list[Row]:
        rows = []
        for line, histogram, share in (("p50", CHECK, 0.5), ("p99", CHECK, 0.99), ("probe", PROBE, 0.99)):
            rows.append(self._times(line, histogram, share, line))
        rows.append(self._times("frame", FRAME, 0.99, ""))
        return [row for row in rows if row.numbers[-1] != UNKNOWN]

    def _times(self, key: str, histogram: str, share: float, line: str) -> Row:
        found = [_quantile(self._sums[span], histogram, share) for span in (_NOW_S, _MINUTES_S, int(HOUR_S))]
        return Row(self._t(key), "", tuple(self._s.milliseconds(each) for each in found), line)

    def _server(self, server: Server) -> ServerRow:
        t, s, said = self._t, self._s, server.overview
        heard = ""
        if server.trouble is not None:
            state = t(f"trouble_{server.trouble}") + (f" ({server.code})" if server.code else "")
            if server.heard_at is not None:
                heard = t("since", age=s.age(self._now - server.heard_at))
        elif said is not None and said.store is None:
            state = f"{t('store_unreadable')} ({said.store_error})"
        else:
            state = t("answers") if _sign(server) == GOOD else t("not_serving")
        cells = (UNKNOWN,) * 9
        if said is not None:
            store = said.store
            cells = (
                said.build.version,
                s.number(said.worker.workers),
                *(
                    (UNKNOWN,) * 7
                    if store is None
                    else (
                        s.number(store.position.sequence),
                        s.time(store.watermarks.newest),
                        s.number(store.size.records),
                        s.number(store.brands.get(BrandState.STALE, 0) + store.brands.get(BrandState.NONE, 0)),
                        s.number(store.withheld_brands),
                        s.number(store.rejected_rows_waiting),
                        s.size(store.size.disk_free_bytes),
                    )
                ),
            )
        return ServerRow(server.target, state, _sign(server), heard, cells)

    def _page(self, name: str, trouble: str | None) -> ServerRow:
        state = self._t("answers") if trouble is None else self._t(f"trouble_{trouble}")
        return ServerRow(name, state, GOOD if trouble is None else LOOK, "", ())


def series(watch: Watch, minutes: int, now: float) -> dict[str, object]:
    """Give what the charts draw: seconds UTC of each step, and a number or None for each line in each of them."""
    steps = watch.ring.steps(now, minutes * 60, SPANS_MIN[minutes])
    seconds = steps.sums["seconds"]

    def rates(reasons: Sequence[str]) -> list[float | None]:
        known = [steps.sums[name] for name in reasons]
        totals = [sum(0.0 if isnan(each[at]) else float(each[at]) for each in known) for at in range(len(seconds))]
        return [None if isnan(over) else round(total / over, 2) for total, over in zip(totals, seconds, strict=True)]

    def times(histogram: str, share: float) -> list[float | None]:
        counts = [steps.sums[bucket(histogram, place)] for place in range(len(BOUNDS_S))]
        found = [quantile(share, [float(each[at]) for each in counts]) for at in range(len(seconds))]
        return [None if each is None else round(each * 1_000, 3) for each in found]

    return {
        "begins": steps.begins.tolist(),
        "answers": {"permitted": rates(_PERMITTING), "denied": rates(_DENYING)},
        "latency": {"p50": times(CHECK, 0.5), "p99": times(CHECK, 0.99), "probe": times(PROBE, 0.99)},
    }


def _sign(server: Server) -> str:
    said = server.overview
    if not server.answers or said is None:
        return ACT
    return GOOD if said.store is not None and all(said.serving.get(name, False) for name in _ANSWERING) else ACT


_ANSWERING: Final = ("", "iyscheck.v1.ConsentCheckService")
"""The names of health that say whether answers can be given; freshness has a tile of its own."""


def _number(number: float) -> float | None:
    return None if isnan(number) else number


def _sum(sums: Sums, names: Iterable[str]) -> float | None:
    known = [sums[name] for name in names if not isnan(sums[name])]
    return sum(known) if known else None


def _rate(total: float | None, sums: Sums) -> float | None:
    seconds = sums["seconds"]
    return None if total is None or isnan(seconds) or seconds <= 0 else total / seconds


def _quantile(sums: Sums, histogram: str, share: float) -> float | None:
    return quantile(share, [sums[bucket(histogram, place)] for place in range(len(BOUNDS_S))])


def _state(value: float | None, limits: tuple[float, float]) -> str:
    if value is None:
        return NOT_KNOWN
    return ACT if value > limits[1] else LOOK if value > limits[0] else GOOD


# --- Lists ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shown(Generic[ItemT]):
    """One page of what was found, and how much there is."""

    items: tuple[ItemT, ...]
    found: int
    count: int
    page: int
    pages: int

    @classmethod
    def of(cls, found: Sequence[ItemT], count: int, page: int) -> "Shown[ItemT]":
        """Cut a page out; one that there is not is the nearest there is."""
        pages = max(1, -(-len(found) // ROWS_SHOWN))
        page = min(max(page, 1), pages)
        return cls(tuple(found[(page - 1) * ROWS_SHOWN : page * ROWS_SHOWN]), len(found), count, page, pages)


@dataclass(frozen=True, slots=True)
class BrandsAsked:
    """Which brands, in what order and which page of them. `sort` is one of BRAND_ORDERS, with a minus backwards."""

    code: str
    state: BrandState | None
    sort: str
    page: int

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "BrandsAsked":
        """Read a query; what it says wrong is as if it had not said it."""
        code = query.get("code", "").strip()[:10]
        sort = query.get("sort", "")
        return cls(
            code=code if code.isdecimal() and code.isascii() else "",
            state=BrandState.__members__.get(query.get("state", "").upper()),
            sort=sort if sort.removeprefix("-") in BRAND_ORDERS else "code",
            page=_whole(query.get("page", "")),
        )


BRAND_ORDERS: Final = {
    "code": lambda brand: brand.brand,
    "state": lambda brand: (brand.state, brand.brand),
    "watermark": lambda brand: (brand.watermark or 0, brand.brand),
    "records": lambda brand: (brand.records, brand.brand),
}


def shown_brands(
    listed: Listed[BrandOverview], asked: BrandsAsked, caller: Caller
) -> tuple[Shown[BrandOverview], Mapping[BrandState, int]]:
    """Find brands in a caller's scope; says also how many there are of each state, whatever is asked for."""
    mine = [each for each in listed.items if caller.brands is None or each.brand in caller.brands]
    counts = {state: sum(1 for each in mine if each.state is state) for state in BRAND_STATES}
    found = [
        each
        for each in mine
        if (asked.state is None or each.state is asked.state) and str(each.brand).startswith(asked.code)
    ]
    found.sort(key=BRAND_ORDERS[asked.sort.removeprefix("-")], reverse=asked.sort.startswith("-"))
    return Shown.of(found, len(mine), asked.page), counts


def brand_sign(state: BrandState) -> str:
    """Which sign stands before a state."""
    return _SIGNS[state]


@dataclass(frozen=True, slots=True)
class SourcesAsked:
    """Which sources, and which page of them."""

    name: str
    state: Loaded | None
    page: int

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "SourcesAsked":
        """Read a query; what it says wrong is as if it had not said it."""
        return cls(
            name=query.get("name", "").strip()[:200],
            state=Loaded.__members__.get(query.get("state", "").upper()),
            page=_whole(query.get("page", "")),
        )


def shown_sources(
    listed: Listed[SourceOverview], asked: SourcesAsked
) -> tuple[Shown[SourceOverview], Mapping[Loaded, int]]:
    """Find sources: those that wait first, then those with the newest rows."""
    counts = {state: sum(1 for each in listed.items if each.state is state) for state in SOURCE_STATES}
    found = [
        each
        for each in listed.items
        if (asked.state is None or each.state is asked.state) and asked.name.casefold() in each.name.casefold()
    ]
    found.sort(key=lambda each: each.latest, reverse=True)
    found.sort(key=lambda each: each.state is not Loaded.HELD)
    return Shown.of(found, len(listed.items), asked.page), counts


def source_sign(state: Loaded) -> str:
    """Which sign stands before a state."""
    return _SOURCE_SIGNS[state]


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 8 else 1  # noqa: PLR2004 - no page is


# --- Servers ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing of all servers, and whether it is another thing on one of them."""

    name: str
    values: tuple[str, ...]
    differs: bool


class ServersScreen:
    """What servers are made of, side by side."""

    def __init__(self, watch: Watch, language: Language, now: float) -> None:
        self._t = Texts(language)
        self._s = Spelling(language)
        self._servers = watch.servers
        self._overviews = [each.overview for each in watch.servers]
        self._rows = OverviewScreen(watch, language, now).servers()

    def parts(self) -> dict[str, object]:
        """What the templates take."""
        return {"rows": self._rows, "facts": list(self._facts())}

    def _facts(self) -> Iterable[Fact]:
        t, s = self._t, self._s
        yield self._fact("fact_version", lambda said: said.build.version)
        yield self._fact("fact_kernel", lambda said: said.build.kernel)
        yield self._fact(
            "fact_rule",
            lambda said: f"{said.build.rule_version}, {said.build.address_form}, {said.build.store_format}",
        )
        yield self._fact("fact_libraries", lambda said: f"{said.build.grpc_version}, {said.build.python_version}")
        yield self._fact("fact_policy", lambda said: said.policy.policy_id)
        yield self._fact("fact_limit", lambda said: s.age(said.policy.freshness_limit_s))
        yield self._fact("fact_merchants", lambda said: t("yes" if said.policy.merchants_need_record else "no"))
        yield self._fact("fact_deadline", lambda said: said.policy.legacy_deadline.name)
        yield self._fact("fact_ttl", lambda said: s.age(said.answer_ttl_s))
        yield self._fact("fact_workers", lambda said: s.number(said.worker.workers))
        yield self._fact("fact_callers", self._callers)
        yield self._fact(
            "fact_log", lambda said: UNKNOWN if said.store is None else said.store.position.log_id.hex()[:12]
        )
        yield self._fact("fact_position", self._position, compared=False)
        yield self._fact("fact_lag", self._lag, compared=False)
        yield self._fact("fact_standing", self._standing, compared=False)
        yield self._fact(
            "fact_newest",
            lambda said: s.time(None if said.store is None else said.store.watermarks.newest),
            compared=False,
        )
        yield self._fact("fact_started", lambda said: s.moment(said.worker.started_at), compared=False)
        yield self._fact(
            "fact_index",
            lambda said: f"{s.number(said.index.pages)}, {s.number(said.index.pages_not_taken)}",
            compared=False,
        )
        yield self._fact("fact_readers", self._readers, compared=False)
        yield self._fact("fact_size", self._size, compared=False)

    def _fact(self, key: str, tell: Callable[[Overview], str], *, compared: bool = True) -> Fact:
        values = tuple(UNKNOWN if said is None else tell(said) for said in self._overviews)
        told = {value for value, server in zip(values, self._servers, strict=True) if server.answers}
        return Fact(self._t(key), values, compared and len(told) > 1)

    def _callers(self, said: Overview) -> str:
        if said.callers is None:
            return self._t("none")
        count = self._s.number(said.callers.callers)
        return count if said.callers.file_usable else f"{count} ({self._t('callers_file_bad')})"

    def _position(self, said: Overview) -> str:
        return UNKNOWN if said.store is None else self._s.number(said.store.position.sequence)

    def _lag(self, said: Overview) -> str:
        """Say how many rows of the same store's feed another server has that this one has not."""
        if said.store is None:
            return UNKNOWN
        log_id = said.store.position.log_id
        positions = [each.store.position for each in self._overviews if each is not None and each.store is not None]
        furthest = max(each.sequence for each in positions if each.log_id == log_id)
        return self._s.number(furthest - said.store.position.sequence)

    def _standing(self, said: Overview) -> str:
        """Say how the store stands in the log that replicas follow."""
        if said.store is None:
            return UNKNOWN
        standing = said.store.standing
        if standing is None:
            return self._t("none")
        if standing.lag_s is None:
            return self._t("primary")
        behind = f"{self._t('replica')}, {self._s.age(standing.lag_s)}"
        return f"{behind} ({self._t('not_believed')})" if standing.untrusted else behind

    def _readers(self, said: Overview) -> str:
        size = None if said.store is None else said.store.size
        return UNKNOWN if size is None else f"{self._s.number(size.readers)} / {self._s.number(size.max_readers)}"

    def _size(self, said: Overview) -> str:
        size = None if said.store is None else said.store.size
        return UNKNOWN if size is None else f"{self._s.size(size.size_bytes)}, {self._s.size(size.disk_free_bytes)}"


# --- Explain ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Explained:
    """An answer for people. It has all that was asked but the address."""

    permitted: bool
    verdict: str
    reason: str
    why: str
    do: str
    asked: str
    facts: tuple[tuple[str, str], ...]
    """Evidence and what the answer rests on, each with its name."""


def explained(answer: Answer, context: Context, address: str, server: str, language: Language) -> Explained:
    """Explain an answer. `address` is looked at for why it cannot be read, and is in no part of the result."""
    t, s, words, envelope = Texts(language), Spelling(language), WORDS[language], answer.envelope
    explanation = explain(answer.reason, language)
    cause = why_unreadable(address, context.channel) if answer.reason is Reason.INVALID_ADDRESS else None
    why = explanation.why if cause is None else f"{explanation.why} {explain_unreadable(cause, language)}"
    asked = t("asked_value", brand=context.brand, channel=context.channel.name, kind=context.recipient_type.name)
    if context.retailer is not None:
        asked += t("asked_retailer", retailer=context.retailer)
    return Explained(
        permitted=answer.permitted,
        verdict=words.permitted if answer.permitted else words.denied,
        reason=answer.reason.name,
        why=why,
        do=explanation.do,
        asked=asked,
        facts=(
            *_evidence(answer, words, t),
            (words.complete_to, words.never_complete if envelope.as_of is None else s.moment(envelope.as_of)),
            (words.valid_until, s.moment(envelope.valid_until)),
            (words.position, s.number(envelope.position.sequence)),
            (words.decision, decision_id(answer) or UNKNOWN),
            (words.policy, envelope.policy_id),
            (t("asked_of"), server),
        ),
    )


def decision_id(answer: Answer) -> str:
    """Give the id of an answer's decision, empty where it is no UUID: a server could say anything in its place."""
    told = answer.envelope.decision_id
    return told if _UUID.fullmatch(told) else ""


def _evidence(answer: Answer, words: Words, t: Texts) -> list[tuple[str, str]]:
    evidence = answer.evidence
    if evidence is None:
        return [(words.evidence, words.no_evidence)]
    said = (
        (t("status"), evidence.status.name),
        (words.source, evidence.source),
        (words.consented, evidence.consent_time),
        (words.registered, evidence.registration_time),
        (words.transaction, evidence.transaction_id),
    )
    return [(f"{words.evidence}: {word}", text) for word, text in said if text]
