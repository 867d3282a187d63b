"""Envoy in front of real servers: the same questions by gRPC and by JSON have the same answers as without it."""

import json
import runpy
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email.message import Message as Headers
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, json_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped] # it ships no types
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from iyscheck import address
from iyscheck.callers.identity import NewKey
from iyscheck.consent import Channel
from iyscheck.question import MAX_MESSAGE_BYTES
from iyscheck.server.calls import SERVICE
from iyscheck.v1 import consent_check_pb2 as v1
from tests.builders import ADDRESS_KEY, StoreBuilder
from tests.deploy.conftest import DEPLOY, SERVER_PORT, document, program
from tests.server.conftest import CONSENTED, REFUSED, STALE_BRAND, UNKNOWN, Served, Site, make_site, serve
from tests.server.test_tls import made

CONFIGURATION = document(DEPLOY / "envoy" / "envoy.yaml")
PATIENCE_S: Final = 60.0
HTTP: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
}
"""How google.rpc says them by HTTP."""
MESAJ, BIREYSEL = v1.CHANNEL_MESAJ, v1.RECIPIENT_TYPE_BIREYSEL


def transcoder() -> dict[str, Any]:
    """Find the filter that makes gRPC of JSON."""
    (found,) = (each["typed_config"] for each in filters()[0]["http_filters"] if "transcoder" in each["name"])
    return dict(found)


def filters() -> list[dict[str, Any]]:
    """Find the connection manager."""
    return [each["typed_config"] for each in chain()["filters"]]


def chain() -> Any:  # noqa: ANN401 - YAML
    """Find what a connection goes through."""
    return CONFIGURATION["static_resources"]["listeners"][0]["filter_chains"][0]


class TestFile:
    """The file by itself, without Envoy."""

    def test_health(self) -> None:
        """Servers are probed by the empty name, never by freshness, and asked at their port."""
        (cluster,) = CONFIGURATION["static_resources"]["clusters"]
        (check,) = cluster["health_checks"]
        (place,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]

        assert check["grpc_health_check"] == {"service_name": ""}
        assert place["endpoint"]["address"]["socket_address"]["port_value"] == SERVER_PORT
        assert cluster["lb_policy"] == "LEAST_REQUEST"

    def test_transcoder(self) -> None:
        """JSON is for our service and no other, as large as its messages, and says also what is false."""
        assert transcoder()["services"] == [SERVICE]
        assert {transcoder()[f"max_{each}_body_size"] for each in ("request", "response")} == {MAX_MESSAGE_BYTES}
        assert transcoder()["print_options"] == {"always_print_primitive_fields": True}
        for route in filters()[0]["route_config"]["virtual_hosts"][0]["routes"]:
            assert next(iter(route["match"].values())).startswith(f"/{SERVICE}/")

    def test_descriptor(self) -> None:
        """The descriptor has the contract as it is installed, and the details of errors, each after what it needs."""
        content = runpy.run_path(str(DEPLOY / "envoy" / "descriptor.py"))["descriptor"]()
        pool = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(content).file:
            pool.Add(file)

        found = pool.FindServiceByName(SERVICE)
        assert [method.name for method in found.methods] == list(
            v1.DESCRIPTOR.services_by_name["ConsentCheckService"].methods_by_name
        )
        for name in ("ErrorInfo", "BadRequest", "RetryInfo"):
            assert pool.FindMessageTypeByName(f"google.rpc.{name}")


@dataclass(frozen=True)
class Front:
    """A running Envoy, and a server behind it that is asked directly as well."""

    direct: Served
    channel: grpc.Channel
    address: str
    admin: str
    secure: ssl.SSLContext
    key: str

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What a caller shows."""
        return (("authorization", f"Bearer {self.key}"),) if self.key else ()

    def post(self, path: str, body: bytes, key: str | None = None) -> tuple[int, str, Headers]:
        """Ask by HTTP; gives code, body and headers."""
        request = urllib.request.Request(f"https://{self.address}{path}", data=body, method="POST")
        request.add_header("content-type", "application/json")
        request.add_header("authorization", f"Bearer {self.key if key is None else key}")
        try:
            with urllib.request.urlopen(request, timeout=20, context=self.secure) as answer:  # noqa: S310 - our own address
                return answer.status, answer.read().decode(), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(), error.headers

    def asked(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """Ask Envoy about itself."""
        return json.loads(fetched(f"{self.admin}{path}"))

    def healthy(self) -> dict[int, bool]:
        """Whether Envoy takes each server for healthy, by its port: Envoy lists them in an order of its own."""
        (cluster,) = self.asked("/clusters?format=json")["cluster_statuses"]
        return {
            each["address"]["socket_address"]["port_value"]: (
                each["health_status"].get("eds_health_status") == "HEALTHY"
                and "failed_active_health_check" not in each["health_status"]
            )
            for each in cluster["host_statuses"]
        }


def fetched(place: str) -> str:
    """Read a page of Envoy's own."""
    with urllib.request.urlopen(f"http://{place}", timeout=20) as page:
        return str(page.read().decode())


def eventually(holds: Any, what: Path) -> Any:  # noqa: ANN401 - whatever is waited for
    """Wait until something is there."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            if found := holds():
                return found
        except (OSError, KeyError, ValueError):
            pass
        assert time.monotonic() < until, what.read_text()
        time.sleep(0.1)


@contextmanager
def fronted(folder: Path, servers: list[str], certs: Path) -> Iterator[tuple[str, str]]:
    """Run Envoy by our file, with the test's addresses and files; gives its address and that of its own pages."""
    envoy, text = program("envoy"), json.dumps(CONFIGURATION)
    (folder / "iyscheck.pb").write_bytes(runpy.run_path(str(DEPLOY / "envoy" / "descriptor.py"))["descriptor"]())
    for ours, theirs in (
        ("/etc/envoy/iyscheck.pb", folder / "iyscheck.pb"),
        ("/etc/envoy/tls", certs),
        ('"address": "0.0.0.0"', '"address": "127.0.0.1"'),
        ('"port_value": 8443', '"port_value": 0'),
        ('"port_value": 9901', '"port_value": 0'),
        ('interval": "2s"', 'interval": "0.2s"'),
    ):
        assert str(ours) in text
        text = text.replace(str(ours), str(theirs))
    configuration = json.loads(text)
    endpoints = configuration["static_resources"]["clusters"][0]["load_assignment"]["endpoints"][0]
    endpoints["lb_endpoints"] = [
        {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}
        for host, _, port in (server.rpartition(":") for server in servers)
    ]
    file, admin, log = folder / "envoy.yaml", folder / "admin", folder / "envoy.log"
    file.write_text(yaml.safe_dump(configuration))
    command = [envoy, "--config-path", str(file), "--admin-address-path", str(admin), "--disable-hot-restart"]
    command += ["--concurrency", "1", "--log-level", "warning"]
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stderr=stderr, stdout=stderr)
    try:
        own = eventually(lambda: admin.exists() and admin.read_text(), log)
        found = eventually(lambda: json.loads(fetched(f"{own}/listeners?format=json"))["listener_statuses"], log)
        port = found[0]["local_address"]["socket_address"]["port_value"]
        yield f"localhost:{port}", own
    finally:
        process.terminate()
        process.wait(60)


def opened(address: str, certs: Path) -> tuple[grpc.Channel, ssl.SSLContext]:
    """Trust the test's CA, in both ways of asking."""
    credentials = grpc.ssl_channel_credentials((certs / "ca.pem").read_bytes())
    return grpc.secure_channel(address, credentials), ssl.create_default_context(cafile=str(certs / "ca.pem"))


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """A server with callers, and Envoy in front of it."""
    folder = tmp_path_factory.mktemp("front")
    site, certs, key = make_site(folder), made(folder / "certs"), NewKey.create()
    callers = folder / "callers.toml"
    callers.write_text(f'[caller.acme]\nkeys = ["{key.key.line}"]\nbrands = [1, 2]\naddresses = true\n')
    callers.chmod(0o600)
    with ExitStack() as parts:
        served = parts.enter_context(serve(site, callers=callers))
        address, admin = parts.enter_context(fronted(folder, [served.server.address], certs))
        channel, secure = opened(address, certs)
        parts.callback(channel.close)
        found = Front(served, channel, address, admin, secure, key.text)
        eventually(lambda: all(found.healthy().values()), folder / "envoy.log")
        yield found


def question(brand: int = 1, recipient: str = CONSENTED, **changes: Any) -> v1.Question:  # noqa: ANN401 - any field
    """Ask about one recipient."""
    fields: dict[str, Any] = {"brand_code": brand, "channel": MESAJ, "recipient_type": BIREYSEL}
    return v1.Question(**fields | ({} if "token" in changes else {"address": recipient}) | changes)


TOKEN = address.token(CONSENTED, Channel.MESAJ, ADDRESS_KEY)
QUESTIONS: Final[dict[str, tuple[str, Message]]] = {
    "consented": ("Check", v1.CheckRequest(question=question())),
    "refused": ("Check", v1.CheckRequest(question=question(recipient=REFUSED))),
    "unknown status": ("Check", v1.CheckRequest(question=question(recipient=UNKNOWN))),
    "no record": ("Check", v1.CheckRequest(question=question(recipient="+905329999999"))),
    "merchant": ("Check", v1.CheckRequest(question=question(recipient_type=v1.RECIPIENT_TYPE_TACIR))),
    "unreadable": ("Check", v1.CheckRequest(question=question(recipient="nobody"))),
    "stale": ("Check", v1.CheckRequest(question=question(STALE_BRAND))),
    "exempt": (
        "Check",
        v1.CheckRequest(question=question(STALE_BRAND, message_class=v1.MESSAGE_CLASS_SECURITY_CODE)),
    ),
    "large code": ("Check", v1.CheckRequest(question=question(retailer_code=2**63))),
    "token": ("Check", v1.CheckRequest(question=question(token=TOKEN, address_key_id=ADDRESS_KEY.key_id))),
    "another key's token": ("Check", v1.CheckRequest(question=question(token=TOKEN, address_key_id=b"12345678"))),
    "info": ("GetServerInfo", v1.GetServerInfoRequest()),
    "no channel": ("Check", v1.CheckRequest(question=question(channel=v1.CHANNEL_UNSPECIFIED))),
    "brand out of scope": ("Check", v1.CheckRequest(question=question(600_999))),
    "other log": (
        "Check",
        v1.CheckRequest(question=question(), min_position=v1.Position(log_id=b"x" * 16, sequence=1)),
    ),
    "batch": (
        "BatchCheck",
        v1.BatchCheckRequest(
            questions=[
                question(),
                question(recipient=REFUSED),
                question(channel=v1.CHANNEL_UNSPECIFIED),
                question(600_999),
            ]
        ),
    ),
    "frame": (
        "CheckFrame",
        v1.StreamCheckRequest(
            frame_id=7,
            brand_code=1,
            channel=MESAJ,
            recipient_type=BIREYSEL,
            addresses=[CONSENTED, REFUSED, UNKNOWN, "nobody"] * 500,
        ),
    ),
    "bad frame": ("CheckFrame", v1.StreamCheckRequest(frame_id=8, brand_code=1)),
}


def outcome(front: Front, channel: grpc.Channel, method: str, request: Message) -> Message:
    """Ask by gRPC; gives the answer, or the error with its details."""
    answer: Any = getattr(v1, f"{ANSWERS[method]}")
    call: Any = channel.unary_unary(
        f"/{SERVICE}/{method}",
        request_serializer=lambda m: m.SerializeToString(),
        response_deserializer=answer.FromString,
    )
    try:
        return comparable(call(request, timeout=20, metadata=front.metadata))
    except grpc.RpcError as error:
        return status_of(error)


def status_of(error: Any) -> Message:  # noqa: ANN401 - gRPC's error is a call, too
    """Read an error with its details."""
    status: Message | None = rpc_status.from_call(error)
    assert status is not None, error
    return status


ANSWERS: Final = {
    "Check": "CheckResponse",
    "BatchCheck": "BatchCheckResponse",
    "CheckFrame": "StreamCheckResponse",
    "GetServerInfo": "GetServerInfoResponse",
}
OF_THE_MOMENT: Final = ("decision_id", "valid_until")


def comparable(message: Message) -> Message:
    """Take away what differs from moment to moment, wherever it stands."""
    for field, value in message.ListFields():
        if field.name in OF_THE_MOMENT:
            message.ClearField(field.name)
        elif field.message_type is not None:
            for each in value if isinstance(value, (list,)) or hasattr(value, "add") else [value]:
                if isinstance(each, Message):
                    comparable(each)
    return message


@pytest.mark.thorough
class TestRun:
    """The real Envoy."""

    @pytest.mark.parametrize("name", QUESTIONS)
    def test_same(self, front: Front, name: str) -> None:
        """Answer or error, with all details, is the same asked directly, through Envoy, and by JSON."""
        method, request = QUESTIONS[name]
        direct = outcome(front, front.direct.channel, method, request)
        code, body, headers = front.post(f"/{SERVICE}/{method}", json_format.MessageToJson(request).encode())

        assert outcome(front, front.channel, method, request) == direct
        if isinstance(direct, status_pb2.Status):
            by_json: Message = json_format.Parse(body, status_pb2.Status())
            expected = HTTP[next(each for each in grpc.StatusCode if each.value[0] == direct.code)]
        else:
            by_json = comparable(json_format.Parse(body, getattr(v1, ANSWERS[method])()))
            expected = 200
        assert (code, by_json) == (expected, direct)
        assert headers["content-type"] == "application/json"

    def test_denial_is_said(self, front: Front) -> None:
        """A denial says `permitted: false` rather than nothing."""
        _, body, _ = front.post(
            f"/{SERVICE}/Check",
            json_format.MessageToJson(v1.CheckRequest(question=question(recipient=REFUSED))).encode(),
        )

        assert '"permitted":false' in body.replace(" ", "")
        assert REFUSED not in body

    @pytest.mark.parametrize("key", ["", "iys_acme_wrong"])
    def test_no_key(self, front: Front, key: str) -> None:
        """Who shows no key, or a wrong one, is told so by JSON as by gRPC."""
        request = json_format.MessageToJson(v1.CheckRequest(question=question())).encode()
        code, body, _ = front.post(f"/{SERVICE}/Check", request, key)
        status = json_format.Parse(body, status_pb2.Status())
        info = error_details_pb2.ErrorInfo()

        assert code == 401
        assert status.details[0].Unpack(info)
        assert info.domain == "iyscheck.v1"

    @pytest.mark.parametrize(
        ("path", "body", "code"),
        [
            (f"/{SERVICE}/Check", b"{", 400),
            (f"/{SERVICE}/Check", b'{"question": {"brandCod": 1}}', 400),
            (f"/{SERVICE}/Check?brand=1", b"{}", 400),
            (f"/{SERVICE}/StreamCheck", b"[]", 404),
            (f"/{SERVICE}/Nothing", b"{}", 404),
            ("/grpc.health.v1.Health/Check", b"{}", 404),
            ("/", b"{}", 404),
        ],
    )
    def test_refused(self, front: Front, path: str, body: bytes, code: int) -> None:
        """What is no question of ours is refused, a misspelt field too, and no other service is reached."""
        assert front.post(path, body)[0] == code

    def test_stream(self, front: Front) -> None:
        """A stream of gRPC goes through, frame by frame, in order."""
        frames = [
            v1.StreamCheckRequest(
                frame_id=number,
                brand_code=1,
                channel=MESAJ,
                recipient_type=BIREYSEL,
                addresses=[CONSENTED, REFUSED],
            )
            for number in range(1, 101)
        ]
        call: Any = front.channel.stream_stream(
            f"/{SERVICE}/StreamCheck",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=v1.StreamCheckResponse.FromString,
        )

        replies = list(call(iter(frames), timeout=20, metadata=front.metadata))

        assert [reply.frame_id for reply in replies] == list(range(1, 101))
        assert {bytes(reply.reasons) for reply in replies} == {bytes([v1.REASON_CONSENTED, v1.REASON_REFUSED])}

    def test_health_is_not_shown(self, front: Front) -> None:
        """Envoy's callers do not reach the health of the servers."""
        with pytest.raises(grpc.RpcError) as refused:
            health_pb2_grpc.HealthStub(front.channel).Check(  # type: ignore[attr-defined] # the stubs lack it
                health_pb2.HealthCheckRequest(), timeout=20
            )

        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def stale_site(folder: Path) -> Site:
    """Make a store whose only brand has no watermark, with the keys of `make_site`."""
    folder.mkdir()
    site = make_site(folder)
    for file in (folder / "store").iterdir():
        file.unlink()
    with StoreBuilder(folder / "store") as store:
        store.brand(1, watermark=None)
        store.commit()
    return site


@pytest.mark.thorough
def test_stale_and_gone(tmp_path: Path) -> None:
    """Stale servers stay in the balance, and answer exempt messages; one that ends is left out, and callers go on."""
    certs = made(tmp_path / "certs")
    with ExitStack() as parts:
        ends, servers = [], []
        for name in ("one", "two"):
            own = parts.enter_context(ExitStack())
            served = own.enter_context(serve(stale_site(tmp_path / name)))
            servers.append(served.server.address)
            ends.append(own)
        address, admin = parts.enter_context(fronted(tmp_path, servers, certs))
        channel, secure = opened(address, certs)
        parts.callback(channel.close)
        front = Front(served, channel, address, admin, secure, "")
        one, two = (int(server.rpartition(":")[2]) for server in servers)
        eventually(lambda: front.healthy() == {one: True, two: True}, tmp_path / "envoy.log")
        method = "Check"
        request = v1.CheckRequest(question=question(message_class=v1.MESSAGE_CLASS_SECURITY_CODE))
        body = json_format.MessageToJson(request).encode()
        assert '"REASON_EXEMPT_MESSAGE"' in front.post(f"/{SERVICE}/{method}", body)[1]

        ends[0].close()
        eventually(lambda: front.healthy() == {one: False, two: True}, tmp_path / "envoy.log")
        for _ in range(20):
            code, said, _ = front.post(f"/{SERVICE}/{method}", body)
            assert code == 200, (said, front.healthy())
        ends[1].close()
        eventually(lambda: front.healthy() == {one: False, two: False}, tmp_path / "envoy.log")
        code, said, _ = front.post(f"/{SERVICE}/{method}", body)
        assert code == 503
        assert "permitted" not in said
