"""Changes of the cohort as feed files, in the loader's row format."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from bench.cohort import BRAND, CHANNEL, RECIPIENT_TYPE, Cohort
from bench.product import changed_items


def write_changes(path: Path, consents: int, number: int, rows: int) -> Path:
    """Write `rows` random changes, nine of ten to consents that are there; another number gives others."""
    items = changed_items(consents, rows, number)
    phones = Cohort(consents).phones(items).tobytes().decode()
    random = np.random.default_rng([7, number])
    refused = random.random(len(items)) < 0.5
    transactions = random.bytes(32 * len(items)).hex()
    now = datetime.now(ZoneInfo("Europe/Istanbul")) - timedelta(hours=1) + timedelta(seconds=number)
    at = now.strftime("%Y-%m-%d %H:%M:%S")
    with path.open("w") as file:
        for row in range(len(items)):
            change = {
                "brandCode": BRAND,
                "recipient": phones[13 * row : 13 * row + 13],
                "recipientType": RECIPIENT_TYPE.name,
                "type": CHANNEL.name,
                "status": "RET" if refused[row] else "ONAY",
                "source": "HS_WEB",
                "consentDate": at,
                "creationDate": at,
                "transactionId": transactions[64 * row : 64 * row + 64],
            }
            file.write(json.dumps(change) + "\n")
    return path
