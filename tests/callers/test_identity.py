"""Who a call is from: keys and certificates, what hostile ones are told, and that no key is ever shown."""

import hashlib
import hmac
import pickle
import re
import traceback

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.callers.identity import Callers, Entry, Identity, Key, NewKey, bearer_of
from iyscheck.callers.scopes import Caller
from iyscheck.errors import CallersDisagreeError, CallerUnknownError
from tests.dice import often

ACME, OTHER = NewKey.create(), NewKey.create()
CERTIFIED = Caller(name="certified", brands=None)


def entry(name: str, *keys: NewKey, certificates: tuple[str, ...] = (), rate: int | None = None) -> Entry:
    """One caller of these keys and certificates."""
    return Entry(
        caller=Caller(name=name, brands=None, rate=rate),
        keys=frozenset(new.key for new in keys),
        certificates=frozenset(certificates),
    )


CALLERS = Callers(
    [
        entry("acme", ACME, certificates=("dns:*.acme.example", "spiffe://acme.example/gw")),
        entry("other", OTHER, certificates=("dns:gw9.acme.example",)),
    ]
)


def who(bearer: str | None, *names: str) -> str:
    """Name the caller that presents a key and a certificate, or the reason why nobody does."""
    try:
        return CALLERS.identify(bearer, names).caller.name
    except CallerUnknownError as error:
        return error.reason


class TestKeys:
    """A key names its caller, and nothing but the whole key does."""

    def test_form(self) -> None:
        """A key is 32 random bytes and an id, safe in URLs and shells; its line is what `sha256sum` says of it."""
        new = NewKey.create()

        found = re.fullmatch(r"iys1_([0-9a-f]{16})_([0-9a-f]{64})", new.text)
        assert found is not None
        assert new.key.line == f"{found[1]}:{hashlib.sha256(new.text.encode()).hexdigest()}"
        assert len({NewKey.create().text for _ in range(50)}) == 50

    def test_known(self) -> None:
        """Each caller is found by each of its keys."""
        second = NewKey.create()
        rotating = Callers([entry("acme", ACME, second)])

        assert who(ACME.text) == "acme"
        assert who(OTHER.text) == "other"
        assert [rotating.identify(new.text).caller.name for new in (ACME, second)] == ["acme", "acme"]

    @pytest.mark.parametrize(
        "bearer",
        [
            "",
            "iys1",
            "iys1__",
            ACME.text[:-1],
            ACME.text + "0",
            ACME.text + "\n",
            " " + ACME.text,
            ACME.text.upper(),
            ACME.text.replace("iys1_", "iys2_"),
            ACME.text.replace("iys1_", ""),
            ACME.text.rpartition("_")[0] + "_",
            ACME.text.rpartition("_")[0] + "_" + OTHER.text.rpartition("_")[2],
            OTHER.text.rpartition("_")[0] + "_" + ACME.text.rpartition("_")[2],
            ACME.text.rpartition("_")[2],
            ACME.key.line,
            "iys1_" + ACME.key.line.replace(":", "_"),
            "iys1_" + "0" * 16 + "_" + "0" * 64,
            ACME.text[:-1] + "٣",
            ACME.text[:-1] + "\ud800",
            ACME.text[:-1] + "\0",
            "iys1_" + "a" * 10_000_000 + "_" + "b" * 64,
            ACME.text * 100_000,
        ],
        ids=range(22),
    )
    def test_hostile(self, bearer: str) -> None:
        """What is cut, longer, of other letters, of two keys, of the file's line, or huge names nobody."""
        assert who(bearer) == "CALLER_UNKNOWN"

    @given(
        place=st.integers(0, len(ACME.text)),
        cut=st.integers(0, 3),
        put=st.text(st.characters(codec="utf-8") | st.sampled_from("0123456789abcdef_"), max_size=3),
    )
    @settings(max_examples=often(500), deadline=None)
    def test_damaged(self, place: int, cut: int, put: str) -> None:
        """A key with any change to it names nobody, and no part of it is in what is told."""
        bearer = ACME.text[:place] + put + ACME.text[place + cut :]

        if bearer != ACME.text:
            with pytest.raises(CallerUnknownError) as caught:
                CALLERS.identify(bearer)

            shown = "".join(traceback.format_exception(caught.value)).rpartition("Error: ")[2] + repr(caught.value)
            assert not re.search(r"[0-9a-f]{8}", shown)

    def test_same_work(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A right key, a wrong one and one of an unknown id are each hashed once, compared once, and told the same."""
        compared: list[int] = []
        real = hmac.compare_digest

        def counting(one: bytes, other: bytes) -> bool:
            compared.append(len(one) + len(other))
            return real(one, other)

        monkeypatch.setattr(hmac, "compare_digest", counting)
        wrong = ACME.text.rpartition("_")[0] + "_" + "0" * 64
        errors = []
        for bearer in (ACME.text, wrong, NewKey.create().text):
            try:
                CALLERS.identify(bearer)
            except CallerUnknownError as error:
                errors.append(str(error))

        assert compared == [64, 64, 64]
        assert len(errors) == 2
        assert len(set(errors)) == 1

    def test_never_shown(self) -> None:
        """Neither a new key nor what holds its hash shows or pickles the key."""
        new = NewKey.create()
        callers = Callers([entry("acme", new)])

        shown = f"{new!r} {new} {[new]} {new.key!r} {callers!r} {callers.identify(new.text)!r}"
        secret = new.text.rpartition("_")[2]

        assert secret not in shown
        assert new.key.digest.hex() not in shown
        with pytest.raises(TypeError):
            pickle.dumps(new)


class TestCertificates:
    """A certificate names its caller by one of its names."""

    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            (["dns:gw1.acme.example"], "acme"),
            (["dns:gw1.acme.example", "dns:unknown.example"], "acme"),
            (["spiffe://acme.example/gw"], "acme"),
            (["dns:gw9.acme.example"], "other"),
            (["dns:acme.example"], "CALLER_UNKNOWN"),
            (["dns:a.b.acme.example"], "CALLER_UNKNOWN"),
            (["dns:*.acme.example"], "CALLER_UNKNOWN"),
            (["dns:.acme.example"], "CALLER_UNKNOWN"),
            (["dns:-.acme.example"], "CALLER_UNKNOWN"),
            (["dns:gw1.acme.example.evil.example"], "CALLER_UNKNOWN"),
            (["dns:gw1acme.example"], "CALLER_UNKNOWN"),
            (["gw1.acme.example"], "CALLER_UNKNOWN"),
            (["spiffe://acme.example/gw/"], "CALLER_UNKNOWN"),
            (["spiffe://acme.example/GW"], "CALLER_UNKNOWN"),
            (["dns:spiffe://acme.example/gw"], "CALLER_UNKNOWN"),
            ([""], "CALLER_UNKNOWN"),
            ([], "CALLER_UNKNOWN"),
            (["dns:gw1.acme.example", "dns:gw9.acme.example"], "CALLERS_DISAGREE"),
        ],
    )
    def test_names(self, names: list[str], expected: str) -> None:
        """An exact name wins over a wildcard, which is exactly one label; a wildcard in a certificate is none."""
        assert who(None, *names) == expected


class TestBoth:
    """A key and a certificate together."""

    def test_agree(self) -> None:
        """Both of one caller name it; a certificate that names nobody says nothing beside a right key."""
        assert who(ACME.text, "dns:gw1.acme.example") == "acme"
        assert who(ACME.text, "dns:mesh.internal") == "acme"

    def test_disagree(self) -> None:
        """Of different callers they are refused, and so is a wrong key beside a right certificate."""
        with pytest.raises(CallersDisagreeError) as caught:
            CALLERS.identify(OTHER.text, ["dns:gw1.acme.example"])

        assert isinstance(caught.value, CallerUnknownError)
        assert "acme" not in str(caught.value)
        assert who(NewKey.create().text, "dns:gw1.acme.example") == "CALLER_UNKNOWN"
        assert who("", "dns:gw1.acme.example") == "CALLER_UNKNOWN"

    def test_nothing(self) -> None:
        """Without either nobody is named."""
        with pytest.raises(CallerUnknownError, match="No key and no client certificate was presented"):
            CALLERS.identify(None)

    def test_certificate_without_names(self) -> None:
        """Who did present a certificate is told so, and what it lacks: a name of a kind that can be listed."""
        with pytest.raises(
            CallerUnknownError, match=r"^The client certificate has no name \(SAN\) that a call"
        ) as none:
            CALLERS.identify(None, ())
        with pytest.raises(CallerUnknownError, match="The client certificate names no caller") as unknown:
            CALLERS.identify(None, ("dns:unknown.example",))

        assert "Use a certificate with a DNS name or a URI" in none.value.fix
        assert unknown.value.fix
        assert who(ACME.text) == "acme"


class TestHeader:
    """The key in an authorization header."""

    @pytest.mark.parametrize("header", ["Bearer k", "bearer k", "BEARER   k"])
    def test_taken(self, header: str) -> None:
        """The scheme's name has no case."""
        assert bearer_of(header) == "k"
        assert bearer_of(None) is None

    @pytest.mark.parametrize(
        "header", ["", "Bearer", "Bearer ", "Basic k", "k", "Bearer a b", "Bearer k\n", " Bearer k"]
    )
    def test_refused(self, header: str) -> None:
        """Another scheme, nothing, or two words are nobody's key."""
        with pytest.raises(CallerUnknownError, match="no Bearer key"):
            bearer_of(header)


class TestStill:
    """Whether an open stream may go on after the file was read again."""

    def setup_method(self) -> None:
        """Know one caller by a key and a certificate."""
        self.second = NewKey.create()
        self.before = Callers([entry("acme", ACME, certificates=("dns:*.acme.example",))])

    def identity(self, bearer: str | None, *names: str) -> Identity:
        """Who presents these, before."""
        return self.before.identify(bearer, names)

    def test_rotation(self) -> None:
        """Another key or certificate beside the one that was used changes nothing; without the used one it ends."""
        by_key, by_name = self.identity(ACME.text), self.identity(None, "dns:gw1.acme.example")
        both = Callers([entry("acme", ACME, self.second, certificates=("dns:*.acme.example", "dns:x.example"))])
        new_only = Callers([entry("acme", self.second, certificates=("dns:gw1.acme.example",))])

        assert both.still(by_key)
        assert both.still(by_name)
        assert not new_only.still(by_key)
        assert new_only.still(by_name)  # its name is still this caller's

    @pytest.mark.parametrize(
        "after",
        [
            Callers([]),
            Callers([entry("other", ACME, certificates=("dns:*.acme.example",))]),
            Callers([entry("acme", ACME, certificates=("dns:*.acme.example",), rate=5)]),
            Callers([entry("acme"), entry("other", ACME, certificates=("dns:*.acme.example",))]),
        ],
        ids=["gone", "renamed", "other rules", "moved"],
    )
    def test_ended(self, after: Callers) -> None:
        """A caller that is gone, has other rules, or whose key names another one now, is not the same."""
        for identity in (self.identity(ACME.text), self.identity(None, "dns:gw1.acme.example")):
            assert self.before.still(identity)
            assert not after.still(identity)

    def test_disagreeing(self) -> None:
        """Where key and certificate come to name different callers it ends, and where a hash is another one."""
        identity = self.identity(ACME.text, "dns:gw1.acme.example")
        moved = Callers([entry("acme", ACME), entry("other", OTHER, certificates=("dns:*.acme.example",))])
        key = Key(ACME.key.key_id, OTHER.key.digest)
        rehashed = Callers([Entry(caller=identity.caller, keys=frozenset({key}), certificates=frozenset())])

        assert not moved.still(identity)
        assert not rehashed.still(identity)
