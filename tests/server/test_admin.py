"""What a server tells whoever operates it: over real calls, with and without a callers file."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from iyscheck import wire
from iyscheck.callers.identity import NewKey
from iyscheck.client import AsyncClient, Client
from iyscheck.consent import Channel
from iyscheck.engine.inspection import Inspection
from iyscheck.errors import ServiceRefusedError
from iyscheck.overview import BrandOrder, BrandOverview, BrandState, CallerOverview, Loaded, SourceOverview
from iyscheck.server.settings import Settings
from iyscheck.store.layout import RejectedRow, SourceState
from iyscheck.v1 import admin_pb2 as admin
from iyscheck.v1.admin_pb2_grpc import AdminServiceStub
from tests.builders import SECRETS, StoreBuilder, a_batch
from tests.server.conftest import CONSENTED, STALE_BRAND, Served, Site, make_site, serve
from tests.server.gated import COMMERCIAL, QUESTIONS, Asked, bearer, context, ending, write
from tests.server.processes.running import eventually

OPS, ACME = NewKey.create(), NewKey.create()
BRANDS = range(600_001, 600_151)
FILE = f"""
[caller.ops]
keys = ["{OPS.key.line}"]
certificates = ["dns:ops.example", "dns:*.ops.example"]
brands = []
calls = ["admin"]

[caller.acme]
keys = ["{ACME.key.line}"]
brands = [{", ".join(map(str, BRANDS))}]
channels = ["MESAJ"]
rate = 50
streams = 2

[caller."zeta.all"]
certificates = ["dns:zeta.example"]
brands = "all"
addresses = true
"""
CUT, SHORT, ODD = "AQEAAf", "x", "é"
HEALTH = {"", "iyscheck.v1.ConsentCheckService", "iyscheck.v1.ConsentCheckService/fresh"}


@pytest.fixture(name="site", scope="module")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A store with two brands, one without watermark, and a source with rejected rows that wait."""
    site = make_site(tmp_path_factory.mktemp("admin"))
    with StoreBuilder(site.path / "store") as store:
        state = SourceState(
            name="/feeds/today.jsonl",
            rows=5,
            rejected=2,
            rejected_brands=(1,),
            watermarks=((1, 2**31),),
            first_rejects=(RejectedRow(3, "recipient", "INVALID_ADDRESS"), RejectedRow(4, "", "MALFORMED")),
        )
        store.writer.apply(a_batch(rows=5), state, finished=True)
    return site


@pytest.fixture(name="served", scope="module")
def _served(site: Site) -> Iterator[Served]:
    """A server without a callers file."""
    with serve(site, max_streams=7, metrics_listen="127.0.0.1:0") as running:
        yield running


@pytest.fixture(name="gated", scope="module")
def _gated(site: Site) -> Iterator[Served]:
    """A server with one."""
    file = write(site.path / "callers.toml", FILE)
    with serve(site, callers=file) as running:
        yield running


@pytest.fixture(name="client", scope="module")
def _client(served: Served) -> Iterator[Client]:
    with Client(served.server.address) as made:
        yield made


@pytest.fixture(name="ops", scope="module")
def _ops(gated: Served) -> Iterator[Client]:
    with Client(gated.server.address, api_key=OPS.text) as made:
        yield made


class TestStatus:
    """What a glance shows."""

    def test_store(self, served: Served, client: Client) -> None:
        """Position, brands by state, what waits, size and index are the store's."""
        overview = client.admin.status()

        store = overview.store
        assert store is not None
        assert overview.store_error == ""
        assert store.position == served.server.engine.freshness().position
        assert {state: brands for state, brands in store.brands.items() if brands} == {
            BrandState.FRESH: 1,
            BrandState.NONE: 1,
        }
        assert set(store.brands) == set(BrandState) - {BrandState.UNSPECIFIED}
        assert (store.withheld_brands, store.sources_held, store.rejected_rows_waiting) == (1, 1, 2)
        assert store.size.records == 3
        assert overview.index.pages_not_taken == 0

    def test_server(self, client: Client) -> None:
        """Health's names, versions, policy, limits and the process that answered."""
        overview = client.admin.status()
        info = client.server_info()

        assert overview.serving == dict.fromkeys(HEALTH, True)
        assert (overview.build.version, overview.build.kernel) == (info.server_version, info.kernel)
        assert overview.build.grpc_version == grpc.__version__
        assert (overview.policy, overview.answer_ttl_s) == (info.policy, info.answer_ttl_s)
        assert {name: getattr(info, name) for name in overview.limits} == overview.limits
        assert len(overview.limits) == 5
        assert (overview.worker.number, overview.worker.workers) == (0, 1)
        assert 0 < overview.answered_at - overview.worker.started_at < 3_600
        assert overview.callers is None

    def test_settings(self, site: Site, client: Client) -> None:
        """Numbers and switches are told as they are set; paths, addresses and whatever is secret are not."""
        settings = client.admin.status().settings

        assert (settings["max_streams"], settings["insecure"], settings["log_level"]) == ("7", "false", "info")
        assert not set(settings) & {
            "store",
            "store_key",
            "address_key",
            "listen",
            "native_listen",
            "tls_key",
            "callers",
        }
        told = {name for name, field in Settings.model_fields.items() if field.annotation in (int, float, bool)}
        assert set(settings) == told | {"legacy_deadline", "log_level"}
        assert str(site.path) not in repr(settings)

    def test_unreadable_store(self, tmp_path: Path) -> None:
        """A store that cannot be read is told by its reason, beside all that needs no store."""
        site = make_site(tmp_path)
        with serve(site) as served, Client(served.server.address) as client:
            (site.path / "store").rename(site.path / "away")
            eventually(lambda: bool(served.events("store_unreadable")), "nobody notices")

            overview = client.admin.status()

            assert (overview.store, overview.store_error) == (None, "STORE_MISSING")
            assert overview.serving == dict.fromkeys(HEALTH, False)
            with pytest.raises(grpc.RpcError) as caught:
                AdminServiceStub(served.channel).ListBrands(admin.ListBrandsRequest(), timeout=5)
            assert ending(caught.value) == ("UNAVAILABLE", "STORE_MISSING")
            assert str(site.path) not in str(caught.value.details())

    def test_callers(self, ops: Client) -> None:
        """With a callers file it is told how many are in force, and whether the file can be used."""
        callers = ops.admin.status().callers

        assert callers is not None
        assert (callers.callers, callers.file_usable) == (3, True)

    def test_unusable_callers_file(self, tmp_path: Path) -> None:
        """An edit with a mistake is told; those of before stay in force."""
        site = make_site(tmp_path)
        file = write(site.path / "callers.toml", FILE)
        with serve(site, callers=file) as served, Client(served.server.address, api_key=OPS.text) as client:
            write(file, FILE + "\n[caller.odd]\nbrand = 1\n")
            eventually(lambda: bool(served.events("callers_file_refused")), "nobody reads it")

            callers = client.admin.status().callers

            assert callers is not None
            assert (callers.callers, callers.file_usable) == (3, False)


class TestLists:
    """Brands, sources and callers, page by page."""

    def test_brands(self, client: Client) -> None:
        """Each brand with its state, and what holds it back."""
        first, second = client.admin.all_brands()

        assert (first.brand, first.state, first.records) == (1, BrandState.FRESH, 3)
        assert (first.withheld, first.held_by, first.sources_holding) == (2**31, ("/feeds/today.jsonl",), 1)
        assert (second.brand, second.state, second.watermark) == (STALE_BRAND, BrandState.NONE, None)

    def test_brand_pages(self, client: Client) -> None:
        """The next page begins behind the one before; the filter and the order go with it."""
        page = client.admin.brands(page_size=1, order=BrandOrder.WATERMARK)
        rest = client.admin.brands(page_size=1, order=BrandOrder.WATERMARK, token=page.next_token)

        assert [brand.brand for brand in (*page.items, *rest.items)] == [STALE_BRAND, 1]
        assert rest.next_token == ""
        assert [brand.brand for brand in client.admin.all_brands(state=BrandState.NONE)] == [STALE_BRAND]

    def test_sources(self, client: Client) -> None:
        """Each source, and of the rejected rows where they are and what is wrong."""
        held, other = sorted(client.admin.all_sources(), key=lambda source: source.name)

        assert (held.name, held.state, held.rows, held.loaded) == ("/feeds/today.jsonl", Loaded.HELD, 5, 3)
        assert [(row.line, row.field, row.reason) for row in held.rejects] == [
            (3, "recipient", "INVALID_ADDRESS"),
            (4, "", "MALFORMED"),
        ]
        assert (other.name, other.state, other.rejects) == ("test", Loaded.FINISHED, ())
        assert [source.name for source in client.admin.all_sources(state=Loaded.HELD)] == ["/feeds/today.jsonl"]
        assert client.admin.sources(page_size=1).next_token

    def test_callers(self, ops: Client) -> None:
        """Each caller with its scope, and how many keys and certificates name it, but none of them."""
        acme, ours, everything = ops.admin.all_callers()

        assert (acme.name, acme.brand_count, acme.brands) == ("acme", 150, tuple(BRANDS[:100]))
        assert (acme.channels, acme.rate, acme.streams, acme.addresses) == ((Channel.MESAJ,), 50, 2, False)
        assert acme.calls == ("batch", "check", "frame", "info", "stream")
        assert (acme.keys, acme.certificates) == (1, 0)
        assert (ours.name, ours.brand_count, ours.calls, ours.certificates) == ("ops", 0, ("admin",), 2)
        assert (everything.name, everything.brand_count, everything.rate) == ("zeta.all", None, None)
        assert (everything.channels, everything.addresses, everything.streams) == (tuple(Channel), True, None)

    def test_caller_pages(self, ops: Client) -> None:
        """Pages of callers go on behind a name, also where that caller is gone."""
        page = ops.admin.callers(page_size=1)
        rest = ops.admin.callers(page_size=5, token=page.next_token)

        assert [caller.name for caller in (*page.items, *rest.items)] == ["acme", "ops", "zeta.all"]
        assert rest.next_token == ""

    def test_no_callers_file(self, client: Client) -> None:
        """Without a callers file there is nobody to list."""
        assert list(client.admin.all_callers()) == []

    def test_refusals(self, gated: Served, ops: Client) -> None:
        """What a caller was refused is counted by reason, since this process started."""

        def refusals() -> dict[str, int]:
            return dict(next(caller for caller in ops.admin.all_callers() if caller.name == "acme").refusals)

        before = refusals()
        for asked in (
            Asked(context(1, Channel.MESAJ, COMMERCIAL), plaintext=False),
            Asked(context(BRANDS[0], Channel.ARAMA, COMMERCIAL), plaintext=False),
            Asked(context(BRANDS[0], Channel.MESAJ, COMMERCIAL), plaintext=True),
        ):
            with pytest.raises(grpc.RpcError):
                gated.stub.Check(wire.check_request(asked.question), timeout=5, metadata=bearer(ACME.text))
        with pytest.raises(grpc.RpcError):
            AdminServiceStub(gated.channel).GetStatus(admin.GetStatusRequest(), timeout=5, metadata=bearer(ACME.text))

        after = refusals()
        assert {reason: times - before.get(reason, 0) for reason, times in after.items()} == {
            "BRAND_NOT_IN_SCOPE": 1,
            "CHANNEL_NOT_IN_SCOPE": 1,
            "ADDRESSES_NOT_ALLOWED": 1,
            "CALL_NOT_ALLOWED": 1,
        }

    def test_in_asyncio(self, served: Served, client: Client) -> None:
        """The client for asyncio gives the same."""

        async def everything() -> tuple[Any, list[BrandOverview], list[SourceOverview], list[CallerOverview]]:
            async with AsyncClient(served.server.address) as asking:
                return (
                    (await asking.admin.status()).store,
                    [brand async for brand in asking.admin.all_brands(state=BrandState.NONE)],
                    [source async for source in asking.admin.all_sources(state=Loaded.HELD)],
                    [caller async for caller in asking.admin.all_callers()],
                )

        store, brands, sources, callers = asyncio.run(everything())

        assert store.brands == client.admin.status().store.brands  # type: ignore[union-attr] # it is there
        assert brands == list(client.admin.all_brands(state=BrandState.NONE))
        assert sources == list(client.admin.all_sources(state=Loaded.HELD))
        assert callers == []


class TestRefusals:
    """What is wrong with a request is told, with the field; and nobody is told anything without the right."""

    @pytest.mark.parametrize(
        ("method", "request_", "field"),
        [
            ("ListBrands", admin.ListBrandsRequest(page_size=1_001), "page_size"),
            ("ListBrands", admin.ListBrandsRequest(page_token=CUT), "page_token"),
            ("ListBrands", admin.ListBrandsRequest(state=9), "state"),  # type: ignore[arg-type] # no number of ours
            ("ListSources", admin.ListSourcesRequest(page_token=SHORT), "page_token"),
            ("ListCallers", admin.ListCallersRequest(page_token=ODD), "page_token"),
        ],
    )
    def test_bad_page(self, client: Client, served: Served, method: str, request_: Any, field: str) -> None:  # noqa: ANN401 - any request
        """A page that cannot be given is INVALID_ARGUMENT with the field at fault, for clients as by the wire."""
        with pytest.raises(grpc.RpcError) as caught:
            getattr(AdminServiceStub(served.channel), method)(request_, timeout=5)

        assert ending(caught.value) == ("INVALID_ARGUMENT", "INVALID_PAGE")
        if method == "ListSources":
            with pytest.raises(ServiceRefusedError) as refused:
                client.admin.sources(token=SHORT)
            assert (refused.value.code, refused.value.field) == ("INVALID_PAGE", field)

    @pytest.mark.parametrize("method", ["GetStatus", "ListBrands", "ListSources", "ListCallers"])
    def test_malformed(self, served: Served, method: str) -> None:
        """Bytes that are no request are refused as those of other calls are."""
        call: Any = served.channel.unary_unary(f"/iyscheck.v1.AdminService/{method}")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\xff", timeout=5)

        assert ending(caught.value) == ("INVALID_ARGUMENT", "MALFORMED_REQUEST")

    def test_right(self, gated: Served) -> None:
        """The right `admin` lets in here and nowhere else; every other caller stays out."""
        stub = AdminServiceStub(gated.channel)
        for call, request_ in (
            (stub.GetStatus, admin.GetStatusRequest()),
            (stub.ListBrands, admin.ListBrandsRequest()),
            (stub.ListSources, admin.ListSourcesRequest()),
            (stub.ListCallers, admin.ListCallersRequest()),
        ):
            for shown, ended in (
                (bearer(ACME.text), ("PERMISSION_DENIED", "CALL_NOT_ALLOWED")),
                ((), ("UNAUTHENTICATED", "CALLER_UNKNOWN")),
            ):
                ask: Any = call
                with pytest.raises(grpc.RpcError) as caught:
                    ask(request_, timeout=5, metadata=shown)
                assert ending(caught.value) == ended
        with pytest.raises(grpc.RpcError) as caught:
            gated.stub.Check(
                wire.check_request(QUESTIONS["1 MESAJ COMMERCIAL token"].question),
                timeout=5,
                metadata=bearer(OPS.text),
            )
        assert ending(caught.value) == ("PERMISSION_DENIED", "CALL_NOT_ALLOWED")


class TestApart:
    """Whoever operates a server disturbs nothing of it."""

    def test_hanging_call(self, served: Served, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        """While calls of the admin service hang, every kind of check and health are answered."""
        entered, over = threading.Event(), threading.Event()

        def hang(_: Inspection) -> None:
            entered.set()
            over.wait(30)

        monkeypatch.setattr(Inspection, "store", hang)
        stub: Any = AdminServiceStub(served.channel)
        hanging = [stub.GetStatus.future(admin.GetStatusRequest(), timeout=30) for _ in range(5)]
        try:
            assert entered.wait(20)
            who = QUESTIONS["1 MESAJ COMMERCIAL token"].question.context
            asked: dict[str, Any] = {"brand": who.brand, "channel": who.channel, "recipient_type": who.recipient_type}
            assert client.check(**asked, address=CONSENTED, timeout_s=20).permitted
            assert client.check_column(**asked, recipients=[CONSENTED], timeout_s=20).permitted.all()
            assert client.check_many([QUESTIONS["1 MESAJ COMMERCIAL token"].question], timeout_s=20)
            assert not any(each.done() for each in hanging)
        finally:
            for each in hanging:
                each.cancel()
            over.set()

    def test_not_counted(self, served: Served, client: Client) -> None:
        """No metric has a series of these calls: each would cost dozens of them."""
        client.admin.status()

        page = served.scrape()
        assert "AdminService" not in page
        assert "GetStatus" not in page

    def test_reflection(self, served: Served) -> None:
        """Reflection lists the service and knows its file."""
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(served.channel)
        ask = [
            reflection_pb2.ServerReflectionRequest(list_services="*"),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="iyscheck.v1.AdminService"),
        ]

        names, file = stub.ServerReflectionInfo(iter(ask), timeout=10)

        assert "iyscheck.v1.AdminService" in [each.name for each in names.list_services_response.service]
        assert file.file_descriptor_response.file_descriptor_proto

    def test_not_on_the_native_front(self, site: Site) -> None:
        """The native front brings checks only."""
        with serve(site, native_listen="127.0.0.1:0") as served:
            with (
                grpc.insecure_channel(served.server.native_address) as channel,
                pytest.raises(grpc.RpcError) as caught,
            ):
                AdminServiceStub(channel).GetStatus(admin.GetStatusRequest(), timeout=5)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

    def test_no_secret(self, gated: Served) -> None:
        """No address, token, tag, key, key's id or hash is in anything that is told, nor in the log."""
        stub = AdminServiceStub(gated.channel)
        shown = bearer(OPS.text)
        told = [
            stub.GetStatus(admin.GetStatusRequest(), timeout=5, metadata=shown),
            stub.ListBrands(admin.ListBrandsRequest(), timeout=5, metadata=shown),
            stub.ListSources(admin.ListSourcesRequest(), timeout=5, metadata=shown),
            stub.ListCallers(admin.ListCallersRequest(), timeout=5, metadata=shown),
        ]

        text = "".join(str(each) for each in told) + gated.log.getvalue()
        data = b"".join(each.SerializeToString() for each in told)
        for key in (OPS, ACME):
            for secret in (key.text, key.key.key_id, key.key.digest.hex()):
                assert secret not in text
                assert secret.encode() not in data
            assert key.key.digest not in data
        for secret_bytes in SECRETS.values():
            assert secret_bytes not in data
            assert secret_bytes.hex() not in text
        assert CONSENTED[3:] not in text
        assert len(text) > 1_000
