"""What İYS, or the way to it, may say instead of an answer.

None of these ever holds a body, an address, a name or a secret: they end up in logs. `code` is İYS's own (H353), empty
where it gave none; `status` is that of HTTP, 0 where nothing came.
"""


class IysFault(Exception):  # noqa: N818 - in this project a fault is what somebody else did
    """Base of all: what was asked has no answer now. Never raised itself."""

    def __init__(self, message: str, *, status: int = 0, code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code


class TransientFault(IysFault):
    """It may go better soon: no connection, too slow, cut short, 5xx, HTML, what is no answer of this operation."""


class SlowedFault(IysFault):
    """Too fast (429): the rate has been lowered already. Ask again later, nothing is lost."""


class LockedFault(IysFault):
    """No token may be asked for until `until_s` (seconds UTC), whatever the account."""

    def __init__(self, message: str, *, until_s: float) -> None:
        super().__init__(message, status=429, code="H084")
        self.until_s = until_s


class AuthFailedFault(IysFault):
    """User name or password are wrong: nothing is asked again until their file changes."""


class ForbiddenFault(IysFault):
    """This account may not ask that (403): H353 foreign code, H520 paused, H521 closed, H524, H586 no API."""


class RefusedFault(IysFault):
    """The request itself is wrong in İYS's eyes (other 4xx). `location` names the fields, where it said so."""

    def __init__(self, message: str, *, status: int, code: str = "", location: tuple[str, ...] = ()) -> None:
        super().__init__(message, status=status, code=code)
        self.location = location
