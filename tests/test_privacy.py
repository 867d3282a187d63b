"""No plaintext address is left anywhere but in the rejects file: every output of every process is searched."""

import urllib.request
from pathlib import Path

import numpy as np
import pytest

from iyscheck.client import Client
from iyscheck.consent import Channel, MessageClass, RecipientType
from iyscheck.errors import IyscheckError
from iyscheck.keys import AddressKey
from iyscheck.question import Context, Question
from tests.processes import Site, turkish_now

BRAND = 600123
PHONES = ("5321112233", "5324445566", "5327778899")
EMAIL = "ayse.ozel+kampanya@posta.example.com"
UNREADABLE = "0532 111 22 33 dahili 44"
SEARCHED = (*PHONES, "ayse.ozel", "532 111 22 33", "321112233", "324445566", "dahili", "Ayşe Özel")


def _row(recipient: str, channel: str = "MESAJ", **fields: object) -> dict[str, object]:
    common = {"brandCode": BRAND, "recipientType": "BIREYSEL", "type": channel, "status": "ONAY", "source": "HS_WEB"}
    times = {"consentDate": "2024-05-02 10:00:00", "creationDate": "2024-05-02 10:05:00"}
    return {**common, **times, "recipient": recipient, "transactionId": "a" * 64, **fields}


def _feed() -> list[dict[str, object] | str]:
    return [
        {"kind": "brand", "brandCode": BRAND, "iysCode": 1, "active": True, "creationDate": "2024-01-01 09:00:00"},
        _row(f"+90{PHONES[0]}", citizenName="Ayşe Özel"),
        _row(EMAIL, "EPOSTA"),
        _row(f"+90{PHONES[1]}", status="RET", source="IYS_WEB"),
        _row(UNREADABLE, citizenName="Ayşe Özel"),
        _row(f"+90{PHONES[2]}", creationDate="2099-01-01 00:00:00"),
        '{"recipient": "+90' + PHONES[2] + '", ',
        {"kind": "watermark", "completeUntil": turkish_now()},
    ]


def _ask_everything(site: Site, target: str) -> list[str]:
    """Use every RPC with good and bad questions; returns the texts of all errors."""
    context = Context(brand=BRAND, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)
    errors = []
    addresses = [f"0{phone}" for phone in PHONES] + [UNREADABLE, EMAIL]
    for key in (None, AddressKey.load(site.folder / "address.key"), AddressKey(bytes(32))):
        with Client(target, address_key=key, timeout_s=5) as client:
            client.server_info()
            for address in addresses:
                for message_class in (MessageClass.COMMERCIAL, MessageClass.SECURITY_CODE):
                    try:
                        client.check(
                            brand=BRAND,
                            channel=Channel.MESAJ,
                            recipient_type=RecipientType.BIREYSEL,
                            address=address,
                            message_class=message_class,
                        )
                    except IyscheckError as error:
                        errors.append(f"{error} {error!r}")
            errors.append(repr(client.check_many([Question(context=context, address=text) for text in addresses])))
            for recipients in (addresses, np.zeros((2, 16), np.uint8)):
                try:
                    client.check_column(
                        brand=BRAND,
                        channel=Channel.MESAJ,
                        recipient_type=RecipientType.BIREYSEL,
                        recipients=recipients,
                    )
                except IyscheckError as error:
                    errors.append(f"{error} {error!r}")
    return errors


def _told_to_operators(target: str) -> str:
    """Ask for everything that a server tells whoever operates it."""
    with Client(target) as client:
        admin = client.admin
        listed = [*admin.all_brands(), *admin.all_sources(), *admin.all_callers()]
        return f"{admin.status(timeout_s=20)} {listed}"


@pytest.mark.slow
def test_no_plaintext_remains(tmp_path: Path) -> None:
    """After a load with rejects and every RPC no store file, log, error, metric or printed line has an address."""
    site = Site.make(tmp_path)
    feed = site.feed("feed.jsonl", _feed())

    exit_code = site.load(str(feed))
    with site.serving() as server:
        errors = _ask_everything(site, server["listen"])
        told = _told_to_operators(server["listen"])
        with urllib.request.urlopen(f"http://{server['metrics_listen']}/metrics") as response:
            metrics = response.read().decode()

    stored = {path.name: path.read_bytes() for path in site.store.rglob("*") if path.is_file()}
    outputs = {"errors": "\n".join(errors), "metrics": metrics, "printed": "\n".join(site.printed), "told": told}
    for searched in SEARCHED:
        for name, text in outputs.items():
            assert searched not in text, f"found in {name}"
        for name, data in stored.items():
            assert searched.encode() not in data, f"found in {name}"
    assert exit_code == 1
    assert "data.mdb" in stored
    assert errors
    assert "consent_check_decisions_total" in metrics
    assert told.count("Rejected(line=") == 3
    assert all(reason in told for reason in ("INVALID_ADDRESS", "AHEAD_OF_CLOCK", "MALFORMED"))
    rejects = [path for path in tmp_path.rglob("*.jsonl") if "rejects" in str(path.parent)]
    assert [UNREADABLE in path.read_text() for path in rejects] == [True]
    assert rejects[0].stat().st_mode & 0o077 == 0
    assert "Ayşe Özel" not in rejects[0].read_text()
