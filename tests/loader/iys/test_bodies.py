"""Bodies, whatever they are: a page or a fault that passes, and nothing else."""

import gzip
import json
from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iyscheck.consent import RecipientType
from loader.iys import bodies, decoding, failures
from loader.iys.faults import IysFault, TransientFault
from loader.iys.messages import Asked, Page
from loader.iys.transport import Answer
from tests.dice import often

ASKED = Asked(at_s=0.0, ahead_s=None)

names = st.sampled_from(
    ["citizenName", "CITIZENNAME", "citizen_name", "citizenName:", "Citizen Name", "CİTİZENNAME", "cıtızen-name", "x"]
)
keys = names | st.sampled_from(["after", "list", "errors", "recipient", "code", "pagination", "totalCount"]) | st.text()
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=4,
)
rows = st.dictionaries(keys, values, max_size=5)
pages = st.fixed_dictionaries(
    {"after": st.none() | st.text() | values, "list": st.lists(rows, max_size=4) | values},
    optional={"errors": values, "list:": values},
)
encoded = (pages | values).map(json.dumps).map(str.encode)
any_body = st.binary(max_size=200) | encoded | st.builds(lambda body, end: body[:end], encoded, st.integers(0, 300))
types = st.sampled_from(["application/json", "application/problem+json", "text/html", "text/plain", ""])


def answer_of(body: bytes, content_type: str = "application/json", status: int = 200) -> Answer:
    """Make an answer."""
    return Answer(status=status, content_type=content_type, body=body, asked=ASKED)


@settings(max_examples=often(240))
@given(body=any_body, content_type=types, status=st.sampled_from([200, 201]))
@example(body=b'{"after":null,"list":[' + b"[" * 5000, content_type="application/json", status=200)
@example(body=b'{"after":"x","list":[{"citizenName:":"A"}]}', content_type="application/json", status=200)
@example(body='{"after":"x","list":[{"cıtızen-name":"A"}]}'.encode(), content_type="application/json", status=200)
@example(body=b'{"after":"x","list":[{"who":{"citizenName":"A"}}]}', content_type="application/json", status=200)
@example(body=b'{"after":"x","list":[{"a":"\xff"}]}', content_type="application/json", status=200)
def test_page(body: bytes, content_type: str, status: int) -> None:
    """Any body is a page or a fault that passes; no row of a page names a person, and none is lost or made up."""
    try:
        page = decoding.page_of(answer_of(body, content_type, status))
    except TransientFault:
        return
    assert isinstance(page, Page)
    said = json.loads(body)
    assert "json" in content_type
    assert page.after == (said["after"] or None)
    assert len(page.rows) == len(said["list"])
    assert page.after or not page.rows
    assert "errors" not in said
    for row, before in zip(page.rows, said["list"], strict=True):
        letters = ["".join(filter(str.isalpha, key.casefold().replace("ı", "i"))) for key in row]
        assert not any("citizenname" in key for key in letters)
        assert not any(isinstance(value, dict | list) for value in row.values())
        assert row.items() <= before.items()


@settings(max_examples=often(240))
@given(body=any_body)
@example(body=b'[{"brandCode":"' + b"1" * 5000 + b'"}]')
@example(body=b'{"pagination":{"totalCount":"' + b"9" * 5000 + b'"},"list":[]}')
def test_other_answers(body: bytes) -> None:
    """No other body breaks the one who reads it, either."""
    answer = answer_of(body)
    for read in (
        decoding.grant_of,
        lambda each: decoding.brands_of(each, 1),
        decoding.listed_of,
        decoding.subscription_of,
        lambda each: decoding.summary_of(each, RecipientType.BIREYSEL),
        decoding.agreed_of,
        decoding.pushes_of,
    ):
        try:
            read(answer)
        except TransientFault:
            continue


@settings(max_examples=often(240))
@given(status=st.integers(202, 599), body=any_body)
@example(status=422, body=b'{"code":' + b"[" * 5000)
@example(status=422, body=b'{"value":' + b"1" * 5000 + b"}")
def test_refusal(status: int, body: bytes) -> None:
    """Any body with any status is a fault of that status, and says no more of the body than a code and fields."""
    fault = failures.fault_of("changes", status, body)
    assert isinstance(fault, IysFault)
    assert fault.status == status
    assert not fault.code or fault.code.encode() in body
    if not 400 <= status < 500:
        assert isinstance(fault, TransientFault)


def in_pieces(body: bytes, sizes: Iterable[int]) -> list[bytes]:
    """Cut a body as a network does."""
    pieces, begin = [], 0
    for size in sizes:
        pieces.append(body[begin : begin + size])
        begin += size
    return [*pieces, body[begin:]]


def read(body: bytes, sizes: Iterable[int], encoding: str, most: int = 1 << 20) -> bytes:
    """Receive a body."""
    kept = bytearray()
    size = bodies.received(in_pieces(body, sizes), encoding, most, kept.extend)
    assert size == len(kept)
    return bytes(kept)


contents = st.binary(max_size=400) | st.builds(lambda piece, n: piece * n, st.binary(max_size=20), st.integers(0, 9999))
sizes = st.lists(st.integers(0, 50), max_size=20)


@settings(max_examples=often(200))
@given(members=st.lists(contents, min_size=1, max_size=3), sizes=sizes, data=st.data())
def test_gzip(members: list[bytes], sizes: list[int], data: st.DataObject) -> None:
    """A compressed body comes out as it went in, however it was cut on the way; without its end it is a fault."""
    packed, plain = b"".join(map(gzip.compress, members)), b"".join(members)
    assert read(packed, sizes, "gzip") == plain
    whole = {0}
    for member in members:
        whole.add(max(whole) + len(gzip.compress(member)))
    end = data.draw(st.integers(0, len(packed) - 1))
    if end == 0 or end not in whole:
        with pytest.raises(TransientFault):
            read(packed[:end], sizes, "gzip")


@settings(max_examples=often(200))
@given(content=contents, sizes=sizes, less=st.integers(0, 100), is_packed=st.booleans())
def test_cap(content: bytes, sizes: list[int], less: int, *, is_packed: bool) -> None:
    """Nobody gets more than the cap, and who is above it gets a fault."""
    most = max(len(content) - less, 0)
    body = gzip.compress(content) if is_packed else content
    kept = bytearray()
    try:
        bodies.received(in_pieces(body, sizes), "gzip" if is_packed else "", most, kept.extend)
    except TransientFault:
        assert len(body) > most or len(content) > most
    else:
        assert bytes(kept) == content
    assert len(kept) <= most


def test_cap_of_nothing() -> None:
    """Compressed pieces that hold nothing do not come for ever."""
    with pytest.raises(TransientFault):
        read(gzip.compress(b"") * 100, [50] * 40, "gzip", most=1000)


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "zstd"])
def test_other_encoding(encoding: str) -> None:
    """What nobody asked for is not guessed at."""
    with pytest.raises(TransientFault):
        read(b"{}", [], encoding)


@settings(max_examples=often(200))
@given(body=st.binary(max_size=100), sizes=sizes)
def test_any_bytes_as_gzip(body: bytes, sizes: list[int]) -> None:
    """Any bytes are read or are a fault."""
    try:
        read(body, sizes, "gzip")
    except TransientFault:
        return
    assert gzip.decompress(body) is not None
