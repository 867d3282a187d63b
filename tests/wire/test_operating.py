"""What is told of a server, both ways; and pages: what a token is taken for, and what is refused."""

import base64
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, text_format
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck import overview, wire
from iyscheck.change import LogStanding, Position
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
    Rejected,
    SourceOverview,
    StoreOverview,
    StoreSize,
    Watermarks,
    Worker,
)
from iyscheck.v1 import admin_pb2 as admin
from iyscheck.wire import operating
from iyscheck.wire.pages import Listed, page_key, page_token
from tests.dice import often

GOLDEN = Path(__file__).parents[1] / "golden" / "admin.descriptor.txt"

encodable = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
codes = st.integers(1, 2**32 - 1)
seconds = st.integers(0, 2**33)
counts = st.integers(0, 2**63)
small = st.integers(0, 2**31)
channels = st.lists(st.sampled_from(Channel), unique=True).map(tuple)
states = st.sampled_from(overview.BRAND_STATES)
brands = st.builds(
    BrandOverview,
    brand=codes,
    iys_code=st.integers(1, 2**63),
    state=st.sampled_from([state for state in overview.BRAND_STATES if state is not BrandState.UNREGISTERED]),
    channels=channels,
    watermark=st.none() | seconds,
    stale_from=st.none() | seconds,
    withheld=st.none() | seconds,
    held_by=st.lists(encodable, max_size=3).map(tuple),
    sources_holding=small,
    records=counts,
    proved_spans=small,
    accepted_gaps=small,
)
sources = st.builds(
    SourceOverview,
    name=encodable,
    state=st.sampled_from([Loaded.FINISHED, Loaded.UNFINISHED, Loaded.HELD]),
    finished=st.booleans(),
    rows=counts,
    loaded=counts,
    skipped=counts,
    rejected=counts,
    rejects_accepted=st.booleans(),
    earliest=encodable,
    latest=encodable,
    held_brands=st.lists(codes, max_size=3).map(tuple),
    brands_held=small,
    rejects=st.lists(st.builds(Rejected, line=counts, field=encodable, reason=encodable), max_size=3).map(tuple),
)
callers = st.builds(
    CallerOverview,
    name=encodable,
    calls=st.lists(encodable, max_size=3).map(tuple),
    brand_count=st.none() | small,
    brands=st.lists(codes, max_size=3).map(tuple),
    channels=channels,
    addresses=st.booleans(),
    rate=st.none() | small,
    streams=st.none() | small,
    keys=small,
    certificates=small,
    refusals=st.dictionaries(encodable, counts, max_size=3),
)
feeds = st.builds(
    Feed,
    name=encodable,
    committed_at=st.none() | seconds,
    succeeded_at=st.none() | seconds,
    expected_interval_s=st.none() | small,
    refusals=counts,
    late=counts,
)
stores = st.builds(
    StoreOverview,
    position=st.builds(Position, st.binary(min_size=16, max_size=16), counts),
    watermarks=st.builds(
        Watermarks, newest=st.none() | seconds, median=st.none() | seconds, oldest=st.none() | seconds
    ),
    brands=st.fixed_dictionaries(dict.fromkeys(overview.BRAND_STATES, small)),
    withheld_brands=small,
    sources_held=small,
    rejected_rows_waiting=counts,
    size=st.builds(
        StoreSize, size_bytes=counts, disk_free_bytes=counts, records=counts, readers=small, max_readers=small
    ),
    feeds=st.lists(feeds, max_size=2).map(tuple),
    standing=st.none()
    | st.builds(
        LogStanding,
        role=encodable,
        term=small,
        batch=counts,
        lag_s=st.none() | small.map(float),
        untrusted=st.booleans(),
    ),
)
overviews = st.builds(
    lambda store, **fields: Overview(store=store, store_error="" if store else "STORE_UNREADABLE", **fields),
    st.none() | stores,
    answered_at=seconds.map(float),
    index=st.builds(IndexCondition, pages=small, pages_not_taken=small, recipients_from_records=counts),
    serving=st.dictionaries(encodable, st.booleans(), max_size=3),
    build=st.builds(
        Build,
        version=encodable,
        kernel=encodable,
        rule_version=small,
        address_form=small,
        store_format=small,
        grpc_version=encodable,
        python_version=encodable,
    ),
    policy=st.builds(
        Policy,
        merchants_need_record=st.booleans(),
        legacy_deadline=st.sampled_from(LegacyDeadline).filter(bool),
        freshness_limit_s=small,
    ),
    answer_ttl_s=small,
    limits=st.fixed_dictionaries(
        dict.fromkeys(
            (
                "max_batch_questions",
                "max_frame_recipients",
                "max_message_bytes",
                "max_client_reference_bytes",
                "max_frame_groups",
            ),
            small,
        )
    ),
    settings=st.dictionaries(encodable, encodable, max_size=3),
    worker=st.builds(Worker, number=small, workers=small, started_at=seconds.map(float)),
    callers=st.none() | st.builds(CallersInForce, callers=small, file_usable=st.booleans()),
)


def again(message: Any) -> Any:  # noqa: ANN401 - any message of ours
    """Send a message over the wire."""
    return type(message).FromString(message.SerializeToString())


class TestContract:
    """What is on the wire is what was recorded, and has the numbers of Python."""

    def test_descriptor(self) -> None:
        """The contract's messages, field numbers and types are the recorded ones; a change must be on purpose."""
        proto = descriptor_pb2.FileDescriptorProto()
        admin.DESCRIPTOR.CopyToProto(proto)

        assert text_format.MessageToString(proto) == GOLDEN.read_text()

    @pytest.mark.parametrize(
        ("ours", "theirs", "prefix"),
        [
            (BrandState, admin.BrandState, "BRAND_STATE_"),
            (BrandOrder, admin.BrandOrder, "BRAND_ORDER_"),
            (Loaded, admin.SourceState, "SOURCE_STATE_"),
        ],
    )
    def test_enums(self, ours: Any, theirs: EnumTypeWrapper, prefix: str) -> None:  # noqa: ANN401 - any enum
        """Each enum has the same names and numbers on both sides; the wire's zero is UNSPECIFIED."""
        expected = {prefix + member.name: member.value for member in ours} | {f"{prefix}UNSPECIFIED": 0}

        assert dict(theirs.items()) == expected


class TestRoundTrips:
    """What a server writes a client reads as the same."""

    @given(overviews)
    @settings(max_examples=often(100), deadline=None)
    def test_overview(self, told: Overview) -> None:
        """A glance survives the wire, with a store or with why there is none."""
        assert wire.overview_of(again(wire.status_response(told))) == told

    @given(st.lists(brands, max_size=3))
    @settings(max_examples=often(100), deadline=None)
    def test_brands(self, told: list[BrandOverview]) -> None:
        """Brands survive the wire."""
        asked = wire.brands_asked(admin.ListBrandsRequest())

        page = wire.brands_of(again(wire.brands_response(told, asked, None, now_s=1.0)))

        assert (list(page.items), page.next_token) == (told, "")

    @given(st.lists(sources, max_size=3))
    @settings(max_examples=often(100), deadline=None)
    def test_sources(self, told: list[SourceOverview]) -> None:
        """Sources survive the wire."""
        asked = wire.sources_asked(admin.ListSourcesRequest())

        assert list(wire.sources_of(again(wire.sources_response(told, asked, None))).items) == told

    @given(st.lists(callers, max_size=3))
    @settings(max_examples=often(100), deadline=None)
    def test_callers(self, told: list[CallerOverview]) -> None:
        """Callers survive the wire."""
        assert list(wire.callers_of(again(wire.callers_response(told, None))).items) == told

    def test_odd_name(self) -> None:
        """A path that is not UTF-8 is shown with a mark in the place of what is not."""
        source = SourceOverview(
            name="/ma\udcf0aza",
            state=Loaded.FINISHED,
            finished=True,
            rows=0,
            loaded=0,
            skipped=0,
            rejected=0,
            rejects_accepted=False,
            earliest="",
            latest="",
            held_brands=(),
            brands_held=0,
            rejects=(),
        )
        asked = wire.sources_asked(admin.ListSourcesRequest())

        (read,) = wire.sources_of(again(wire.sources_response([source], asked, None))).items

        assert read.name == "/ma�aza"

    def test_newer_server(self) -> None:
        """A state that this client does not know is told as such."""
        message = admin.ListBrandsResponse(brands=[admin.BrandStatus(brand_code=1, state=99)])  # type: ignore[arg-type] # no number of ours

        assert wire.brands_of(message).items[0].state is BrandState.UNSPECIFIED

    @pytest.mark.parametrize("odd", [2**63 - 1, -(2**63), 253_402_300_800, -62_135_596_801])
    def test_time_that_cannot_be(self, odd: int) -> None:
        """A time before the year 1 or after 9999 is an error of the server: nobody could write it."""
        told = admin.GetStatusResponse(position={"log_id": bytes(16)})
        for name in ("answered_at", "index", "build", "policy", "limits", "worker", "store", "watermarks"):
            getattr(told, name).SetInParent()
        for mark in ("newest", "oldest"):
            getattr(told.watermarks, mark).seconds = 1
        wire.overview_of(told)
        times = (told.answered_at, told.worker.started_at, told.watermarks.newest, told.watermarks.oldest)
        for time in times:
            kept, time.seconds = time.seconds, odd
            with pytest.raises(ServiceFailedError, match="cannot be"):
                wire.overview_of(told)
            time.seconds = kept
        for field in ("watermark", "stale_from", "withheld_watermark"):
            brand = admin.BrandStatus(brand_code=1)
            getattr(brand, field).seconds = odd
            with pytest.raises(ServiceFailedError, match="cannot be"):
                wire.brands_of(admin.ListBrandsResponse(brands=[brand]))

    @pytest.mark.parametrize("part", ["answered_at", "index", "build", "policy", "limits", "worker", "store"])
    def test_part_missing(self, part: str) -> None:
        """A status without one of its parts is no status."""
        message = admin.GetStatusResponse(position={"log_id": bytes(16)})
        for name in ("answered_at", "index", "build", "policy", "limits", "worker", "store"):
            getattr(message, name).SetInParent()
        wire.overview_of(message)
        message.ClearField(part)

        with pytest.raises(ServiceFailedError):
            wire.overview_of(message)


class TestPages:
    """A token is taken for what a server gave, or refused; and so is a size."""

    @given(st.sampled_from(overview.BRAND_STATES), st.sampled_from(BrandOrder), st.integers(NEVER, 2**40), codes)
    @settings(max_examples=often(100), deadline=None)
    def test_brands(self, state: BrandState, order: BrandOrder, watermark: int, code: int) -> None:
        """The token of a page of brands asks for the one behind it, in the same list only."""
        asked = operating.BrandsAsked(state=state, order=order, after=None, most=5)
        after = AfterBrand(watermark, code)
        token = wire.brands_response([], asked, after, now_s=0.0).next_page_token

        request = wire.brands_request(state=state, order=order, page_size=5, token=token)

        assert wire.brands_asked(request) == operating.BrandsAsked(state=state, order=order, after=after, most=5)
        others = [(each, order) for each in (None, *overview.BRAND_STATES) if each is not state]
        for other_state, other_order in [*others, (state, BrandOrder(3 - order))]:
            with pytest.raises(PageError, match="another state or order"):
                wire.brands_asked(wire.brands_request(state=other_state, order=other_order, page_size=5, token=token))

    @given(st.binary(min_size=16, max_size=16), st.sampled_from([Loaded.FINISHED, Loaded.UNFINISHED, Loaded.HELD]))
    @settings(max_examples=50, deadline=None)
    def test_sources(self, key: bytes, state: Loaded) -> None:
        """The same for sources, and their token asks for no brands."""
        asked = operating.SourcesAsked(state=state, after=None, most=5)
        token = wire.sources_response([], asked, key).next_page_token

        assert wire.sources_asked(wire.sources_request(state=state, page_size=0, token=token)).after == key
        with pytest.raises(PageError, match="not of this list"):
            wire.brands_asked(admin.ListBrandsRequest(page_token=token))
        with pytest.raises(PageError, match="another state"):
            wire.sources_asked(wire.sources_request(state=None, page_size=0, token=token))

    def test_callers(self) -> None:
        """The same for callers."""
        token = wire.callers_response([], "acme.sms").next_page_token

        assert wire.callers_asked(wire.callers_request(page_size=7, token=token)) == operating.CallersAsked(
            after="acme.sms", most=7
        )

    @given(st.text(max_size=40) | st.binary(max_size=40).map(lambda data: base64.urlsafe_b64encode(data).decode()))
    @settings(max_examples=often(300), deadline=None)
    def test_made_up(self, token: str) -> None:
        """What no server gave is refused, whatever it is, and is in no error."""
        if not token:
            return
        with pytest.raises(PageError) as caught:
            page_key(token, Listed.SOURCES)

        assert caught.value.field == "page_token"
        assert len(token) < 4 or token not in str(caught.value)

    @given(st.data())
    @settings(max_examples=often(100), deadline=None)
    def test_damaged(self, data: st.DataObject) -> None:
        """A token with one letter changed, added or taken away is refused."""
        token = page_token(Listed.SOURCES, data.draw(st.binary(min_size=16, max_size=16)))
        at = data.draw(st.integers(0, len(token) - 1))
        letter = data.draw(st.sampled_from("AZaz09-_=+/ é").filter(lambda letter: letter != token[at]))
        damaged = data.draw(
            st.sampled_from([token[:at] + letter + token[at + 1 :], token[:at] + token[at + 1 :], token + letter])
        )

        with pytest.raises(PageError):
            page_key(damaged, Listed.SOURCES)

    @pytest.mark.parametrize(
        "key", [b"", b"short", bytes(17), (-2).to_bytes(8, signed=True) + bytes(4)], ids=["none", "5", "17", "below"]
    )
    def test_wrong_key(self, key: bytes) -> None:
        """A token with a right check and a wrong key is refused all the same."""
        with pytest.raises(PageError, match="not one that a server gave"):
            wire.brands_asked(admin.ListBrandsRequest(page_token=page_token(Listed.BRANDS, key, order=1)))
        with pytest.raises(PageError, match="not one that a server gave"):
            wire.sources_asked(admin.ListSourcesRequest(page_token=page_token(Listed.SOURCES, key)))
        if key[:1] == b"\xff":
            with pytest.raises(PageError, match="not one that a server gave"):
                wire.callers_asked(admin.ListCallersRequest(page_token=page_token(Listed.CALLERS, key)))

    @pytest.mark.parametrize(("given_", "taken"), [(0, 100), (1, 1), (1_000, 1_000)])
    def test_size(self, given_: int, taken: int) -> None:
        """Sizes go from 1 to 1,000; 0 leaves it to the server."""
        assert wire.brands_asked(admin.ListBrandsRequest(page_size=given_)).most == taken
        assert wire.sources_asked(admin.ListSourcesRequest(page_size=given_)).most == taken
        assert wire.callers_asked(admin.ListCallersRequest(page_size=given_)).most == taken

    @pytest.mark.parametrize("size", [1_001, 2**32 - 1])
    def test_too_large(self, size: int) -> None:
        """A larger page is refused, and the field is named."""
        for asked in (
            lambda: wire.brands_asked(admin.ListBrandsRequest(page_size=size)),
            lambda: wire.sources_asked(admin.ListSourcesRequest(page_size=size)),
            lambda: wire.callers_asked(admin.ListCallersRequest(page_size=size)),
            lambda: wire.callers_request(page_size=size, token=""),
            lambda: wire.callers_request(page_size=-1, token=""),
        ):
            with pytest.raises(PageError) as caught:
                asked()
            assert caught.value.field == "page_size"

    @pytest.mark.parametrize(
        ("request_", "field"),
        [
            (admin.ListBrandsRequest(state=7), "state"),  # type: ignore[arg-type] # no number of ours
            (admin.ListBrandsRequest(order_by=3), "order_by"),  # type: ignore[arg-type] # the same
            (admin.ListSourcesRequest(state=4), "state"),  # type: ignore[arg-type] # the same
        ],
    )
    def test_unknown_choice(self, request_: admin.ListBrandsRequest | admin.ListSourcesRequest, field: str) -> None:
        """A state or order that this server does not know is refused: it must not be taken for all."""
        read = wire.brands_asked if isinstance(request_, admin.ListBrandsRequest) else wire.sources_asked
        with pytest.raises(PageError) as caught:
            read(request_)  # type: ignore[arg-type] # the one that reads it

        assert caught.value.field == field
