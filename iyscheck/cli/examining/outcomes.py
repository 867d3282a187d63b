"""What an examination can find: each outcome has its group, its state, and the heading that tells more."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple


class State(StrEnum):
    """What a finding means."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


class Group(StrEnum):
    """Findings that are shown together."""

    SETTINGS = "settings"
    KEYS = "keys"
    STORE = "store"
    DATA = "data"
    MACHINE = "machine"
    DOOR = "door"
    SERVER = "server"


class Outcome(StrEnum):
    """Everything that can be found."""

    SETTINGS_GOOD = "SETTINGS_GOOD"
    SETTINGS_BAD = "SETTINGS_BAD"
    STORE_KEY_GOOD = "STORE_KEY_GOOD"
    STORE_KEY_BAD = "STORE_KEY_BAD"
    ADDRESS_KEY_GOOD = "ADDRESS_KEY_GOOD"
    ADDRESS_KEY_BAD = "ADDRESS_KEY_BAD"
    ADDRESS_KEY_NONE = "ADDRESS_KEY_NONE"
    STORE_OPEN = "STORE_OPEN"
    STORE_NOT_OPEN = "STORE_NOT_OPEN"
    FORMAT_OLDER = "FORMAT_OLDER"
    KEYS_FIT = "KEYS_FIT"
    KEYS_OF_ANOTHER = "KEYS_OF_ANOTHER"
    SAMPLE_WHOLE = "SAMPLE_WHOLE"
    SAMPLE_DAMAGED = "SAMPLE_DAMAGED"
    INDEX_MISSING = "INDEX_MISSING"
    PRIMARY_OF_LOG = "PRIMARY_OF_LOG"
    PRIMARY_NO_MORE = "PRIMARY_NO_MORE"
    REPLICA_FOLLOWS = "REPLICA_FOLLOWS"
    REPLICA_LAGS = "REPLICA_LAGS"
    REPLICA_UNTRUSTED = "REPLICA_UNTRUSTED"
    DISK_ENOUGH = "DISK_ENOUGH"
    DISK_SHORT = "DISK_SHORT"
    DISK_FULL = "DISK_FULL"
    READERS_FEW = "READERS_FEW"
    READERS_MANY = "READERS_MANY"
    FRESH = "FRESH"
    STALE = "STALE"
    NO_WATERMARK = "NO_WATERMARK"
    BRANDS_FRESH = "BRANDS_FRESH"
    BRANDS_STALE = "BRANDS_STALE"
    NO_BRANDS = "NO_BRANDS"
    REJECTS_NONE = "REJECTS_NONE"
    REJECTS_WAIT = "REJECTS_WAIT"
    CLOCK_PLAUSIBLE = "CLOCK_PLAUSIBLE"
    CLOCK_BEHIND = "CLOCK_BEHIND"
    KERNEL_COMPILED = "KERNEL_COMPILED"
    KERNEL_NUMPY = "KERNEL_NUMPY"
    KERNEL_UNUSABLE = "KERNEL_UNUSABLE"
    CERTIFICATE_GOOD = "CERTIFICATE_GOOD"
    CERTIFICATE_ENDS = "CERTIFICATE_ENDS"
    CERTIFICATE_BAD = "CERTIFICATE_BAD"
    CERTIFICATE_OTHER_NAME = "CERTIFICATE_OTHER_NAME"
    PLAIN_TEXT_INSIDE = "PLAIN_TEXT_INSIDE"
    PLAIN_TEXT_OUTSIDE = "PLAIN_TEXT_OUTSIDE"
    CALLERS_GOOD = "CALLERS_GOOD"
    CALLERS_BAD = "CALLERS_BAD"
    CALLERS_NONE = "CALLERS_NONE"
    CALLERS_NONE_OUTSIDE = "CALLERS_NONE_OUTSIDE"
    PORT_FREE = "PORT_FREE"
    PORT_OURS = "PORT_OURS"
    PORT_TAKEN = "PORT_TAKEN"
    PORT_UNSURE = "PORT_UNSURE"
    SERVER_SERVES = "SERVER_SERVES"
    SERVER_ABSENT = "SERVER_ABSENT"
    SERVER_UNREACHABLE = "SERVER_UNREACHABLE"
    SERVER_NOT_SERVING = "SERVER_NOT_SERVING"
    SERVER_FRESH = "SERVER_FRESH"
    SERVER_BEHIND = "SERVER_BEHIND"
    SERVER_STALE = "SERVER_STALE"
    SERVER_NOT_FRESH = "SERVER_NOT_FRESH"
    SERVER_KEYS_FIT = "SERVER_KEYS_FIT"
    SERVER_OTHER_KEYS = "SERVER_OTHER_KEYS"
    SERVER_OTHER_STORE = "SERVER_OTHER_STORE"
    SERVER_SILENT = "SERVER_SILENT"
    METRICS_READ = "METRICS_READ"
    METRICS_OFF = "METRICS_OFF"
    METRICS_NOT_READ = "METRICS_NOT_READ"
    NOT_EXAMINED = "NOT_EXAMINED"


class Meaning(NamedTuple):
    """Where an outcome is shown, what it means, and where more is told."""

    group: Group
    state: State
    link: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One outcome with its facts. No key, address or token is ever one."""

    outcome: Outcome
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def meaning(self) -> Meaning:
        """What it means."""
        return MEANINGS[self.outcome]


_SETTINGS: Final = "README.md#settings-of-iyscheck-serve"
_FILES: Final = "docs/operating.md#files"
_KEYS: Final = "docs/operating.md#keys"
_DISK: Final = "docs/operating.md#disk"
_BACKUP: Final = "docs/operating.md#restore"
_CONTAINERS: Final = "docs/operating.md#containers"
_HEALTH: Final = "docs/operating.md#health"
_WATERMARKS: Final = "docs/loader.md#watermarks"
_REJECTS: Final = "docs/loader.md#rejects"
_INDEX: Final = "docs/loader.md#status-verify-rebuild-index"
_ROWS: Final = "docs/loader.md#rows"
_CERTIFICATES: Final = "docs/callers.md#certificates"
_CALLERS: Final = "docs/callers.md#the-file"
_DOOR: Final = "README.md#open-the-door"
_START: Final = "docs/operating.md#start"
_INSTALL: Final = "README.md#five-minutes"
_REPLICA: Final = "docs/replicas.md#replica"
_FAILS: Final = "docs/replicas.md#when-something-fails"

_OF: Final = {
    Group.SETTINGS: {
        State.OK: {Outcome.SETTINGS_GOOD: _SETTINGS},
        State.FAULT: {Outcome.SETTINGS_BAD: _SETTINGS, Outcome.NOT_EXAMINED: _START},
    },
    Group.KEYS: {
        State.OK: {
            Outcome.STORE_KEY_GOOD: _KEYS,
            Outcome.ADDRESS_KEY_GOOD: _KEYS,
            Outcome.ADDRESS_KEY_NONE: _KEYS,
            Outcome.KEYS_FIT: _KEYS,
        },
        State.FAULT: {
            Outcome.STORE_KEY_BAD: _FILES,
            Outcome.ADDRESS_KEY_BAD: _FILES,
            Outcome.KEYS_OF_ANOTHER: _KEYS,
        },
    },
    Group.STORE: {
        State.OK: {
            Outcome.STORE_OPEN: _FILES,
            Outcome.SAMPLE_WHOLE: _INDEX,
            Outcome.DISK_ENOUGH: _DISK,
            Outcome.READERS_FEW: _FILES,
            Outcome.PRIMARY_OF_LOG: "docs/replicas.md#primary",
            Outcome.REPLICA_FOLLOWS: _REPLICA,
        },
        State.WARNING: {
            Outcome.REPLICA_LAGS: _FAILS,
            Outcome.FORMAT_OLDER: _INDEX,
            Outcome.INDEX_MISSING: _INDEX,
            Outcome.DISK_SHORT: _DISK,
            Outcome.READERS_MANY: _CONTAINERS,
        },
        State.FAULT: {
            Outcome.STORE_NOT_OPEN: _FILES,
            Outcome.SAMPLE_DAMAGED: _BACKUP,
            Outcome.PRIMARY_NO_MORE: _FAILS,
            Outcome.REPLICA_UNTRUSTED: _FAILS,
            Outcome.DISK_FULL: _DISK,
        },
    },
    Group.DATA: {
        State.OK: {Outcome.FRESH: _WATERMARKS, Outcome.BRANDS_FRESH: _WATERMARKS, Outcome.REJECTS_NONE: _REJECTS},
        State.WARNING: {Outcome.BRANDS_STALE: _WATERMARKS, Outcome.REJECTS_WAIT: _REJECTS},
        State.FAULT: {
            Outcome.STALE: _WATERMARKS,
            Outcome.NO_WATERMARK: _WATERMARKS,
            Outcome.NO_BRANDS: _ROWS,
        },
    },
    Group.MACHINE: {
        State.OK: {Outcome.CLOCK_PLAUSIBLE: _WATERMARKS, Outcome.KERNEL_COMPILED: _INSTALL},
        State.WARNING: {Outcome.KERNEL_NUMPY: _INSTALL, Outcome.KERNEL_UNUSABLE: _INSTALL},
        State.FAULT: {Outcome.CLOCK_BEHIND: _WATERMARKS},
    },
    Group.DOOR: {
        State.OK: {
            Outcome.CERTIFICATE_GOOD: _CERTIFICATES,
            Outcome.PLAIN_TEXT_INSIDE: _DOOR,
            Outcome.CALLERS_GOOD: _CALLERS,
            Outcome.CALLERS_NONE: _CALLERS,
        },
        State.WARNING: {
            Outcome.CERTIFICATE_ENDS: _CERTIFICATES,
            Outcome.CERTIFICATE_OTHER_NAME: _CERTIFICATES,
            Outcome.PLAIN_TEXT_OUTSIDE: _DOOR,
            Outcome.CALLERS_NONE_OUTSIDE: _DOOR,
        },
        State.FAULT: {Outcome.CERTIFICATE_BAD: _CERTIFICATES, Outcome.CALLERS_BAD: _CALLERS},
    },
    Group.SERVER: {
        State.OK: {
            Outcome.PORT_FREE: _START,
            Outcome.PORT_OURS: _START,
            Outcome.SERVER_SERVES: _HEALTH,
            Outcome.SERVER_FRESH: _HEALTH,
            Outcome.SERVER_KEYS_FIT: _KEYS,
            Outcome.METRICS_READ: _SETTINGS,
            Outcome.METRICS_OFF: _SETTINGS,
        },
        State.WARNING: {
            Outcome.PORT_UNSURE: _START,
            Outcome.SERVER_ABSENT: _START,
            Outcome.SERVER_BEHIND: _FAILS,
            Outcome.SERVER_STALE: _HEALTH,
            Outcome.SERVER_NOT_FRESH: _HEALTH,
        },
        State.FAULT: {
            Outcome.PORT_TAKEN: _START,
            Outcome.SERVER_UNREACHABLE: _DOOR,
            Outcome.SERVER_NOT_SERVING: _HEALTH,
            Outcome.SERVER_OTHER_KEYS: _KEYS,
            Outcome.SERVER_OTHER_STORE: _KEYS,
            Outcome.SERVER_SILENT: _DOOR,
            Outcome.METRICS_NOT_READ: _SETTINGS,
        },
    },
}

MEANINGS: Final[Mapping[Outcome, Meaning]] = {
    outcome: Meaning(group, state, link)
    for group, states in _OF.items()
    for state, outcomes in states.items()
    for outcome, link in outcomes.items()
}
