"""Every error that iyscheck raises on purpose.

IyscheckError                     never raised itself
├── InputError                    what was asked or given cannot be right; names the field
│   ├── QuestionError             a question or frame
│   ├── BatchTooLargeError        more recipients than one message may carry
│   ├── MalformedError            bytes that are not the message they should be
│   │   └── MalformedFrameError   the same inside a stream, which ends
│   ├── PageError                 a page of a list: its size, its token, what is listed
│   ├── SettingsError             a flag, an environment variable, an option
│   └── SettingsFileError         a file of settings, a line of it, or its mode
│       ├── CallersFileError          the callers file
│       ├── FeedsFileError            the file that says how the mirror is filled
│       └── ClusterError              the file that says who belongs to a log
├── CallersError                  who calls, and what they may ask
│   ├── CallerUnknownError        nobody of the callers file
│   │   └── CallersDisagreeError  what was presented names more than one caller
│   ├── ScopeError                out of the caller's scope
│   │   ├── CallNotAllowedError       this call
│   │   ├── BrandNotInScopeError      this brand
│   │   ├── ChannelNotInScopeError    this channel
│   │   └── AddressesNotAllowedError  plaintext addresses
│   ├── CallerRevokedError        the caller was changed or removed while its stream was open
│   ├── RateLimitedError          the caller's rate is used up; try again when it says
│   └── QuotaTableError           the table that workers share rates by cannot be used
├── KeysError                     key files and key ids
│   ├── KeyFileError              a key file that cannot be used
│   ├── AddressKeyNotHeldError    plaintext was sent to a process without the address key
│   └── AddressKeyMismatchError   tokens were made with another address key
├── StoreError                    the store as a whole
│   ├── StoreMissingError         there is none at this path
│   ├── StoreUnreadableError      the files are there but cannot be opened
│   ├── StoreKeysError            it was written with other keys
│   ├── StoreFormatError          it was written by a newer iyscheck
│   ├── StoreFullError            the disk is full
│   ├── StoreBusyError            another loader is writing to it
│   ├── StoreClosedError          it was closed, or opened before this process was forked
│   ├── StoreRoleError            it is in a log, and may not be written this way
│   ├── StoreReplacedError        its files are no longer those that were opened, or not of one store
│   └── StoreCorruptError         a value that no iyscheck wrote
├── LogError                      a batch of the log that cannot be put into a store
│   ├── LogOrderError             it does not follow the one before: something is missing, or another log
│   ├── LogForkError              another batch of its number is in already
│   └── LogDivergedError          the store would not be what the primary's is
├── LogUnavailableError           nobody answers for the log, or there is none
├── PublishError                  what a primary may not put into its log any more
│   ├── LogFencedError            another primary has begun, or somebody else writes there
│   └── LogRestoredError          the log has more of this store than the store has
├── MessageRejectedError          a message of the log, or a part of a copy, that cannot be believed or read
├── PositionError                 read-your-writes
│   ├── PositionOfOtherLogError   the position belongs to another store
│   └── NotYetAtPositionError     the store has not come so far yet
├── SnapshotError                 a snapshot of the store cannot be made or taken
│   ├── SnapshotMissingError      no snapshot may be taken from a place
│   └── PlaceAwayError            a place of snapshots does not answer, or does not take what is put there
├── OverloadedError               a limit on concurrent work is reached; try again
├── KernelError                   a compiled loop cannot run in this process
├── MemoryShortError              there is not enough memory
├── SystemRefusedError            the system refused something that a command needs
├── WorkersError                  the worker processes of a server do not stay alive, or get no threads
├── SourceError                   one feed source
│   ├── SourceUnreadableError     it cannot be opened, read or decompressed
│   ├── SourceChangedError        its beginning is not what was loaded before
│   ├── SourceUnknownError        no such source was ever loaded
│   ├── WatermarkError            a watermark that cannot be true
│   ├── GapError                  a gap that cannot be accepted
│   └── AdmissionError            a brand or channel that cannot be admitted
├── ArchiveError                  what came from İYS cannot be kept
├── IysError                      İYS itself did not give what was asked for
└── ServiceError                  what a client met when it asked a server
    ├── ServiceUnavailableError   nobody answered, or not in time
    ├── ServiceRefusedError       the server says that the request is wrong
    └── ServiceFailedError        the server failed, or answered what it must not
"""

from typing import ClassVar


class IyscheckError(Exception):
    """Base of all our errors: a message for people, a reason for programs, and what to do next.

    Never put an address, a token or a key into one: errors end up in logs.
    """

    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message} {self.fix}".rstrip()

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (type(self), self.args, vars(self))  # through pools of processes, whatever it is made of


def _restored(kind: type[IyscheckError], args: tuple[object, ...], state: dict[str, object]) -> IyscheckError:
    """Make an error again in another process."""
    error = kind.__new__(kind, *args)
    vars(error).update(state)
    return error


class InputError(IyscheckError):
    """What was asked or given cannot be right. `field` is the path of the field at fault."""

    reason: ClassVar[str] = "INVALID_INPUT"

    def __init__(self, field: str, message: str, *, fix: str = "") -> None:
        super().__init__(f"{field}: {message}", fix=fix)
        self.field = field


class QuestionError(InputError):
    """A question or frame has a field that cannot be answered."""

    reason: ClassVar[str] = "INVALID_QUESTION"


class BatchTooLargeError(InputError):
    """More recipients than one message may carry."""

    reason: ClassVar[str] = "BATCH_TOO_LARGE"

    def __init__(self, field: str, *, maximum: int, actual: int) -> None:
        super().__init__(
            field,
            f"{actual} is more than the maximum of {maximum}.",
            fix="Split it; GetServerInfo names the limits.",
        )
        self.maximum = maximum
        self.actual = actual


class MalformedError(InputError):
    """Bytes that are not the protobuf message they should be."""

    reason: ClassVar[str] = "MALFORMED_REQUEST"


class MalformedFrameError(MalformedError):
    """Bytes inside a stream that are not a frame: the stream cannot go on."""

    reason: ClassVar[str] = "MALFORMED_FRAME"


class PageError(InputError):
    """A page of a list that cannot be given: its size, its token, or what is to be listed."""

    reason: ClassVar[str] = "INVALID_PAGE"


class SettingsError(InputError):
    """A flag, environment variable or option that cannot be used."""

    reason: ClassVar[str] = "INVALID_SETTING"


class SettingsFileError(InputError):
    """A file of settings cannot be used. `line` is where in it, counted from 1; None if that cannot be told."""

    reason: ClassVar[str] = "SETTINGS_FILE_UNUSABLE"

    def __init__(self, field: str, message: str, *, line: int | None = None, fix: str = "") -> None:
        super().__init__(field, message, fix=fix)
        self.line = line


class CallersFileError(SettingsFileError):
    """The callers file cannot be used."""

    reason: ClassVar[str] = "CALLERS_FILE_UNUSABLE"


class FeedsFileError(SettingsFileError):
    """The file that says from where and how the mirror is filled cannot be used."""

    reason: ClassVar[str] = "FEEDS_FILE_UNUSABLE"


class ClusterError(SettingsFileError):
    """The file that says who belongs to a log, and where it is, cannot be used."""

    reason: ClassVar[str] = "CLUSTER_FILE_UNUSABLE"


class CallersError(IyscheckError):
    """Who calls, and what they may ask. No key, nor a part of one, is ever in the text."""

    reason: ClassVar[str] = "CALLERS"


class CallerUnknownError(CallersError):
    """Neither a key nor a certificate that names a caller was presented."""

    reason: ClassVar[str] = "CALLER_UNKNOWN"


class CallersDisagreeError(CallerUnknownError):
    """What was presented names more than one caller."""

    reason: ClassVar[str] = "CALLERS_DISAGREE"


class CallerRevokedError(CallersError):
    """The callers file has changed, and a stream's caller is no longer what it was."""

    reason: ClassVar[str] = "CALLER_REVOKED"


class ScopeError(CallersError):
    """Out of the caller's scope, whatever the store holds: the text is made of the question and the callers file."""

    reason: ClassVar[str] = "OUT_OF_SCOPE"


class CallNotAllowedError(ScopeError):
    """The caller may not make this call."""

    reason: ClassVar[str] = "CALL_NOT_ALLOWED"


class BrandNotInScopeError(ScopeError):
    """The caller may not ask about this brand."""

    reason: ClassVar[str] = "BRAND_NOT_IN_SCOPE"


class ChannelNotInScopeError(ScopeError):
    """The caller may not ask about this channel."""

    reason: ClassVar[str] = "CHANNEL_NOT_IN_SCOPE"


class AddressesNotAllowedError(ScopeError):
    """The caller may send tokens only."""

    reason: ClassVar[str] = "ADDRESSES_NOT_ALLOWED"


class RateLimitedError(CallersError):
    """The caller's rate is used up. `wait_s` is when the same request could pass, in seconds from now."""

    reason: ClassVar[str] = "RATE_LIMITED"

    def __init__(self, message: str, *, wait_s: float, fix: str = "") -> None:
        super().__init__(message, fix=fix)
        self.wait_s = wait_s


class QuotaTableError(CallersError):
    """The table that worker processes share rates by cannot be opened."""

    reason: ClassVar[str] = "QUOTA_TABLE_UNUSABLE"


class KeysError(IyscheckError):
    """Key files and key ids."""

    reason: ClassVar[str] = "KEYS"


class KeyFileError(KeysError):
    """A key file is missing, damaged, of the wrong kind or readable by others."""

    reason: ClassVar[str] = "KEY_FILE_UNUSABLE"


class AddressKeyNotHeldError(KeysError):
    """Plaintext addresses were sent to a process that does not hold the address key."""

    reason: ClassVar[str] = "ADDRESS_KEY_NOT_HELD"


class AddressKeyMismatchError(KeysError):
    """Tokens were made with another address key than the store's."""

    reason: ClassVar[str] = "ADDRESS_KEY_MISMATCH"


class StoreError(IyscheckError):
    """The store as a whole."""

    reason: ClassVar[str] = "STORE"


class StoreMissingError(StoreError):
    """There is no store at this path."""

    reason: ClassVar[str] = "STORE_MISSING"


class StoreUnreadableError(StoreError):
    """The store's files are there but cannot be opened or read."""

    reason: ClassVar[str] = "STORE_UNREADABLE"


class StoreKeysError(StoreError):
    """The store was written with other keys than the ones given."""

    reason: ClassVar[str] = "STORE_KEYS_MISMATCH"


class StoreFormatError(StoreError):
    """The store was written by a newer iyscheck."""

    reason: ClassVar[str] = "STORE_FORMAT_NEWER"


class StoreFullError(StoreError):
    """The disk (or the map) is full; what was being applied is not in the store."""

    reason: ClassVar[str] = "STORE_FULL"


class StoreBusyError(StoreError):
    """Another loader is writing to this store."""

    reason: ClassVar[str] = "STORE_BUSY"


class StoreClosedError(StoreError):
    """The store was closed, or it was opened before this process was forked from the one that may use it."""

    reason: ClassVar[str] = "STORE_CLOSED"


class StoreRoleError(StoreError):
    """The store is in a log: a replica that only its log may change, or a primary whose changes must be sealed."""

    reason = "STORE_ROLE"


class StoreReplacedError(StoreError):
    """The files at the store's path are no longer those that were opened, or do not belong together."""

    reason: ClassVar[str] = "STORE_REPLACED"


RESTORE: str = (
    "Stop the loader and every process that reads the store; then put a backup in place of the whole directory, or of "
    "data.mdb and remove lock.mdb; or load the feed into a new store."
)
"""What to do about a store that is damaged. While any process has the store open, a data.mdb that is put beside its
lock.mdb is read and written as if it were the old one."""


class StoreCorruptError(StoreError):
    """The store holds a value that no iyscheck wrote: torn, zero-filled or damaged."""

    reason: ClassVar[str] = "STORE_CORRUPT"


class LogError(IyscheckError):
    """A batch of the log cannot be put into a store. Nothing of it is."""

    reason = "LOG"


class LogOrderError(LogError):
    """A batch does not follow the newest one that is in: something between is missing, or it is of another log."""

    reason = "LOG_ORDER"


class LogForkError(LogError):
    """Another batch of the same number is in already: two primaries wrote."""

    reason = "LOG_FORK"


class LogDivergedError(LogError):
    """With the batch the store would not be what the primary's is: one of them is at fault."""

    reason = "LOG_DIVERGED"


class LogUnavailableError(IyscheckError):
    """Nobody answers for the log, it does not do what it is asked for, or there is none."""

    reason: ClassVar[str] = "LOG_UNAVAILABLE"


class PublishError(IyscheckError):
    """What a primary has made may not go into the log any more. Only a person knows what should be."""

    reason: ClassVar[str] = "PUBLISH"


class LogFencedError(PublishError):
    """The log ends with what another primary has put there, or with what is none of ours."""

    reason: ClassVar[str] = "LOG_FENCED"


class LogRestoredError(PublishError):
    """The log has batches of this store that the store has not: an older copy of it was put in its place."""

    reason: ClassVar[str] = "LOG_RESTORED"


class MessageRejectedError(IyscheckError):
    """A message of the log, or a part of a copy of a store, that cannot be believed or read. `why` names the reason."""

    reason: ClassVar[str] = "MESSAGE_REJECTED"

    def __init__(self, message: str, *, fix: str = "", why: str = "") -> None:
        super().__init__(message, fix=fix)
        self.why = why


class PositionError(IyscheckError):
    """Read-your-writes could not be had."""

    reason: ClassVar[str] = "POSITION"


class PositionOfOtherLogError(PositionError):
    """The asked position belongs to another store's log."""

    reason: ClassVar[str] = "POSITION_OF_OTHER_LOG"


class NotYetAtPositionError(PositionError):
    """The store has not come to the asked position in the time there was. Another one may have: `elsewhere`."""

    reason: ClassVar[str] = "NOT_YET_AT_POSITION"

    def __init__(self, message: str, *, fix: str = "", elsewhere: bool = False) -> None:
        super().__init__(message, fix=fix)
        self.elsewhere = elsewhere


class SnapshotError(IyscheckError):
    """A snapshot of the store cannot be made or taken."""

    reason: ClassVar[str] = "SNAPSHOT_FAILED"


class SnapshotMissingError(SnapshotError):
    """At a place lies no snapshot that may be taken."""

    reason: ClassVar[str] = "SNAPSHOT_MISSING"


class PlaceAwayError(SnapshotError):
    """A place of snapshots does not answer, or does not take what is put there; try again later."""

    reason: ClassVar[str] = "SNAPSHOT_PLACE_AWAY"


class OverloadedError(IyscheckError):
    """A limit on concurrent work is reached; try again in a moment. `of_caller`: a limit of that caller alone."""

    reason: ClassVar[str] = "OVERLOADED"

    def __init__(self, message: str, *, of_caller: bool = False, fix: str = "") -> None:
        super().__init__(message, fix=fix)
        self.of_caller = of_caller


class MemoryShortError(IyscheckError):
    """There is not enough memory for what a command was asked to do."""

    reason: ClassVar[str] = "OUT_OF_MEMORY"


class SystemRefusedError(IyscheckError):
    """The system refused something that a command needs: a thread, a temporary folder, a place to write to."""

    reason: ClassVar[str] = "SYSTEM"


class KernelError(IyscheckError):
    """A compiled loop cannot run in this process."""

    reason: ClassVar[str] = "KERNEL"


class WorkersError(IyscheckError):
    """A worker process ended before it answered, or again and again soon after; or there are no threads for one."""

    reason: ClassVar[str] = "WORKERS_FAILED"


class SourceError(IyscheckError):
    """One feed source."""

    reason: ClassVar[str] = "SOURCE"


class SourceUnreadableError(SourceError):
    """The source cannot be opened, read or decompressed."""

    reason: ClassVar[str] = "SOURCE_UNREADABLE"


class SourceChangedError(SourceError):
    """The part of the source that was loaded before is not the same any more."""

    reason: ClassVar[str] = "SOURCE_CHANGED"


class SourceUnknownError(SourceError):
    """No source of that name was ever loaded into this store."""

    reason: ClassVar[str] = "SOURCE_UNKNOWN"


class WatermarkError(SourceError):
    """A watermark that cannot be true, such as one in the future."""

    reason: ClassVar[str] = "WATERMARK_AHEAD_OF_CLOCK"


class GapError(SourceError):
    """A gap that cannot be accepted: there is none, or it is not known where it begins."""

    reason: ClassVar[str] = "GAP_REFUSED"


class AdmissionError(SourceError):
    """A brand or channel that cannot be admitted: İYS does not list it, or nothing of it waits."""

    reason: ClassVar[str] = "ADMISSION_REFUSED"


class ArchiveError(IyscheckError):
    """What came from İYS cannot be written into the archive."""

    reason: ClassVar[str] = "ARCHIVE_UNWRITABLE"


class IysError(IyscheckError):
    """İYS itself, or the way to it, did not give what was asked for."""

    reason: ClassVar[str] = "IYS_FAILED"


class ServiceError(IyscheckError):
    """What a client met when it asked a server. `code` is the server's own reason, if it gave one.

    A check that ended in any of these was not answered: do not send.
    """

    reason: ClassVar[str] = "SERVICE"

    def __init__(self, message: str, *, code: str = "", field: str = "", fix: str = "") -> None:
        super().__init__(message, fix=fix)
        self.code = code or self.reason
        self.field = field


class ServiceUnavailableError(ServiceError):
    """Nobody answered, not in time, or the server asks to try again later."""

    reason: ClassVar[str] = "SERVICE_UNAVAILABLE"


class ServiceRefusedError(ServiceError):
    """The server says that the request is wrong; the same request will be refused again."""

    reason: ClassVar[str] = "SERVICE_REFUSED"


class ServiceFailedError(ServiceError):
    """The server failed, or sent an answer that it must not send."""

    reason: ClassVar[str] = "SERVICE_FAILED"
