import pytest

from iyscheck.consent import LegacyDeadline, Policy
from iyscheck.errors import SettingsError
from iyscheck.server.settings import OTHER_VARIABLES, Settings, default_text


def test_defaults() -> None:
    """Without flags and variables the server is on loopback, with the published policy."""
    settings = Settings.read()

    assert (settings.listen, settings.metrics_listen) == (("127.0.0.1:50051",), "127.0.0.1:9464")
    assert settings.policy == Policy()


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable sets a setting, and a flag wins over it."""
    monkeypatch.setenv("IYSCHECK_MAX_STREAMS", "3")
    monkeypatch.setenv("IYSCHECK_ANSWER_TTL", "2m")
    monkeypatch.setenv("IYSCHECK_METRICS_LISTEN", "")

    settings = Settings.read(max_streams=5, unary_workers=None)

    assert (settings.max_streams, settings.answer_ttl, settings.metrics_listen) == (5, 120, "")


def test_unknown_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt variable is an error that names it and the known ones."""
    monkeypatch.setenv("IYSCHECK_LISTN", "127.0.0.1:1")

    with pytest.raises(SettingsError, match=r"IYSCHECK_LISTN: .*IYSCHECK_LISTEN") as caught:
        Settings.read()

    assert caught.value.field == "IYSCHECK_LISTN"


SERVICE = {
    "IYSCHECK_SERVICE_HOST": "10.96.0.17",
    "IYSCHECK_SERVICE_PORT": "50051",
    "IYSCHECK_SERVICE_PORT_GRPC": "50051",
    "IYSCHECK_PORT": "tcp://10.96.0.17:50051",
    "IYSCHECK_PORT_50051_TCP": "tcp://10.96.0.17:50051",
    "IYSCHECK_PORT_50051_TCP_PROTO": "tcp",
    "IYSCHECK_PORT_50051_TCP_PORT": "50051",
    "IYSCHECK_PORT_50051_TCP_ADDR": "10.96.0.17",
    "IYSCHECK_METRICS_SERVICE_HOST": "fd00::17",
    "IYSCHECK_METRICS_PORT": "tcp://[fd00::17]:9464",
}
"""What Kubernetes sets where there are Services called `iyscheck` and `iyscheck-metrics`."""


def test_service_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of a Kubernetes Service are no settings and no errors."""
    before = Settings.read()
    for name, value in SERVICE.items():
        monkeypatch.setenv(name, value)

    assert Settings.read() == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("IYSCHECK_PORT", "50051"),
        ("IYSCHECK_PORT", "tcp://10.96.0.17:50051/x"),
        ("IYSCHECK_SERVICE_PORT", "grpc"),
        ("IYSCHECK_PORT_50051_TCP_ADR", "10.96.0.17"),
        ("IYSCHECK_OTHER_PORT", "tcp://10.96.0.17:50051"),
        ("IYSCHECK_METRICX_PORT", "tcp://10.96.0.17:50051"),
        ("iyscheck_port", "tcp://10.96.0.17:50051"),
    ],
)
def test_not_a_service_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """What only looks like one, or is of a Service that there is not, is as unknown as before."""
    monkeypatch.setenv("IYSCHECK_SERVICE_HOST", "10.96.0.17")
    monkeypatch.setenv("IYSCHECK_METRICS_SERVICE_HOST", "10.96.0.18")
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError, match=f"{name}: is not a setting"):
        Settings.read()


@pytest.mark.parametrize("name", sorted(OTHER_VARIABLES))
def test_variables_of_others(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Variables of other commands are no errors."""
    before = Settings.read()

    monkeypatch.setenv(name, "tr")

    assert Settings.read() == before


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        ({"listen": "nowhere"}, "listen"),
        ({"listen": "127.0.0.1:65536"}, "listen"),
        ({"metrics_listen": "9464"}, "metrics_listen"),
        ({"max_streams": 0}, "max_streams"),
        ({"freshness_limit": "1w"}, "freshness_limit"),
        ({"freshness_limit": "0"}, "freshness_limit"),
        ({"legacy_deadline": "never"}, "legacy_deadline"),
        ({"log_level": "loud"}, "log_level"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_refused(flags: dict[str, object], field: str) -> None:
    """A value that cannot be used is an error that names its setting."""
    with pytest.raises(SettingsError) as caught:
        Settings.read(**flags)

    assert caught.value.field == field


@pytest.mark.parametrize("listen", ["0.0.0.0:50051", "[::]:50051", "192.0.2.1:1", "example.org:1"])
def test_plain_text_stays_at_home(listen: str) -> None:
    """An address that is not loopback needs --insecure."""
    with pytest.raises(SettingsError, match="insecure"):
        Settings.read(listen=listen)

    assert Settings.read(listen=listen, insecure=True).listen == (listen,)


@pytest.mark.parametrize("address", ["0.0.0.0:9464", "[::]:9464", "192.0.2.1:1", "example.org:1"])
def test_metrics_stay_at_home(address: str) -> None:
    """Metrics in plain text are for this machine, as calls are, unless --insecure is given or a certificate."""
    with pytest.raises(SettingsError, match="is not a loopback address, and this server speaks plain text") as caught:
        Settings.read(metrics_listen=address)

    assert caught.value.field == "metrics_listen"
    assert Settings.read(metrics_listen=address, insecure=True).metrics_listen == address
    assert Settings.read(metrics_listen=address, tls_cert="c", tls_key="k").metrics_listen == address


@pytest.mark.parametrize("address", ["", "127.0.0.1:0", "[::1]:1", "localhost:1"])
def test_metrics_at_home(address: str) -> None:
    """Where only this machine reaches them, nothing is asked."""
    assert Settings.read(metrics_listen=address).metrics_listen == address


@pytest.mark.parametrize(
    ("given", "addresses"),
    [
        ("127.0.0.1:1,unix:/run/s", ("127.0.0.1:1", "unix:/run/s")),
        (["127.0.0.1:1", "unix:/run/s, [::1]:2"], ("127.0.0.1:1", "unix:/run/s", "[::1]:2")),
        ("unix:///run/s", ("unix:/run/s",)),
        ("unix:run/s", ("unix:run/s",)),
        ("127.0.0.1:0,127.0.0.1:0", ("127.0.0.1:0", "127.0.0.1:0")),
        (f"unix:/{'s' * 106}", (f"unix:/{'s' * 106}",)),
    ],
)
def test_several_addresses(monkeypatch: pytest.MonkeyPatch, given: str | list[str], addresses: tuple[str, ...]) -> None:
    """Addresses come one by one, or between commas, also in the variable; they are told as that takes them."""
    settings = Settings.read(listen=given)
    monkeypatch.setenv("IYSCHECK_LISTEN", given if isinstance(given, str) else ",".join(given))

    assert settings.listen == Settings.read().listen == addresses
    assert settings.plain()["listen"] == ",".join(addresses)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("127.0.0.1:1,nowhere", "'nowhere' is neither HOST:PORT nor unix:PATH"),
        ("127.0.0.1:1,", "'' is neither HOST:PORT nor unix:PATH"),
        ([], "'' is neither HOST:PORT nor unix:PATH"),
        ("unix-abstract:s", "every user of this machine could connect"),
        (f"unix:/{'s' * 107}", "has 108 bytes, and the name of a socket may have 107"),
        ("unix:", "does not name a file"),
        ("unix:/run/", "does not name a file"),
        ("unix:/run/..", "does not name a file"),
        ("unix://run/s", "does not name a file"),
        ("unix:/run/ş", "Use letters a to z"),
        ("unix:/run/a b", "Use letters a to z"),
        ("unix:/run/a?b", "Use letters a to z"),
        ("unix:/run/s,127.0.0.1:1,unix:/run/s", "unix:/run/s is there twice"),
        ("0.0.0.0:1,unix:/run/s,127.0.0.1:2", r"0\.0\.0\.0:1 is not a loopback address"),
        ("0.0.0.0:1,192.0.2.1:2", r"0\.0\.0\.0:1 and 192\.0\.2\.1:2 are not loopback addresses"),
    ],
)
def test_refused_address(given: str | list[str], says: str) -> None:
    """An address that cannot be used, or not so, is named with what to do, whatever stands beside it."""
    with pytest.raises(SettingsError, match=says) as caught:
        Settings.read(listen=given)

    assert caught.value.field == "listen"


def test_insecure_address() -> None:
    """With --insecure, or a certificate, all of them may be used."""
    given = "0.0.0.0:1,unix:/run/s"

    assert Settings.read(listen=given, insecure=True) == Settings.read(listen=given, insecure=True)
    assert len(Settings.read(listen=given, tls_cert="c", tls_key="k").listen) == 2


@pytest.mark.parametrize("address", ["0.0.0.0:50052", "[::]:50052", "192.0.2.1:1", "example.org:1"])
def test_native_stays_at_home(address: str) -> None:
    """The native front has no TLS: neither a certificate nor --insecure opens it, but its own flag does."""
    with pytest.raises(SettingsError, match="native-insecure") as caught:
        Settings.read(native_listen=address, insecure=True, tls_cert="c", tls_key="k")

    assert caught.value.field == "native_listen"
    assert Settings.read(native_listen=address, native_insecure=True).native_listen == address
    with pytest.raises(SettingsError, match="insecure"):
        Settings.read(listen=address, native_insecure=True)


def test_native_is_no_way_around_certificates() -> None:
    """Who must show a certificate elsewhere is not let in by the native front with nothing at all."""
    mutual = {"tls_cert": "c", "tls_key": "k", "tls_client_ca": "ca"}
    with pytest.raises(SettingsError, match="without the certificate") as caught:
        Settings.read(native_listen="127.0.0.1:1", **mutual)

    assert caught.value.field == "native_listen"
    for more in ({"callers": "c"}, {"native_insecure": True}):
        assert Settings.read(native_listen="127.0.0.1:1", **mutual, **more).native_listen == "127.0.0.1:1"
    assert Settings.read(native_listen="unix:/a/socket", **mutual).native_listen == "unix:/a/socket"


@pytest.mark.parametrize("address", ["", "127.0.0.1:0", "[::1]:1", "localhost:1", "unix:/run/s"])
def test_native_address(address: str) -> None:
    """It has one address that only this machine reaches, or none."""
    assert Settings.read(native_listen=address).native_listen == address


@pytest.mark.parametrize("address", ["127.0.0.1:1,127.0.0.1:2", "127.0.0.1", "unix-abstract:x"])
def test_no_native_address(address: str) -> None:
    """Anything else is refused under its own name."""
    with pytest.raises(SettingsError) as caught:
        Settings.read(native_listen=address)

    assert caught.value.field == "native_listen"


@pytest.mark.parametrize("listen", ["localhost:1", "127.0.0.2:1", "[::1]:1"])
def test_loopback(listen: str) -> None:
    """A loopback address needs nothing."""
    assert Settings.read(listen=listen).listen == (listen,)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("5m", 300), ("26h", 93_600), ("2d", 172_800)])
def test_durations(text: str, seconds: int) -> None:
    """A duration is a number of seconds, or a number with its unit."""
    assert Settings.read(freshness_limit=text).policy.freshness_limit_s == seconds


@pytest.mark.parametrize("text", ["over_150k", "OVER_150K", "over-150k"])
def test_deadline(text: str) -> None:
    """A legacy deadline is named in any usual spelling."""
    assert Settings.read(legacy_deadline=text).policy.legacy_deadline is LegacyDeadline.OVER_150K


def test_frozen() -> None:
    """Settings do not change while the server runs."""
    with pytest.raises(ValueError, match="frozen"):
        Settings.read().listen = ("127.0.0.1:1",)


def test_default_texts() -> None:
    """A default is written as it would be given: read back, each is the default."""
    for name, field in Settings.model_fields.items():
        if field.default is not None:
            assert Settings.read(**{name: default_text(name)}) == Settings.read(), name

    assert (default_text("freshness_limit"), default_text("answer_ttl")) == ("26h", "5m")
    assert (default_text("address_key"), default_text("reflection")) == ("", "on")


class TestNamedBrands:
    """Brands whose watermarks are metrics of their own."""

    @pytest.mark.parametrize("given", ["600123, 7,600123", ["600123", "7"], (600_123, 7)])
    def test_read(self, given: object) -> None:
        """They are read from one text or several, each once, and go on to a worker as they are."""
        settings = Settings.read(metrics_brands=given)

        assert settings.metrics_brands == (600_123, 7)
        assert Settings.read(**settings.plain()) == settings
        assert Settings.read(metrics_brands="").metrics_brands == ()

    @pytest.mark.parametrize("given", ["a", "0", "-1", str(2**32), "\u0661", ",".join(map(str, range(1, 52)))])
    def test_refused(self, given: str) -> None:
        """What is no brand code is refused, and so are more than 50."""
        with pytest.raises(SettingsError, match="metrics_brands"):
            Settings.read(metrics_brands=given)
