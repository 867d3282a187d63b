"""What a server tells whoever operates it, both ways; requests are read strictly, answers with what is missing."""

import struct
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar, cast

import msgspec
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from iyscheck.change import Position
from iyscheck.consent import Channel, LegacyDeadline, Policy
from iyscheck.errors import PageError, ServiceFailedError
from iyscheck.overview import (
    NEVER,
    AfterBrand,
    BrandOrder,
    BrandOverview,
    BrandState,
    Build,
    CallerOverview,
    CallersInForce,
    Feed,
    IndexCondition,
    Loaded,
    Overview,
    Page,
    Rejected,
    SourceOverview,
    StoreOverview,
    StoreSize,
    Watermarks,
    Worker,
)
from iyscheck.v1 import admin_pb2 as admin
from iyscheck.v1 import consent_check_pb2 as v1
from iyscheck.wire.fields import (
    CHANNELS,
    DEADLINES,
    instant_of,
    position_message,
    seconds_of,
    timestamp,
    write_timestamp,
)
from iyscheck.wire.info import replication_message, standing_of
from iyscheck.wire.pages import Listed, no_such_place, page_key, page_size_of, page_token

_AFTER_BRAND: Final = struct.Struct(">qI")
_SOURCE_KEY_BYTES: Final = 16

_BRAND_STATES: Final = {int(state): state for state in BrandState}
_ORDERS: Final = {0: BrandOrder.CODE} | {int(order): order for order in BrandOrder}
_LOADED: Final = {int(loaded): loaded for loaded in Loaded}

ChoiceT = TypeVar("ChoiceT")

# --- As a server reads and writes them ----------------------------------------------------------------------


class BrandsAsked(msgspec.Struct, frozen=True, kw_only=True):
    """Which page of the brands is asked for; `state` None: all."""

    state: BrandState | None
    order: BrandOrder
    after: AfterBrand | None
    most: int


class SourcesAsked(msgspec.Struct, frozen=True, kw_only=True):
    """Which page of the sources is asked for, behind which key; `state` None: all."""

    state: Loaded | None
    after: bytes | None
    most: int


class CallersAsked(msgspec.Struct, frozen=True, kw_only=True):
    """Which page of the callers is asked for, behind which name."""

    after: str | None
    most: int


def brands_asked(message: admin.ListBrandsRequest) -> BrandsAsked:
    """Read which brands are asked for. Raises PageError."""
    state = _choice("state", _BRAND_STATES, message.state)
    order = _choice("order_by", _ORDERS, message.order_by)
    key = page_key(message.page_token, Listed.BRANDS, state=state, order=order)
    after = None
    if key is not None:
        if len(key) != _AFTER_BRAND.size:
            raise no_such_place()
        after = AfterBrand(*_AFTER_BRAND.unpack(key))
        if after.watermark < NEVER:
            raise no_such_place()
    return BrandsAsked(state=state or None, order=order, after=after, most=page_size_of(message.page_size))


def sources_asked(message: admin.ListSourcesRequest) -> SourcesAsked:
    """Read which sources are asked for. Raises PageError."""
    state = _choice("state", _LOADED, message.state)
    key = page_key(message.page_token, Listed.SOURCES, state=state)
    if key is not None and len(key) != _SOURCE_KEY_BYTES:
        raise no_such_place()
    return SourcesAsked(state=state or None, after=key, most=page_size_of(message.page_size))


def callers_asked(message: admin.ListCallersRequest) -> CallersAsked:
    """Read which callers are asked for. Raises PageError."""
    key = page_key(message.page_token, Listed.CALLERS)
    try:
        after = None if key is None else key.decode("ascii")
    except UnicodeDecodeError:
        raise no_such_place() from None
    return CallersAsked(after=after, most=page_size_of(message.page_size))


def _choice(field: str, known: Mapping[int, ChoiceT], number: int) -> ChoiceT:
    choice = known.get(number)
    if choice is None:
        raise PageError(field, f"{number:d} is none that this server knows.", fix="Leave it out, or update the server.")
    return choice


def status_response(overview: Overview) -> admin.GetStatusResponse:
    """Write what a glance shows."""
    store, policy = overview.store, overview.policy
    message = admin.GetStatusResponse(
        store_error=overview.store_error,
        index=admin.IndexStatus(**msgspec.structs.asdict(overview.index)),
        serving=[admin.ServingStatus(service=name, serving=serves) for name, serves in overview.serving.items()],
        build=admin.Build(**msgspec.structs.asdict(overview.build)),
        policy=v1.Policy(
            policy_id=policy.policy_id,
            merchants_need_record=policy.merchants_need_record,
            legacy_deadline=cast("v1.LegacyDeadline", policy.legacy_deadline),
            freshness_limit=Duration(seconds=policy.freshness_limit_s),
            answer_ttl=Duration(seconds=overview.answer_ttl_s),
        ),
        limits=v1.Limits(**overview.limits),
        settings=[admin.Setting(name=name, value=value) for name, value in overview.settings.items()],
        worker=admin.WorkerStatus(
            number=overview.worker.number,
            workers=overview.worker.workers,
            started_at=_moment(overview.worker.started_at),
        ),
    )
    write_timestamp(message.answered_at, overview.answered_at)
    if overview.callers is not None:
        message.callers.CopyFrom(admin.CallersStatus(**msgspec.structs.asdict(overview.callers)))
    if store is not None:
        _write_store(message, store)
    return message


def _write_store(message: admin.GetStatusResponse, store: StoreOverview) -> None:
    marks = store.watermarks
    told = admin.GetStatusResponse(
        position=position_message(store.position),
        watermarks=admin.Watermarks(
            newest=timestamp(marks.newest), median=timestamp(marks.median), oldest=timestamp(marks.oldest)
        ),
        brands=[
            admin.BrandCount(state=cast("admin.BrandState", state), brands=brands)
            for state, brands in store.brands.items()
        ],
        withheld_brands=store.withheld_brands,
        sources_held=store.sources_held,
        rejected_rows_waiting=store.rejected_rows_waiting,
        store=admin.StoreStatus(**msgspec.structs.asdict(store.size)),
        feeds=[_feed_message(feed) for feed in store.feeds],
        replication=replication_message(store.standing),
    )
    message.MergeFrom(told)


def _feed_message(feed: Feed) -> admin.FeedStatus:
    interval_s = feed.expected_interval_s
    return admin.FeedStatus(
        name=feed.name,
        committed_at=timestamp(feed.committed_at),
        succeeded_at=timestamp(feed.succeeded_at),
        expected_interval=None if interval_s is None else Duration(seconds=interval_s),
        refusals=feed.refusals,
        refusals_late=feed.late,
    )


def brands_response(
    brands: Sequence[BrandOverview], asked: BrandsAsked, after: AfterBrand | None, *, now_s: float
) -> admin.ListBrandsResponse:
    """Write a page of brands, and how to ask for the one behind `after`."""
    token = ""
    if after is not None:
        token = page_token(Listed.BRANDS, _AFTER_BRAND.pack(*after), state=asked.state or 0, order=asked.order)
    return admin.ListBrandsResponse(
        brands=[_brand_message(each) for each in brands], next_page_token=token, answered_at=_moment(now_s)
    )


def _brand_message(brand: BrandOverview) -> admin.BrandStatus:
    return admin.BrandStatus(
        brand_code=brand.brand,
        iys_code=brand.iys_code or 0,
        state=cast("admin.BrandState", brand.state),
        channels=cast("list[v1.Channel]", brand.channels),
        watermark=timestamp(brand.watermark),
        stale_from=timestamp(brand.stale_from),
        withheld_watermark=timestamp(brand.withheld),
        held_by=[_shown(name) for name in brand.held_by],
        sources_holding=brand.sources_holding,
        records=brand.records,
        proved_spans=brand.proved_spans,
        accepted_gaps=brand.accepted_gaps,
    )


def sources_response(
    sources: Sequence[SourceOverview], asked: SourcesAsked, after: bytes | None
) -> admin.ListSourcesResponse:
    """Write a page of sources, and how to ask for the one behind `after`."""
    token = "" if after is None else page_token(Listed.SOURCES, after, state=asked.state or 0)
    return admin.ListSourcesResponse(sources=[_source_message(each) for each in sources], next_page_token=token)


def _source_message(source: SourceOverview) -> admin.SourceStatus:
    return admin.SourceStatus(
        name=_shown(source.name),
        state=cast("admin.SourceState", source.state),
        finished=source.finished,
        rows=source.rows,
        rows_loaded=source.loaded,
        rows_skipped=source.skipped,
        rows_rejected=source.rejected,
        rejects_accepted=source.rejects_accepted,
        earliest_registration=source.earliest,
        latest_registration=source.latest,
        held_brands=source.held_brands,
        brands_held=source.brands_held,
        rejects=[admin.RejectedRow(line=row.line, field=row.field, reason=row.reason) for row in source.rejects],
    )


def callers_response(callers: Sequence[CallerOverview], after: str | None) -> admin.ListCallersResponse:
    """Write a page of callers, and how to ask for the one behind `after`."""
    token = "" if after is None else page_token(Listed.CALLERS, after.encode())
    return admin.ListCallersResponse(callers=[_caller_message(each) for each in callers], next_page_token=token)


def _caller_message(caller: CallerOverview) -> admin.CallerStatus:
    return admin.CallerStatus(
        name=caller.name,
        calls=caller.calls,
        all_brands=caller.brand_count is None,
        brand_count=caller.brand_count or 0,
        brands=caller.brands,
        channels=cast("list[v1.Channel]", caller.channels),
        addresses=caller.addresses,
        rate=caller.rate,
        streams=caller.streams,
        keys=caller.keys,
        certificates=caller.certificates,
        refusals=[admin.CallerRefusals(reason=reason, times=times) for reason, times in caller.refusals.items()],
    )


def _shown(name: str) -> str:
    """Write the name of a source, which may be a path that is not UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _moment(seconds: float) -> Timestamp:
    message = Timestamp()
    write_timestamp(message, seconds)
    return message


# --- As a client reads and writes them ----------------------------------------------------------------------


def brands_request(
    *, state: BrandState | None, order: BrandOrder, page_size: int, token: str
) -> admin.ListBrandsRequest:
    """Ask for a page of brands. Raises PageError."""
    return admin.ListBrandsRequest(
        page_size=_size(page_size),
        page_token=token,
        state=cast("admin.BrandState", state or 0),
        order_by=cast("admin.BrandOrder", order),
    )


def sources_request(*, state: Loaded | None, page_size: int, token: str) -> admin.ListSourcesRequest:
    """Ask for a page of sources. Raises PageError."""
    return admin.ListSourcesRequest(
        page_size=_size(page_size), page_token=token, state=cast("admin.SourceState", state or 0)
    )


def callers_request(*, page_size: int, token: str) -> admin.ListCallersRequest:
    """Ask for a page of callers. Raises PageError."""
    return admin.ListCallersRequest(page_size=_size(page_size), page_token=token)


def _size(page_size: int) -> int:
    if page_size < 0:
        raise PageError("page_size", f"{page_size} is less than 0.")
    return page_size_of(page_size)


def overview_of(message: admin.GetStatusResponse) -> Overview:
    """Read what a glance shows. Raises ServiceFailedError where a part is missing."""
    for part in ("answered_at", "index", "build", "policy", "limits", "worker"):
        if not message.HasField(part):
            raise ServiceFailedError(f"The server's status does not tell its {part}.")
    policy, limits, worker = message.policy, message.limits, message.worker
    return Overview(
        answered_at=seconds_of(message.answered_at),
        store_error=message.store_error,
        store=_store_of(message),
        index=IndexCondition(
            pages=message.index.pages,
            pages_not_taken=message.index.pages_not_taken,
            recipients_from_records=message.index.recipients_from_records,
        ),
        serving={each.service: each.serving for each in message.serving},
        build=Build(
            version=message.build.version,
            kernel=message.build.kernel,
            rule_version=message.build.rule_version,
            address_form=message.build.address_form,
            store_format=message.build.store_format,
            grpc_version=message.build.grpc_version,
            python_version=message.build.python_version,
        ),
        policy=Policy(
            merchants_need_record=policy.merchants_need_record,
            legacy_deadline=DEADLINES.get(policy.legacy_deadline, LegacyDeadline.ANNOUNCED),
            freshness_limit_s=policy.freshness_limit.seconds,
        ),
        answer_ttl_s=policy.answer_ttl.seconds,
        limits={field.name: getattr(limits, field.name) for field in limits.DESCRIPTOR.fields},
        settings={each.name: each.value for each in message.settings},
        worker=Worker(number=worker.number, workers=worker.workers, started_at=seconds_of(worker.started_at)),
        callers=CallersInForce(callers=message.callers.callers, file_usable=message.callers.file_usable)
        if message.HasField("callers")
        else None,
    )


def _store_of(message: admin.GetStatusResponse) -> StoreOverview | None:
    if message.store_error:
        return None
    if not message.HasField("position") or not message.HasField("store"):
        raise ServiceFailedError("The server's status tells neither of its store nor why it does not.")
    marks, store = message.watermarks, message.store
    counted: dict[BrandState, int] = {}
    for each in message.brands:
        state = _BRAND_STATES.get(each.state, BrandState.UNSPECIFIED)
        counted[state] = counted.get(state, 0) + each.brands
    return StoreOverview(
        position=Position(message.position.log_id, message.position.sequence),
        watermarks=Watermarks(
            newest=_seconds(marks, "newest"), median=_seconds(marks, "median"), oldest=_seconds(marks, "oldest")
        ),
        brands=counted,
        withheld_brands=message.withheld_brands,
        sources_held=message.sources_held,
        rejected_rows_waiting=message.rejected_rows_waiting,
        size=StoreSize(
            size_bytes=store.size_bytes,
            disk_free_bytes=store.disk_free_bytes,
            records=store.records,
            readers=store.readers,
            max_readers=store.max_readers,
        ),
        feeds=tuple(_feed_of(each) for each in message.feeds),
        standing=standing_of(message.replication) if message.HasField("replication") else None,
    )


def _feed_of(message: admin.FeedStatus) -> Feed:
    return Feed(
        name=message.name,
        committed_at=_seconds(message, "committed_at"),
        succeeded_at=_seconds(message, "succeeded_at"),
        expected_interval_s=_seconds(message, "expected_interval"),
        refusals=message.refusals,
        late=message.refusals_late,
    )


def brands_of(message: admin.ListBrandsResponse) -> Page[BrandOverview]:
    """Read a page of brands."""
    return Page(items=tuple(_brand_of(each) for each in message.brands), next_token=message.next_page_token)


def _brand_of(message: admin.BrandStatus) -> BrandOverview:
    state = _BRAND_STATES.get(message.state, BrandState.UNSPECIFIED)
    return BrandOverview(
        brand=message.brand_code,
        iys_code=None if state is BrandState.UNREGISTERED else message.iys_code,
        state=state,
        channels=_channels_of(message.channels),
        watermark=_seconds(message, "watermark"),
        stale_from=_seconds(message, "stale_from"),
        withheld=_seconds(message, "withheld_watermark"),
        held_by=tuple(message.held_by),
        sources_holding=message.sources_holding,
        records=message.records,
        proved_spans=message.proved_spans,
        accepted_gaps=message.accepted_gaps,
    )


def sources_of(message: admin.ListSourcesResponse) -> Page[SourceOverview]:
    """Read a page of sources."""
    return Page(items=tuple(_source_of(each) for each in message.sources), next_token=message.next_page_token)


def _source_of(message: admin.SourceStatus) -> SourceOverview:
    return SourceOverview(
        name=message.name,
        state=_LOADED.get(message.state, Loaded.UNSPECIFIED),
        finished=message.finished,
        rows=message.rows,
        loaded=message.rows_loaded,
        skipped=message.rows_skipped,
        rejected=message.rows_rejected,
        rejects_accepted=message.rejects_accepted,
        earliest=message.earliest_registration,
        latest=message.latest_registration,
        held_brands=tuple(message.held_brands),
        brands_held=message.brands_held,
        rejects=tuple(Rejected(line=row.line, field=row.field, reason=row.reason) for row in message.rejects),
    )


def callers_of(message: admin.ListCallersResponse) -> Page[CallerOverview]:
    """Read a page of callers."""
    return Page(items=tuple(_caller_of(each) for each in message.callers), next_token=message.next_page_token)


def _caller_of(message: admin.CallerStatus) -> CallerOverview:
    return CallerOverview(
        name=message.name,
        calls=tuple(message.calls),
        brand_count=None if message.all_brands else message.brand_count,
        brands=tuple(message.brands),
        channels=_channels_of(message.channels),
        addresses=message.addresses,
        rate=message.rate if message.HasField("rate") else None,
        streams=message.streams if message.HasField("streams") else None,
        keys=message.keys,
        certificates=message.certificates,
        refusals={each.reason: each.times for each in message.refusals},
    )


def _channels_of(numbers: Sequence[int]) -> tuple[Channel, ...]:
    return tuple(CHANNELS[number] for number in numbers if number in CHANNELS)


def _seconds(message: admin.Watermarks | admin.FeedStatus | admin.BrandStatus, field: str) -> int | None:
    if not message.HasField(field):
        return None
    told: Timestamp | Duration = getattr(message, field)
    return instant_of(told) if isinstance(told, Timestamp) else told.seconds
