"""What the fake says: bodies as İYS shapes them, and refusals with its codes (the words are ours)."""

from dataclasses import dataclass, field
from http import HTTPStatus

import msgspec

JSON = "application/json"
HTML = "text/html; charset=utf-8"
LOGIN_PAGE = b"<!DOCTYPE html><html><head><title>Login</title></head><body><form>who are you?</form></body></html>"

WORDS = {
    "H001": "no such provider",
    "H014": "the body is no JSON",
    "H031": "no such user",
    "H084": "too many tokens asked for; asking again begins the hour anew",
    "H086": "too many questions about single consents in an hour",
    "H089": "too many questions about history in an hour",
    "H103": "the search failed",
    "H123": "the server is busy",
    "H124": "too many requests in a second",
    "H351": "the token is missing or invalid",
    "H353": "the code does not belong to the caller",
    "H363": "the caller is no integrator",
    "H437": "there is no subscription",
    "H501": "a date is written YYYY-MM-DD",
    "H502": "a date is one of the last seven days",
    "H506": "no such source",
    "H507": "limit is too large",
    "H512": "agreementStatus may only be true",
    "H520": "the subscription is paused or has expired",
    "H521": "the subscription is closed",
    "H522": "the caller is no integrator",
    "H524": "there is no subscription",
    "H530": "the address did not answer as it should",
    "H531": "the address must begin with https",
    "H586": "the package has no API",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer before it goes onto the wire."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    code: str = ""
    """İYS's code of a refusal."""
    headers: dict[str, str] = field(default_factory=dict)


EMPTY = Answer(HTTPStatus.NO_CONTENT)


def said(value: object, status: int = HTTPStatus.OK) -> Answer:
    """Answer with a value."""
    return Answer(status, msgspec.json.encode(value))


def refused(
    status: int,
    code: str,
    *,
    location: tuple[str | int, ...] = (),
    value: object = None,
    index: int | None = None,
    odd_code_key: bool = False,
) -> Answer:
    """Refuse with one of İYS's codes, in the shape that most of its operations use."""
    error: dict[str, object] = {"code:" if odd_code_key else "code": code, "message": WORDS.get(code, "refused")}
    if location:
        error["location"] = list(location)
    if value is not None:
        error["value"] = value
    if index is not None:
        error["index"] = index
    return Answer(status, msgspec.json.encode({"errors": [error]}), code=code)


def not_granted(error: str, description: str) -> Answer:
    """Refuse a token, in the shape of that operation."""
    return Answer(
        HTTPStatus.BAD_REQUEST, msgspec.json.encode({"error": error, "error_description": description}), code=error
    )
