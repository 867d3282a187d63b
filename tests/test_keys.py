"""The keys: what they compute, that it never drifts, and that their files are private and robust."""

import os
import pickle
import re
import stat
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.errors import KeyFileError
from iyscheck.keys import (
    BLOCK_BYTES,
    AddressKey,
    Signers,
    SigningKey,
    StoreKey,
    StreamKey,
    blank,
    load_any,
)
from tests.dice import often

ADDRESS_SECRET = bytes(range(32))
STORE_SECRET = bytes(range(32, 64))
Rows = npt.NDArray[np.uint8]

secrets = st.binary(min_size=32, max_size=32)
AnyKey = AddressKey | StoreKey | StreamKey | SigningKey
KINDS: tuple[type[AnyKey], ...] = (AddressKey, StoreKey, StreamKey, SigningKey)
kinds = st.sampled_from(KINDS)
columns = st.lists(st.binary(min_size=16, max_size=16) | st.just(bytes(16)), max_size=40).map(
    lambda rows: np.frombuffer(b"".join(rows), np.uint8).reshape(-1, BLOCK_BYTES)
)


def rows_of(*texts: str) -> Rows:
    """Rows from their hex digits."""
    return np.frombuffer(bytes.fromhex("".join(texts)), np.uint8).reshape(-1, BLOCK_BYTES)


def encrypted(secret: bytes, block: bytes) -> bytes:
    """Encrypt one block by CBC with a zero vector: the same permutation by another road."""
    encryptor = Cipher(algorithms.AES(secret), modes.CBC(bytes(16))).encryptor()
    return encryptor.update(block) + encryptor.finalize()


class TestGolden:
    """Bytes that stores and gateways rely on.

    Made with `openssl enc -aes-256-ecb -nopad -K <key>`, XOR of block and output outside of this code, and
    SHA-256 of the text for the ids.
    """

    def test_tokens(self) -> None:
        """The tokens of known blocks under a known key never change."""
        blocks = rows_of("2b393035393932303030303030000000", "937cedb33e5f3382f47062d342d3980b", "00" * 16)

        tokens = AddressKey(ADDRESS_SECRET).tokens(blocks)

        assert [row.tobytes().hex() for row in tokens] == [
            "97fb6553862edc58247dd6e3b3fc341c",
            "228bd37573ef1eec5ca81481e3eb0cae",
            "00" * 16,
        ]

    def test_tags(self) -> None:
        """The tags of known tokens under a known key never change."""
        tokens = rows_of("97fb6553862edc58247dd6e3b3fc341c", "228bd37573ef1eec5ca81481e3eb0cae")

        tags = StoreKey(STORE_SECRET).tags(tokens)

        assert [row.tobytes().hex() for row in tags] == [
            "cb754312a55114454c836b5d292128a5",
            "8abf3f5ff7f6f5995c83568ebc90181f",
        ]

    def test_key_ids(self) -> None:
        """The ids of known keys never change."""
        assert AddressKey(ADDRESS_SECRET).key_id.hex() == "262dd5d94bf4e51a"
        assert StoreKey(STORE_SECRET).key_id.hex() == "dd010380c0c7401e"
        assert StreamKey(STORE_SECRET).key_id.hex() == "93c88d91b407d460"
        assert SigningKey(STORE_SECRET).key_id.hex() == "93c88d91b407d460"

    def test_signing(self) -> None:
        """Key, public key and signature are those of RFC 8032, chapter 7.1, test 2."""
        key = SigningKey(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))

        assert key.public.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
        assert key.sign(b"\x72").hex() == (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        )

    def test_sealing(self) -> None:
        """Key, text and sealed text are those of "The Galois/Counter Mode of Operation", appendix B, test case 16."""
        key = StreamKey(bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2))
        text = bytes.fromhex(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
        )
        bound = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")

        sealed = key.seal(bytes.fromhex("cafebabefacedbaddecaf888"), text, bound)

        assert sealed[-16:].hex() == "76fc6ece0f4e1768cddf8853bb2d551b"
        assert key.open(bytes.fromhex("cafebabefacedbaddecaf888"), sealed, bound) == text


class TestColumns:
    """A column is enciphered in one call, each row on its own."""

    @given(secret=secrets, blocks=columns)
    @settings(max_examples=often(200), deadline=None)
    def test_token_definition(self, secret: bytes, blocks: Rows) -> None:
        """A token is AES256(key, block) XOR block; a zero block gives a zero token."""
        tokens = AddressKey(secret).tokens(blocks)

        expected = [
            bytes(a ^ b for a, b in zip(encrypted(secret, row), row, strict=True)) if any(row) else bytes(16)
            for row in map(bytes, blocks)
        ]
        assert [bytes(row) for row in tokens] == expected

    @given(secret=secrets, tokens=columns)
    @settings(max_examples=often(200), deadline=None)
    def test_tag_definition(self, secret: bytes, tokens: Rows) -> None:
        """A tag is AES256(key, token), whatever the token."""
        tags = StoreKey(secret).tags(tokens)

        assert [bytes(row) for row in tags] == [encrypted(secret, bytes(row)) for row in tokens]

    @given(secret=secrets, rows=columns)
    @settings(max_examples=often(100), deadline=None)
    def test_one_is_a_column_of_one(self, secret: bytes, rows: Rows) -> None:
        """One block gives the token, and one token the tag, that it gives in a column."""
        address_key, store_key = AddressKey(secret), StoreKey(secret)
        blocks = [bytes(row) for row in rows]

        assert [address_key.token(block) for block in blocks] == [bytes(row) for row in address_key.tokens(rows)]
        assert [store_key.tag(block) for block in blocks] == [bytes(row) for row in store_key.tags(rows)]
        assert address_key.token(bytes(16)) == bytes(16)

    @given(secret=secrets, rows=columns)
    @settings(max_examples=often(100), deadline=None)
    def test_packed(self, secret: bytes, rows: Rows) -> None:
        """Tokens that follow each other in bytes give the tags that they give as a column."""
        store_key = StoreKey(secret)

        assert store_key.packed_tags(rows.tobytes()) == store_key.tags(rows).tobytes()

    @pytest.mark.parametrize("size", [0, 1, 15, 17, 32])
    def test_wrong_length(self, size: int) -> None:
        """Bytes that are no block are refused, and leave nothing behind that would shift the next one."""
        address_key, store_key = AddressKey(ADDRESS_SECRET), StoreKey(STORE_SECRET)

        with pytest.raises(ValueError, match="16 bytes"):
            address_key.token(b"\1" * size)
        with pytest.raises(ValueError, match="16 bytes"):
            store_key.tag(b"\1" * size)
        if size % 16:
            with pytest.raises(ValueError, match="16 bytes"):
                store_key.packed_tags(b"\1" * size)

        assert store_key.tag(b"\1" * 16) == encrypted(STORE_SECRET, b"\1" * 16)

    def test_empty_column(self) -> None:
        """A column of no rows gives a column of no rows."""
        nothing = np.zeros((0, BLOCK_BYTES), np.uint8)

        assert AddressKey(ADDRESS_SECRET).tokens(nothing).shape == (0, BLOCK_BYTES)
        assert StoreKey(STORE_SECRET).tags(nothing).shape == (0, BLOCK_BYTES)
        assert blank(nothing).shape == (0,)

    def test_any_layout(self) -> None:
        """Strided, reversed, column-major and read-only rows give what a copy gives, and stay unchanged."""
        wide = np.arange(20 * 40, dtype=np.uint32).astype(np.uint8).reshape(20, 40)
        key = AddressKey(ADDRESS_SECRET)
        frozen = wide[:, :16].copy()
        frozen.setflags(write=False)

        for view in (wide[::-2, 3:19], wide[:, 0:32:2], np.asfortranarray(wide[:, :16]), frozen):
            before = view.copy()
            assert np.array_equal(key.tokens(view), key.tokens(before))
            assert np.array_equal(view, before)

    @pytest.mark.parametrize(
        ("rows", "error"),
        [
            (np.zeros((2, 15), np.uint8), ValueError),
            (np.zeros(16, np.uint8), ValueError),
            (np.zeros((1, 16, 1), np.uint8), ValueError),
            (np.zeros((2, 16), np.int8), TypeError),
            (np.zeros((2, 2), np.uint64), TypeError),
            (bytes(16), TypeError),
        ],
        ids=["short rows", "one dimension", "three dimensions", "int8", "uint64", "bytes"],
    )
    def test_wrong_array(self, rows: Rows, error: type[Exception]) -> None:
        """Another shape or dtype is a programming error and is said so."""
        with pytest.raises(error, match="rows must"):
            AddressKey(ADDRESS_SECRET).tokens(rows)
        with pytest.raises(error, match="rows must"):
            StoreKey(STORE_SECRET).tags(rows)

    def test_threads(self) -> None:
        """Many threads that share the two keys get what one thread gets."""
        blocks = np.random.default_rng(1).integers(0, 256, (20_000, BLOCK_BYTES), np.uint8)
        address_key, store_key = AddressKey(ADDRESS_SECRET), StoreKey(STORE_SECRET)
        alone = store_key.tags(address_key.tokens(blocks))
        start = threading.Barrier(8)

        def work(_: int) -> bool:
            start.wait()
            singly = [store_key.tag(address_key.token(bytes(block))) for block in blocks[:2_000]]
            together = all(np.array_equal(store_key.tags(address_key.tokens(blocks)), alone) for _ in range(20))
            return together and singly == [bytes(tag) for tag in alone[:2_000]]

        with ThreadPoolExecutor(8) as pool:
            agreed = list(pool.map(work, range(8)))

        assert all(agreed)


class TestSealed:
    """What is sealed opens with everything as it was, and with nothing else."""

    def test_bound(self) -> None:
        """Another nonce, key or context, and any changed byte, give nothing."""
        key, nonce = StreamKey(STORE_SECRET), bytes(12)
        sealed = key.seal(nonce, b"text", b"bound")

        assert key.open(nonce, memoryview(sealed), b"bound") == b"text"
        assert key.open(b"\1" * 12, sealed, b"bound") is None
        assert key.open(nonce, sealed, b"boun") is None
        assert key.open(nonce, sealed[:-1], b"bound") is None
        assert key.open(nonce, b"", b"bound") is None
        assert StreamKey(ADDRESS_SECRET).open(nonce, sealed, b"bound") is None

    def test_signed(self) -> None:
        """A signature counts for its text and its signer, among those who are asked for."""
        key, other = SigningKey(STORE_SECRET), SigningKey(ADDRESS_SECRET)
        both = Signers([other.public, key.public])

        assert both.signed(key.sign(b"text"), b"text")
        assert both.signed(other.sign(b"text"), memoryview(b"text"))
        assert not both.signed(key.sign(b"text"), b"texts")
        assert not both.signed(b"", b"text")
        assert not Signers([other.public]).signed(key.sign(b"text"), b"text")
        assert not Signers([]).signed(key.sign(b"text"), b"text")

    def test_public(self) -> None:
        """A public key has 32 bytes."""
        with pytest.raises(ValueError, match="32 bytes"):
            Signers([bytes(31)])


class TestSecrecy:
    """A key is in its file and nowhere else."""

    @given(kind=kinds, secret=secrets)
    @settings(max_examples=often(100), deadline=None)
    def test_never_shown(self, kind: type[AnyKey], secret: bytes) -> None:
        """Neither repr nor str nor a format shows the key; they show its id."""
        key = kind(secret)

        shown = f"{key!r} {key!s} {key} {[key]}"

        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown
        assert key.key_id.hex() in shown

    @pytest.mark.parametrize("size", [0, 16, 31, 33])
    def test_wrong_size(self, size: int) -> None:
        """A key of another size than 32 bytes is refused without being shown."""
        secret = b"\xa7" * size

        with pytest.raises(ValueError, match="a key has 32 bytes") as caught:
            AddressKey(secret)

        assert "a7" not in str(caught.value)

    def test_immutable(self) -> None:
        """A key cannot be changed."""
        key = AddressKey(ADDRESS_SECRET)

        with pytest.raises(FrozenInstanceError):
            key.key_id = bytes(8)  # type: ignore[misc]  # that it is refused is the test

    def test_not_pickled(self) -> None:
        """A key cannot be pickled, so it never travels to another process by accident."""
        for kind in KINDS:
            with pytest.raises(TypeError):
                pickle.dumps(kind(ADDRESS_SECRET))

    @given(one=secrets, other=secrets)
    @settings(max_examples=often(100), deadline=None)
    def test_ids_differ(self, one: bytes, other: bytes) -> None:
        """Two keys have the same id if and only if they are the same key."""
        assert (AddressKey(one).key_id == AddressKey(other).key_id) == (one == other)
        assert len(AddressKey(one).key_id) == 8


def write(path: Path, content: bytes, mode: int = 0o600) -> Path:
    """Write a file with this content and mode."""
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("kind", KINDS)
class TestFiles:
    """A key file is made once, private, and read back exactly or not at all."""

    def test_round_trip(self, kind: type[AnyKey], tmp_path: Path) -> None:
        """A created key is found again in its file, by any kind of path."""
        path = tmp_path / "a.key"

        created = kind.create(path)

        assert kind.load(path).key_id == created.key_id == kind.load(str(path)).key_id

    def test_form(self, kind: type[AnyKey], tmp_path: Path) -> None:
        """The file is one line of kind, form and 64 lower-case hex digits, open to its owner only."""
        path = tmp_path / "a.key"
        umask = os.umask(0)

        try:
            key = kind.create(path)
        finally:
            os.umask(umask)

        line = re.fullmatch(rb"iyscheck ([a-z]+-key) ([0-9]) ([0-9a-f]{64})\n", path.read_bytes())
        assert line is not None
        assert line[1].decode() == kind.kind
        assert int(line[2]) == kind.form == (2 if kind in {AddressKey, StoreKey} else 1)
        assert kind(bytes.fromhex(line[3].decode())).key_id == key.key_id
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_random(self, kind: type[AnyKey], tmp_path: Path) -> None:
        """Each created key is another one."""
        ids = {kind.create(tmp_path / f"{number}.key").key_id for number in range(20)}

        assert len(ids) == 20

    def test_never_overwritten(self, kind: type[AnyKey], tmp_path: Path) -> None:
        """Creating where a file, or a link to nowhere, exists is refused and leaves it alone."""
        path = write(tmp_path / "a.key", b"precious")
        link = tmp_path / "b.key"
        link.symlink_to(tmp_path / "nowhere")

        for taken in (path, link):
            with pytest.raises(KeyFileError, match="never overwritten"):
                kind.create(taken)

        assert path.read_bytes() == b"precious"
        assert not (tmp_path / "nowhere").exists()

    def test_no_directory(self, kind: type[AnyKey], tmp_path: Path) -> None:
        """A path that cannot be created says why."""
        with pytest.raises(KeyFileError, match=r"cannot be created: No such file or directory\."):
            kind.create(tmp_path / "missing" / "a.key")

    def test_durable(self, kind: type[AnyKey], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A created file is written through to the disk, its content first and then its name."""
        synced: list[str] = []
        monkeypatch.setattr(os, "fsync", lambda number: synced.append(stat.filemode(os.fstat(number).st_mode)[0]))

        kind.create(tmp_path / "a.key")

        assert synced == ["-", "d"]

    def test_disk_full(self, kind: type[AnyKey], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file that did not reach the disk is removed, so that no half key is ever found."""

        def no_space(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", no_space)

        with pytest.raises(KeyFileError, match="cannot be written: No space left on device"):
            kind.create(tmp_path / "a.key")

        assert list(tmp_path.iterdir()) == []

    def test_missing(self, kind: type[AnyKey], tmp_path: Path) -> None:
        """A missing file is named, with the command that makes one."""
        command = {StreamKey: "create-stream", SigningKey: "create-signing"}.get(kind, "create")

        with pytest.raises(KeyFileError, match=rf"a\.key does not exist\. .*`iyscheck keys {command}`"):
            kind.load(tmp_path / "a.key")

    def test_wrong_kind(self, kind: type[AnyKey], tmp_path: Path) -> None:
        """A file of the other kind is refused by an error that names both."""
        for other in {*KINDS} - {kind}:
            path = tmp_path / other.kind
            other.create(path)

            with pytest.raises(KeyFileError, match=f"holds the {other.kind}, but the {kind.kind} is needed"):
                kind.load(path)

    def test_any_kind(self, kind: type[AnyKey], tmp_path: Path) -> None:
        """A key can be read by who does not know which one it is."""
        key = kind.create(tmp_path / "a.key")

        found = load_any(tmp_path / "a.key")

        assert (type(found), found.key_id) == (kind, key.key_id)

    def test_other_form(self, kind: type[AnyKey], tmp_path: Path) -> None:
        """A key of another form is refused, not misread, and the error says what to do."""
        newer, older = kind.form + 1, kind.form - 1
        known = f"iyscheck knows form {kind.form}"

        for form, what in ((newer, f"{known}.*or a newer one"), (older, f"{known}.*load the feed files into a new")):
            path = write(tmp_path / "a.key", f"iyscheck {kind.kind} {form} {'5e' * 32}\n".encode())

            with pytest.raises(KeyFileError, match=what if form else "not a key file") as caught:
                kind.load(path)

            assert "5e5e" not in str(caught.value)

    @pytest.mark.parametrize("bit", [0o020, 0o010, 0o004, 0o002, 0o001])
    def test_open_to_others(self, kind: type[AnyKey], tmp_path: Path, bit: int) -> None:
        """A file that group or others can reach is refused by an error that holds the command to run."""
        path = tmp_path / "a key"
        kind.create(path)
        path.chmod(0o600 | bit)

        with pytest.raises(KeyFileError, match=re.escape(f"Run: chmod 600 '{path}'")):
            kind.load(path)

    def test_owner_read_only(self, kind: type[AnyKey], tmp_path: Path) -> None:
        """Mode 0400, as mounted secrets have it, is private enough."""
        key = kind.create(tmp_path / "a.key")
        (tmp_path / "a.key").chmod(0o400)

        assert kind.load(tmp_path / "a.key").key_id == key.key_id

    def test_too_large(self, kind: type[AnyKey], tmp_path: Path) -> None:
        """A file beyond 4 KiB is refused without being read to its end."""
        path = write(tmp_path / "a.key", b"")
        os.truncate(path, 1 << 40)

        with pytest.raises(KeyFileError, match="too large"):
            kind.load(path)

    def test_no_regular_file(self, kind: type[AnyKey], tmp_path: Path) -> None:
        """A directory or a pipe is refused at once, without waiting for a writer."""
        os.mkfifo(tmp_path / "pipe", 0o600)

        for path in (tmp_path, tmp_path / "pipe"):
            with pytest.raises(KeyFileError, match="not a regular file"):
                kind.load(path)

    @pytest.mark.parametrize("name", ["n" * 300, "a\0b"], ids=["too long", "zero byte"])
    def test_impossible_path(self, kind: type[AnyKey], tmp_path: Path, name: str) -> None:
        """A path that the system refuses is a key file error too."""
        for use in (kind.load, kind.create):
            with pytest.raises(KeyFileError, match="cannot be"):
                use(tmp_path / name)


secret_texts = secrets.map(bytes.hex)
lines = st.builds(
    "iyscheck {} {} {}\n".format, st.sampled_from([kind.kind for kind in KINDS]), st.sampled_from([1, 2]), secret_texts
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A key file with a few bytes cut, replaced or added."""
    content = draw(lines).encode()
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(content)))
        content = content[:place] + draw(st.binary(max_size=3)) + content[place + draw(st.integers(0, 3)) :]
    return content


class TestFuzzedFiles:
    """Any bytes are a key or a KeyFileError."""

    @given(content=damaged() | st.binary(max_size=200), kind=kinds)
    @settings(max_examples=often(400), deadline=None)
    def test_any_bytes(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        content: bytes,
        kind: type[AnyKey],
    ) -> None:
        """Any file content gives the key that it spells, or our error, which shows none of the content."""
        path = write(tmp_path_factory.getbasetemp() / "fuzzed.key", content)

        shown = ""
        try:
            key = kind.load(path)
        except KeyFileError as error:
            shown = "".join(traceback.format_exception(error))
        else:
            spelt = content.removesuffix(b"\n").removeprefix(f"iyscheck {kind.kind} {kind.form} ".encode())
            assert key.key_id == kind(bytes.fromhex(spelt.decode("ascii"))).key_id

        assert not any(run.decode() in shown for run in re.findall(rb"[0-9a-f]{16,}", content))

    @given(kind=kinds, spoil=st.sampled_from([str.upper, lambda line: line + line, lambda line: " " + line]))
    @settings(max_examples=30, deadline=None)
    def test_strict(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        kind: type[AnyKey],
        spoil: Callable[[str], str],
    ) -> None:
        """Nothing but the one exact line is accepted: no capitals, second line or leading space."""
        line = f"iyscheck {kind.kind} 1 {'ab' * 32}\n"
        path = write(tmp_path_factory.getbasetemp() / "strict.key", spoil(line).encode())

        with pytest.raises(KeyFileError, match="not a key file"):
            kind.load(path)


ROOT, OURS, OTHER = 0, 4_242, 4_243


def taken(monkeypatch: pytest.MonkeyPatch, path: Path, file: os.stat_result) -> bool:
    """Say whether a key file is taken whose owner, group and mode are these."""
    AddressKey.create(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", lambda _: file)
        try:
            AddressKey.load(path)
        except KeyFileError as error:
            if "can be opened by other users" not in str(error):
                raise
            return False
    return True


class TestMountedSecrets:
    """Key files that root owns: who may open them, as containers and systemd mount them."""

    @pytest.fixture(autouse=True)
    def as_service(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Be a user with one group beside its own."""
        monkeypatch.setattr(os, "getegid", lambda: OURS + 10)
        monkeypatch.setattr(os, "getgroups", lambda: [OURS])
        monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)

    @pytest.mark.parametrize(
        ("owner", "group", "mode", "private"),
        [
            (ROOT, OURS, 0o440, True),  # a Kubernetes secret: fsGroup, defaultMode 0400
            (ROOT, OURS, 0o640, True),
            (ROOT, OTHER, 0o440, False),
            (OURS, OURS, 0o440, False),  # its owner can close it, and has not said who the group is
            (ROOT, OURS, 0o444, False),  # a Docker secret, and a Kubernetes one without defaultMode
            (ROOT, OURS, 0o460, False),
            (ROOT, OURS, 0o450, False),
            (ROOT, OURS, 0o442, False),
            (ROOT, OTHER, 0o400, True),
            (OTHER, OTHER, 0o600, True),
        ],
    )
    def test_groups(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int, group: int, mode: int, *, private: bool
    ) -> None:
        """Root may let a group of this process read; nobody else may be let in."""
        file = os.stat_result((0o100_000 | mode, 1, 1, 1, owner, group, 100, 0, 0, 0))

        assert taken(monkeypatch, tmp_path / "a.key", file) is private

    @pytest.mark.parametrize(
        ("directory_owner", "directory_mode", "mode", "private"),
        [
            (ROOT, 0o550, 0o440, True),
            (ROOT, 0o550, 0o444, False),
            (ROOT, 0o755, 0o440, False),
            (ROOT, 0o770, 0o440, False),
            (OURS, 0o550, 0o440, False),
        ],
    )
    def test_credentials(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        directory_owner: int,
        directory_mode: int,
        mode: int,
        *,
        private: bool,
    ) -> None:
        """A credential of systemd, whose mode shows its access list, in a directory that only root can change."""
        held = tmp_path / "held"
        held.mkdir()
        real = Path.stat

        def stat_of(path: Path, **options: bool) -> os.stat_result:
            if path == held:
                return os.stat_result((0o040_000 | directory_mode, 1, 1, 1, directory_owner, ROOT, 100, 0, 0, 0))
            return real(path, **options)

        monkeypatch.setattr(Path, "stat", stat_of)
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(held))
        file = os.stat_result((0o100_000 | mode, 1, 1, 1, ROOT, OTHER, 100, 0, 0, 0))

        assert taken(monkeypatch, held / "a.key", file) is private
        assert not taken(monkeypatch, tmp_path / "a.key", file)

    def test_links(self, tmp_path: Path) -> None:
        """Kubernetes mounts a secret as a link to a link to a directory of the moment."""
        (tmp_path / "..2026").mkdir()
        key = AddressKey.create(tmp_path / "..2026" / "address.key")
        (tmp_path / "..data").symlink_to("..2026")
        (tmp_path / "address.key").symlink_to("..data/address.key")

        assert AddressKey.load(tmp_path / "address.key").key_id == key.key_id

    def test_not_ours_to_close(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where `chmod` is no use, the error names what is."""
        AddressKey.create(tmp_path / "a.key")
        (tmp_path / "a.key").chmod(0o644)
        monkeypatch.setattr(os, "geteuid", lambda: OTHER)

        with pytest.raises(KeyFileError, match=r"mode 0644\)\. Have it mounted .*`fsGroup`"):
            AddressKey.load(tmp_path / "a.key")
