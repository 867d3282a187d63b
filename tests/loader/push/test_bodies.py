from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from loader.push.bodies import rows_of, sorted_out
from loader.push.credentials import Credential
from tests.dice import often

CREDENTIAL = Credential(
    name="iyscheck-1",
    account="acme",
    iys_code=700_001,
    brands=(600_001, 600_002),
    created_s=0,
    digest="",
    salt="",
    sealed="",
)
codes: st.SearchStrategy[Any] = st.sampled_from(
    [
        700_001,
        "700001",
        "0700001",
        700_002,
        600_001,
        "600001",
        600_002,
        600_003,
        121_212,
        "121212",
        None,
        True,
        1.5,
        "x",
        [],
    ]
)
rows = st.fixed_dictionaries({"status": st.just("RET")}, optional={"iysCode": codes, "brandCode": codes})


@settings(max_examples=often(300), deadline=None)
@given(st.lists(rows, max_size=8))
def test_sorted_out(given_rows: list[dict[str, object]]) -> None:
    """A row counts only with the İYS code and a brand of its credential; each row is in one place."""
    found = sorted_out(given_rows, CREDENTIAL)

    assert len(found.rows) + len(found.foreign) + found.tests == len(given_rows)
    for row in found.rows:
        assert int(str(row["iysCode"])) == CREDENTIAL.iys_code
        assert int(str(row["brandCode"])) in CREDENTIAL.brands
    for row in found.foreign:
        is_own = str(row.get("iysCode")).lstrip("0") == "700001" and str(row.get("brandCode")) in {"600001", "600002"}
        assert not is_own


@settings(max_examples=often(300), deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    """Any bytes are rows, or none of İYS's; nothing is raised."""
    assert rows_of(body) is None or isinstance(rows_of(body), list)


def test_nameless() -> None:
    """Names of people are dropped, however their key is written."""
    body = {"list": [{"citizenName": "A", "CITIZEN_NAME": "B", "citizenname": "C", "status": "RET"}]}
    assert rows_of(msgspec.json.encode(body)) == [{"status": "RET"}]
