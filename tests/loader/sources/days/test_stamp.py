"""Time stamps, as OpenSSL made them once (`openssl ts`): of the words `a day` and a line end, under a root of ours."""

import base64
from pathlib import Path

import pytest
from cryptography.x509 import load_pem_x509_certificate
from hypothesis import given, settings
from hypothesis import strategies as st

from loader.sources.days.facts import FileFacts
from loader.sources.days.stamp import Stamp
from tests.dice import often

STAMPS = Path(__file__).parents[3] / "golden" / "stamps"
ROOT, OTHER_ROOT = (load_pem_x509_certificate((STAMPS / name).read_bytes()) for name in ("root.pem", "other.pem"))


def stamp(folder: Path, answer: bytes | None, content: bytes = b"a day\n", *, known: bool = True) -> Stamp:
    """Compare a stamp with a file of this content."""
    path = folder / "day.csv"
    path.write_bytes(content)
    return Stamp.of(answer, path, FileFacts.of(path), [ROOT if known else OTHER_ROOT])


@pytest.mark.parametrize("name", ["sha256.tsr", "sha384.tsr", "sha512.tsr", "bare.tst"])
@pytest.mark.parametrize("in_text", [False, True])
def test_stamps(tmp_path: Path, name: str, in_text: bool) -> None:  # noqa: FBT001 - pytest passes by name
    """A stamp is bound to its file and leads to its root: an answer or a bare one, in DER or base64."""
    der = (STAMPS / name).read_bytes()
    answer = base64.encodebytes(der) if in_text else der

    assert stamp(tmp_path, answer) == Stamp(bound=True, chain=True)
    assert stamp(tmp_path, answer, b"another day\n") == Stamp(bound=False, chain=True)
    assert stamp(tmp_path, answer, known=False) == Stamp(bound=True, chain=False)


def test_changed(tmp_path: Path) -> None:
    """A stamp whose content was changed is not its signer's any more, whatever it says of the file."""
    der = (STAMPS / "sha384.tsr").read_bytes()
    path = tmp_path / "day.csv"
    path.write_bytes(b"a day\n")
    imprint = bytes.fromhex(FileFacts.of(path).itself)
    assert der.count(imprint) == 1
    path.write_bytes(b"another day\n")
    other = bytes.fromhex(FileFacts.of(path).itself)

    assert stamp(tmp_path, der.replace(imprint, other), b"another day\n") == Stamp(bound=True, chain=False)


def test_unsorted(tmp_path: Path) -> None:
    """Of a stamp whose certificates are in another order than DER wants it is known what it is of, not whose."""
    assert stamp(tmp_path, (STAMPS / "unsorted.tsr").read_bytes()) == Stamp(bound=True, chain=None)


@given(st.data())
@settings(max_examples=often(200), deadline=None)
def test_damaged(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """A stamp that is cut or changed anywhere is never an error, and its signature never holds for another file."""
    der = bytearray((STAMPS / "sha256.tsr").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    del der[data.draw(st.integers(0, len(der))) :]

    assert stamp(tmp_path_factory.getbasetemp(), bytes(der), b"another day\n").bound is not True


def test_without_roots(tmp_path: Path) -> None:
    """Without a root nothing is said of the chain."""
    path = tmp_path / "day.csv"
    path.write_bytes(b"a day\n")

    found = Stamp.of((STAMPS / "sha384.tsr").read_bytes(), path, FileFacts.of(path))

    assert found == Stamp(bound=True, chain=None)


@pytest.mark.parametrize("answer", [None, b"", b"0", b"<html>", b"0\x82", b"\x30\x03\x02\x01\x00", b"MAMCAQA="])
def test_no_stamp(tmp_path: Path, answer: bytes | None) -> None:
    """What is no stamp says nothing."""
    assert stamp(tmp_path, answer) == Stamp()


def test_refused(tmp_path: Path) -> None:
    """An answer that refuses a stamp says nothing."""
    assert stamp(tmp_path, (STAMPS / "refused.tsr").read_bytes()) == Stamp()
