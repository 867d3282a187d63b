"""Asking for tokens."""

from urllib.parse import parse_qsl

import msgspec

from tests.iys.answers import Answer, not_granted, refused, said
from tests.iys.world import Call, Operation, World


def _token(world: World, call: Call) -> Answer:
    """Give tokens for a password or for a refresh token."""
    asked = _asked(call)
    grant = asked.get("grant_type", "")
    if not world.limits.token(call.now_s, world.quirks, is_refresh=grant == "refresh_token"):
        return refused(429, "H084")
    if grant == "password":
        account = world.accounts.entered(asked.get("username", ""), asked.get("password", ""))
        missing = next((name for name in ("username", "password") if not asked.get(name)), None)
    elif grant == "refresh_token":
        account = world.tokens.refreshed(asked.get("refresh_token", ""), call.now_s)
        missing = None if asked.get("refresh_token") else "refresh_token"
    else:
        return not_granted("invalid_request", "unknown or missing grant_type")
    if missing is not None:
        return not_granted("invalid_request", f"{missing} is missing")
    if account is None:
        return not_granted("invalid_grant", "user name, password or refresh token is wrong")
    call.account = account
    return said(world.tokens.grant(account, call.now_s, world.quirks))


def _asked(call: Call) -> dict[str, str]:
    """Read the body as a form or JSON; what is neither asks for nothing."""
    if "form" in call.headers.get("content-type", ""):
        return dict(parse_qsl(call.body.decode()))
    try:
        return msgspec.json.decode(call.body, type=dict[str, str])
    except msgspec.MsgspecError:
        return {}


OPERATIONS = (Operation(name="token", method="POST", path="/oauth2/token", answer=_token, needs="nothing"),)
