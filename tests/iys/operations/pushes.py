"""Where İYS shall push to: registering an address, which has to answer then, and taking it away."""

from collections.abc import Iterable
from http import HTTPStatus

import httpx
import msgspec

from tests.iys.accounts import CHANNELS
from tests.iys.answers import Answer, refused, said
from tests.iys.movements import turkish
from tests.iys.pushes import BAD, DUMMY, GOOD, Registered, client_of
from tests.iys.world import BRAND_PATH, Call, Operation, World

REGISTRATION, UNREGISTRATION = f"{BRAND_PATH}/push/registration", f"{BRAND_PATH}/push/unregistration"
MOST_OF_A_CHANNEL = 2


class _Connection(msgspec.Struct):
    """An address as it is asked for; empty where the body lacks something."""

    url: str = ""
    type: str = ""
    username: str = ""
    password: str = ""

    def refusal(self, world: World) -> Answer | None:
        """Say what is wrong with it by itself."""
        secure = self.url.startswith("https://") or (world.quirks.push_plain_http and self.url.startswith("http://"))
        if not secure:
            return refused(422, "H531", location=("url",))
        if not self.type:
            return refused(422, "H111", location=("type",))
        if self.type not in CHANNELS:
            return refused(422, "H117", location=("type",), value=self.type)
        missing = next((name for name in ("username", "password") if not getattr(self, name)), None)
        return refused(422, "H093", location=(missing,)) if missing else None


class _Connections(msgspec.Struct):
    connection: list[_Connection]


def _register(world: World, call: Call) -> Answer:
    """Try an address, and keep it if it answers as it should."""
    try:
        connections = msgspec.json.decode(call.body, type=_Connections).connection
    except msgspec.MsgspecError:
        return refused(400, "H014")
    for connection in connections:
        refusal = connection.refusal(world) or _tried(world, call, connection)
        if refusal is not None:
            return refusal
    return said({"message": "registered"})


def _tried(world: World, call: Call, connection: _Connection) -> Answer | None:
    with world.lock:
        others = [
            r
            for r in world.pushes.of(call.iys_code, call.brand, connection.type)
            if (r.url, r.username) != (connection.url, connection.username)
        ]
    if len(others) >= MOST_OF_A_CHANNEL:
        return refused(422, "H530", location=("connection",))
    try:
        with client_of(world.pushes, world.quirks) as http:
            code = _probed(http, connection)
    except httpx.TimeoutException:
        code = "H191"
    except httpx.HTTPError:
        code = "H530"
    if code:
        return refused(422, code)
    registered = Registered(
        iys_code=call.iys_code,
        brand=call.brand,
        channel=connection.type,
        url=connection.url,
        username=connection.username,
        password=connection.password,
        registered=turkish(call.now_s),
    )
    with world.lock:
        registered.pushed_until = len(world.movements.arrived)
        world.pushes.registered = [
            r
            for r in world.pushes.registered
            if r in others or (r.iys_code, r.brand, r.channel) != (call.iys_code, call.brand, connection.type)
        ]
        world.pushes.registered.append(registered)
    return None


def _probed(http: httpx.Client, connection: _Connection) -> str:
    """Try an address: it must refuse who has no credentials, and take a row of İYS's test brand from who has."""
    stranger = http.post(connection.url, content=b"{}", headers={"content-type": "application/json"})
    challenge = stranger.headers.get("www-authenticate", "")
    if stranger.status_code != HTTPStatus.UNAUTHORIZED or "basic" not in challenge.lower():
        return "H530"
    answer = http.post(connection.url, json={"list": [dict(DUMMY)]}, auth=(connection.username, connection.password))
    return "" if answer.is_success else "H530"


def _list(world: World, call: Call) -> Answer:
    """List the addresses of a brand."""
    return said(
        [
            {"url": r.url, "type": r.channel, "status": GOOD if r.is_good else BAD, "registerTime": r.registered}
            for r in world.pushes.of(call.iys_code, call.brand)
        ]
    )


def _unregister(world: World, call: Call) -> Answer:
    """Take one address away, by its credentials."""
    try:
        connection = msgspec.json.decode(call.body, type=_Connection)
    except msgspec.MsgspecError:
        return refused(400, "H014")
    refusal = connection.refusal(world)
    if refusal is not None:
        return refusal
    wanted = (connection.url, connection.type, connection.username, connection.password)
    mine = [
        r for r in world.pushes.of(call.iys_code, call.brand) if (r.url, r.channel, r.username, r.password) == wanted
    ]
    if not mine:
        return refused(422, "H530")
    world.pushes.registered = [r for r in world.pushes.registered if r not in mine]
    return said({"message": "unregistered"})


def _operations() -> Iterable[Operation]:
    yield Operation(name="register_push", method="POST", path=REGISTRATION, answer=_register, is_slow=True)
    yield Operation(name="pushes", method="GET", path=REGISTRATION, answer=_list)
    yield Operation(name="unregister_push", method="POST", path=UNREGISTRATION, answer=_unregister)


OPERATIONS = tuple(_operations())
