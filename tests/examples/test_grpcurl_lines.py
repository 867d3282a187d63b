"""The grpcurl lines of README.md do what it says, against a server process and by its reflection.

grpcurl itself is in none of PyPI, npm and Debian, so each request always travels by `buf curl`, another
implementation of gRPC and of reflection in Go; where a grpcurl is on the PATH the line runs as it stands, too.
"""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from iyscheck.client.calls import TARGET
from tests.examples.conftest import PACKAGES, ROOT, Served, in_environment

SERVICE = "iyscheck.v1.ConsentCheckService"
METHODS = ("Check", "BatchCheck", "CheckFrame", "StreamCheck", "GetServerInfo")
FIELDS = ("brand_code", "channel", "recipient_type", "message_class", "retailer_code")

EXPECTED: dict[str, object] = {
    f"{SERVICE}/Check": [
        {
            "reason": "REASON_CONSENTED",
            "permitted": True,
            "messageClass": "MESSAGE_CLASS_COMMERCIAL",
            "evidence": {"status": "CONSENT_STATUS_ONAY", "source": "HS_WEB", "consentTime": "2024-05-02 10:00:00"},
        }
    ],
    f"{SERVICE}/BatchCheck": [
        {
            "items": [
                {"result": {"reason": "REASON_CONSENTED", "permitted": True}},
                {"result": {"reason": "REASON_MERCHANT_NOT_REFUSED", "permitted": True}},
            ],
        }
    ],
    f"{SERVICE}/StreamCheck": [
        {
            "frameId": "1",
            "reasons": "AUk=",  # 1 and 73
            "counts": [
                {"reason": "REASON_CONSENTED", "recipients": 1},
                {"reason": "REASON_NO_CONSENT", "recipients": 1},
            ],
        }
    ],
    f"{SERVICE}/CheckFrame": [{"frameId": "1", "reasons": "AUk="}],
    f"{SERVICE}/GetServerInfo": [
        {"takesAddresses": True, "limits": {"maxBatchQuestions": 10_000, "maxFrameRecipients": 65_536}}
    ],
    "iyscheck.v1.AdminService/GetStatus": [{"limits": {"maxFrameRecipients": 65_536}}],
    "grpc.health.v1.Health/Check": [{"status": "SERVING"}],
    f"list {SERVICE}": {f"{SERVICE}.{method}" for method in METHODS},
    "describe iyscheck.v1.Question": {*FIELDS, "address", "token", "address_key_id"},
}
"""What each line has to say: replies (at least these fields), or a set of names."""


@dataclass(frozen=True)
class Line:
    """One grpcurl command: as it stands, and what it asks for."""

    text: str
    data: str | None
    target: str
    asked: str

    @classmethod
    def of(cls, text: str) -> "Line":
        """Read a command."""
        words = shlex.split(text.replace("\\\n", " "))
        assert words[:2] == ["grpcurl", "-plaintext"]
        data = words[3] if words[2] == "-d" else None
        target, *asked = words[2 if data is None else 4 :]
        return cls(text=text, data=data, target=target, asked=" ".join(asked))

    def by_buf(self, target: str) -> object:
        """Ask the same of a server by `buf curl`, or by its reflection where that has no such command."""
        verb, _, symbol = self.asked.rpartition(" ")
        if verb == "describe":
            return reflected_fields(target, symbol)
        buf = [str(PACKAGES / ".bin" / "buf"), "curl", "--protocol=grpc", "--http2-prior-knowledge"]
        if verb == "list":
            ran = in_environment(*buf, "--list-methods", f"http://{target}")
            assert ran.returncode == 0, ran.stderr
            return {line.replace("/", ".") for line in ran.stdout.splitlines() if line.startswith(f"{symbol}/")}
        ran = in_environment(*buf, *(["-d", self.data] if self.data else []), f"http://{target}/{self.asked}")
        assert ran.returncode == 0, ran.stderr
        return list(documents(ran.stdout))

    def by_grpcurl(self, target: str) -> object:
        """Run the line as it stands but for the port."""
        ran = in_environment("bash", "-c", self.text.replace(self.target, target))
        assert ran.returncode == 0, ran.stderr
        if self.asked.startswith("list "):
            return set(ran.stdout.split())
        if self.asked.startswith("describe "):
            return set(re.findall(r"^ +(?:optional )?[.\w]+ (\w+) = \d+;", ran.stdout, re.MULTILINE))
        return list(documents(ran.stdout))


def reflected_fields(target: str, symbol: str) -> set[str]:
    """Ask a server's reflection for the fields of a message."""
    with grpc.insecure_channel(target) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        return {field.name for field in pool.FindMessageTypeByName(symbol).fields}


def documents(text: str) -> Iterator[object]:
    """Read one JSON document after the other."""
    decoder, rest = json.JSONDecoder(), text.strip()
    while rest:
        document, end = decoder.raw_decode(rest)
        yield document
        rest = rest[end:].strip()


def lines_of(readme: str) -> list[Line]:
    """Find the commands of the block under "grpcurl"."""
    found = re.search(r"^\*\*grpcurl\*\*.*\n\n((?:    .*\n)+)", readme, re.MULTILINE)
    assert found, "README.md has no block of grpcurl lines"
    return [Line.of(text) for text in re.split(r"\n(?=    grpcurl )", found[1].rstrip())]


def part_of(said: object, expected: object) -> object:
    """What was said, without the fields of objects that nothing is expected of."""
    if isinstance(said, dict) and isinstance(expected, dict):
        return {name: part_of(value, expected[name]) for name, value in said.items() if name in expected}
    if isinstance(said, list) and isinstance(expected, list) and len(said) == len(expected):
        return [part_of(one, other) for one, other in zip(said, expected, strict=True)]
    return said


LINES = lines_of((ROOT / "README.md").read_text())


def test_all() -> None:
    """The block has the lines that are expected, for the port that `iyscheck serve` listens on."""
    assert {line.asked for line in LINES} == set(EXPECTED)
    assert len(LINES) == len(EXPECTED)
    assert {line.target for line in LINES} == {TARGET}


@pytest.mark.parametrize("line", LINES, ids=[line.asked for line in LINES])
def test_line(line: Line, served: Served) -> None:
    """A line's answer is the right one."""
    expected = EXPECTED[line.asked]
    asking = [line.by_buf] if shutil.which("grpcurl") is None else [line.by_buf, line.by_grpcurl]

    for ask in asking:
        assert part_of(ask(served.target), expected) == expected


def test_unknown_field(served: Served) -> None:
    """A field that the contract does not have is refused by what the reflection tells."""
    line = Line.of(f"""grpcurl -plaintext -d '{{"question":{{"brand":600123}}}}' {TARGET} {SERVICE}/Check""")

    with pytest.raises(AssertionError, match="brand"):
        line.by_buf(served.target)
