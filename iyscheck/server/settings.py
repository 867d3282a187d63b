"""What an operator may set: one frozen object, read from flags and `IYSCHECK_*` once, checked before anything starts.

This is the only module that reads them from the environment. A flag wins over its variable; a variable of ours that is
not known is an error, since a misspelt setting that is silently ignored is how a wrong policy gets into production.
"""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from iyscheck.consent import DEFAULT_ANSWER_TTL_S, DEFAULT_FRESHNESS_LIMIT_S, LegacyDeadline, Policy
from iyscheck.errors import SettingsError
from iyscheck.server.addresses import addresses, host_and_port, is_near, is_unix
from iyscheck.times import DURATION_UNITS, duration_s

PREFIX: Final = "IYSCHECK_"
MOST_NAMED_BRANDS: Final = 50
OTHER_VARIABLES: Final = frozenset(
    {
        "IYSCHECK_SERVER",
        "IYSCHECK_LANG",
        "IYSCHECK_TLS_CA",
        "IYSCHECK_CLIENT_CERT",
        "IYSCHECK_CLIENT_KEY",
        "IYSCHECK_API_KEY_FILE",
        "IYSCHECK_CONSOLE_LISTEN",
        "IYSCHECK_CONSOLE_METRICS",
        "IYSCHECK_CONSOLE_TLS_CERT",
        "IYSCHECK_CONSOLE_TLS_KEY",
        "IYSCHECK_CONSOLE_EXPLAINS_PER_MINUTE",
        "IYSCHECK_FEEDS",
        "IYSCHECK_CLUSTER",
    }
)
"""Variables of ours that the server does not read: those of commands that ask, of the console and of the loader."""

_HOST: Final = r"(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|\[?[0-9a-f:]+\]?)"
_SERVICE_VARIABLES: Final = {
    re.compile(name): re.compile(value)
    for name, value in {
        r"_SERVICE_HOST": _HOST,
        r"_SERVICE_PORT(_[A-Z0-9_]+)?": r"[0-9]{1,5}",
        r"_PORT(_[0-9]{1,5}_(TCP|UDP|SCTP))?": rf"(tcp|udp|sctp)://{_HOST}:[0-9]{{1,5}}",
        r"_PORT_[0-9]{1,5}_(TCP|UDP|SCTP)_PROTO": r"tcp|udp|sctp",
        r"_PORT_[0-9]{1,5}_(TCP|UDP|SCTP)_PORT": r"[0-9]{1,5}",
        r"_PORT_[0-9]{1,5}_(TCP|UDP|SCTP)_ADDR": _HOST,
    }.items()
}
"""What Kubernetes tells each container of a Service: how names of variables end behind its name, and the values."""
_SERVICE: Final = re.compile(r"(IYSCHECK(?:_[A-Z0-9_]+)?)_SERVICE_HOST")


def _duration(value: object) -> object:
    """Read `26h`, `5m`, `300s` or `300` as seconds; anything else is for the validation to refuse."""
    with suppress(ValueError):
        return duration_s(value) if isinstance(value, str) else value
    return value


def _deadline(value: object) -> object:
    """Read the name of a legacy deadline in any usual spelling."""
    names = {deadline.name: deadline for deadline in LegacyDeadline}
    return names.get(value.upper().replace("-", "_"), value) if isinstance(value, str) else value


def _host_and_port_or_off(value: str) -> str:
    return host_and_port(value) if value else value


def _native_address(value: str) -> str:
    """Read one address, or none."""
    if not value:
        return value
    found = addresses(value, "native_listen")
    if len(found) > 1:
        raise ValueError("is one address, not several")
    return found[0]


def _brands(value: object) -> object:
    """Read brand codes between commas, or several such texts. Raises ValueError."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple):
        return value
    codes = [code.strip() for text in texts for code in str(text).split(",") if code.strip()]
    if not all(code.isascii() and code.isdigit() and 0 < int(code) < 2**32 for code in codes):
        raise ValueError("are not brand codes between commas, such as 600123,600124")
    if len(codes) > MOST_NAMED_BRANDS:
        raise ValueError(f"are more than {MOST_NAMED_BRANDS} brands; a metric for each of very many helps nobody")
    return tuple(dict.fromkeys(map(int, codes)))


Seconds = Annotated[int, BeforeValidator(_duration)]
Address = Annotated[str, BeforeValidator(_native_address)]
Addresses = Annotated[tuple[str, ...], NoDecode, BeforeValidator(addresses)]
Brands = Annotated[tuple[int, ...], NoDecode, BeforeValidator(_brands)]
Deadline = Annotated[
    LegacyDeadline, BeforeValidator(_deadline), PlainSerializer(lambda deadline: deadline.name.lower(), str)
]


class Settings(BaseSettings):
    """The settings of a server. Durations are seconds; as text they may end in s, m, h or d."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", validate_default=True)

    store: Path = Field(Path("store"), description="Directory of the store.")
    store_key: Path = Field(Path("store.key"), description="File of the store key.")
    address_key: Path | None = Field(None, description="File of the address key; without it only tokens are answered.")
    listen: Addresses = Field(
        ("127.0.0.1:50051",), description="HOST:PORT or unix:PATH for gRPC; several, between commas or flag by flag."
    )
    metrics_listen: Annotated[str, BeforeValidator(_host_and_port_or_off)] = Field(
        "127.0.0.1:9464", description="HOST:PORT for Prometheus; empty = off."
    )
    metrics_brands: Brands = Field(
        (), description="Brand codes, at most 50, whose watermarks are metrics of their own; between commas."
    )
    insecure: bool = Field(default=False, description="Allow plain text on an address that is not loopback.")
    native_listen: Address = Field(
        "", description="HOST:PORT or unix:PATH for the faster front of unary calls, which has no TLS; empty = off."
    )
    native_insecure: bool = Field(
        default=False, description="Allow that front, which speaks plain text, on an address that is not loopback."
    )
    tls_cert: Path | None = Field(None, description="Certificate in PEM, with its chain: encrypts gRPC and metrics.")
    tls_key: Path | None = Field(None, description="Key of the certificate.")
    tls_client_ca: Path | None = Field(None, description="CA of clients: each must have a certificate of it.")
    callers: Path | None = Field(None, description="Callers file: who may ask what. Without it everybody may ask all.")
    merchants_need_record: bool = Field(default=False, description="Deny merchants (TACIR) without a record.")
    legacy_deadline: Deadline = Field(
        LegacyDeadline.UP_TO_150K,
        description="Until when old consents had to be registered: `announced`, `over_150k` or `up_to_150k`.",
    )
    freshness_limit: Seconds = Field(DEFAULT_FRESHNESS_LIMIT_S, ge=1, description="How old a brand's watermark may be.")
    answer_ttl: Seconds = Field(DEFAULT_ANSWER_TTL_S, ge=0, description="How long an answer is valid.")
    workers: int = Field(0, ge=0, le=256, description="Processes that answer; 0 = one per usable core.")
    max_streams: int = Field(32, ge=1, le=1024, description="Streams open at once, in each worker.")
    max_connections: int = Field(10_000, ge=1, le=1_000_000, description="Connections open at once, in each worker.")
    unary_workers: int = Field(
        4, ge=1, le=256, description="Threads for single checks, as many for batches; in each worker."
    )
    drain_seconds: float = Field(10.0, ge=0, le=3600, description="How long calls may go on after SIGTERM.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level that is logged: `debug`, `info`, `warning`, `error`."
    )
    reflection: bool = Field(default=True, description="Offer gRPC reflection, which grpcurl needs.")

    @model_validator(mode="after")
    def _plain_text_stays_at_home(self) -> Self:
        if self.insecure or self.tls_cert is not None:
            return self
        metrics = (self.metrics_listen,) if self.metrics_listen else ()
        for field, given in (("listen", self.listen), ("metrics_listen", metrics)):
            open_to_all = [address for address in given if not is_near(address)]
            if not open_to_all:
                continue
            are = "are not loopback addresses" if len(open_to_all) > 1 else "is not a loopback address"
            raise SettingsError(
                field,
                f"{' and '.join(open_to_all)} {are}, and this server speaks plain text.",
                fix="Add --tls-cert and --tls-key, listen on 127.0.0.1, or add --insecure in a network that you trust.",
            )
        return self

    @model_validator(mode="after")
    def _native_stays_at_home(self) -> Self:
        if self.native_listen and not self.native_insecure and not is_near(self.native_listen):
            raise SettingsError(
                "native_listen",
                f"{self.native_listen} is not a loopback address, and the native front speaks plain text.",
                fix="Use unix:PATH or 127.0.0.1 behind what ends TLS, or add --native-insecure in a network you trust.",
            )
        near_port = self.native_listen and not is_unix(self.native_listen) and not self.native_insecure
        if near_port and self.tls_client_ca is not None and self.callers is None:
            raise SettingsError(
                "native_listen",
                "lets every program of this machine in without the certificate that tls_client_ca asks for.",
                fix="Add --callers, so that each call needs a key there, use unix:PATH, or add --native-insecure.",
            )
        return self

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            missing, given = ("tls_key", "tls_cert") if self.tls_key is None else ("tls_cert", "tls_key")
            raise SettingsError(missing, f"is missing beside {given}.", fix="A certificate needs its key.")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise SettingsError("tls_cert", "is missing beside tls_client_ca.", fix="Only TLS asks for certificates.")
        return self

    @property
    def serves_tls(self) -> bool:
        """Whether the ports are encrypted."""
        return self.tls_cert is not None

    @property
    def policy(self) -> Policy:
        """The choices that are part of the rule."""
        return Policy(
            merchants_need_record=self.merchants_need_record,
            legacy_deadline=self.legacy_deadline,
            freshness_limit_s=self.freshness_limit,
        )

    def plain(self) -> dict[str, object]:
        """Return what JSON can say of them. Paths may hold bytes that are not UTF-8, as lone surrogates."""
        return {name: _plain(value) for name, value in self.model_dump().items()}

    @classmethod
    def read(cls, **flags: object) -> Self:
        """Build the settings from flags (None = not given) and the environment. Raises SettingsError."""
        _refuse_unknown(os.environ)
        try:
            return cls(**{name: value for name, value in flags.items() if value is not None})  # type: ignore[arg-type] # pydantic checks them
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or "settings"
            raise SettingsError(field, first["msg"].removeprefix("Value error, ") + ".") from None


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value) if isinstance(value, Path) else value


def default_text(name: str) -> str:
    """Write the default of a setting as people would give it; empty where it has none."""
    field = Settings.model_fields[name]
    default = field.default
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    if isinstance(default, LegacyDeadline):
        return default.name.lower()
    if any(isinstance(each, BeforeValidator) and each.func is _duration for each in field.metadata):
        units = [(unit, seconds) for unit, seconds in DURATION_UNITS.items() if seconds > 1 and unit != "d"]
        unit, seconds = next(((unit, each) for unit, each in reversed(units) if default % each == 0), ("s", 1))
        return f"{default // seconds}{unit}"
    return "" if default is None else f"{default:g}" if isinstance(default, float) else str(default)


def _refuse_unknown(variables: Mapping[str, str]) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields} | OTHER_VARIABLES
    services = [found[1] for name in variables if (found := _SERVICE.fullmatch(name))]
    unknown = sorted(
        name
        for name, value in variables.items()
        if name.upper().startswith(PREFIX) and name.upper() not in known and not _is_of(services, name, value)
    )
    if unknown:
        raise SettingsError(unknown[0], "is not a setting.", fix=f"Known are: {', '.join(sorted(known))}.")


def _is_of(services: list[str], name: str, value: str) -> bool:
    """Say whether a variable is one that Kubernetes sets for a Service called `iyscheck` or `iyscheck-...`."""
    return any(
        name.startswith(service) and ending.fullmatch(name, len(service)) and form.fullmatch(value)
        for service in services
        for ending, form in _SERVICE_VARIABLES.items()
    )
