"""Makes what a log and its replicas need to be tried: keys, certificates, users of NATS, and a cluster file a machine.

    python deploy/cluster/prepare.py FOLDER

For compose.yaml beside this file, and as an example of which machine has which file. To be run by the Python that has
`iyscheck[replicas]`. The CA's key is thrown away, and its certificates end after 30 days: in earnest take your own.
"""

import argparse
import re
import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

try:
    import nkeys
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    from iyscheck.cli.issuing import Issuer, pem
    from iyscheck.keys import AddressKey, SigningKey, StoreKey, StreamKey
except ModuleNotFoundError as missing:
    sys.exit(
        f"{missing.name} is not installed in this Python. Give it what replicas need: pip install 'iyscheck[replicas]'"
    )

SERVERS: Final = ("nats-1", "nats-2", "nats-3")
USERS: Final = {"UPUBLISHER": "publisher", "UMAKER": "maker", "UFOLLOWER1": "follower"}
"""Whom users.conf has, and what the other half of the key is called here."""
MACHINES: Final = {"primary": "publisher", "maker": "maker", "replica": "follower"}
"""Which machine is which user at NATS."""
_USERS_CONF: Final = Path(__file__).parent / "nats" / "users.conf"
_USER: Final = re.compile(r"^.*\bnkey: (U[A-Z0-9]+),.*\n", re.MULTILINE)


def prepare(folder: Path) -> None:
    """Make everything. Raises FileExistsError where the folder is there already: no key is made anew."""
    folder.mkdir(parents=True, mode=0o700)
    AddressKey.create(folder / "address.key")
    StoreKey.create(folder / "store.key")
    StreamKey.create(folder / "stream.key")
    publics = {name: SigningKey.create(folder / f"{name}.key").public for name in ("primary", "maker")}
    _certificates(folder)
    _users(folder)
    for machine, user in MACHINES.items():
        _write(folder / f"{machine}.toml", _cluster_file(user, publics, signs=machine in publics), secret=False)
    for directory in (*SERVERS, "feed"):
        (folder / directory).mkdir()


def _certificates(folder: Path) -> None:
    """A server of NATS is a client of the other two, so its certificate is for both."""
    ca = Issuer.create(datetime.now(UTC))
    both = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
    _write(folder / "ca.pem", pem(ca.certificate), secret=False)
    for name in (*SERVERS, "client"):
        certificate, key = ca.issue(name, [x509.DNSName(f"{name}.example")], *both)
        _write(folder / f"{name}.pem", certificate, secret=False)
        _write(folder / f"{name}.key", key)


def _users(folder: Path) -> None:
    """Give each user an nkey, and write its public half where users.conf has a place for it. Others go."""
    publics: dict[str, str] = {}
    for place, user in USERS.items():
        seed = nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER)
        _write(folder / f"{user}.nk", seed)
        publics[place] = nkeys.from_seed(bytearray(seed)).public_key.decode()

    def named(line: re.Match[str]) -> str:
        place = line[1]
        return line[0].replace(place, publics[place]) if place in publics else ""

    _write(folder / "users.conf", _USER.sub(named, _USERS_CONF.read_text()).encode(), secret=False)


def _cluster_file(user: str, publics: dict[str, bytes], *, signs: bool) -> bytes:
    """Say what a machine has, and whom it believes. All paths are beside the file, as compose.yaml puts them."""
    servers = ", ".join(f'"nats://{name}.example:4222"' for name in SERVERS)
    lines = [
        'stream_key = "stream.key"',
        *(['signing_key = "signing.key"'] if signs else []),
        "[nats]",
        f"servers = [{servers}]",
        f'name = "{user}"',
        'api = "iys.api"',
        'nkey = "nats.nk"',
        'ca = "nats-ca.pem"',
        'cert = "nats.pem"',
        'key = "nats.key"',
        "[signers.primary]",
        f'public = "{publics["primary"].hex()}"',
        'may = ["changes", "snapshots"]',
        "[signers.maker]",
        f'public = "{publics["maker"].hex()}"',
        'may = ["snapshots"]',
        "[snapshots]",
        'bucket = "IYS-SNAPSHOTS"',
    ]
    return "\n".join(lines).encode() + b"\n"


def _write(path: Path, content: bytes, *, secret: bool = True) -> None:
    path.touch(0o600 if secret else 0o644, exist_ok=False)
    path.write_bytes(content)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Makes keys, certificates, users of NATS and cluster files, to try a log. In earnest take your own."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to; it must not be there yet")
    prepare(parser.parse_args().folder)
