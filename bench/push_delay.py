"""How long a citizen's refusal takes from İYS's push to a denied answer: python -m bench.push_delay.

Everything is real but İYS: its push goes by TLS to the receiver, the mirror brings it into the store, and the server is
asked again and again. What İYS itself needs before it pushes is not in it; nobody documents that.
"""

import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from tests.loader.push.mirrored import mirrored, until_refused
from tests.loader.push.receiving import BRAND


def main(
    pushes: Annotated[int, typer.Option(help="How many refusals, one after the other.", min=10)] = 200,
    out: Annotated[Path | None, typer.Option(help="Where to write the raw result.")] = None,
) -> None:
    """Measure the delay of refusals that are pushed."""
    recipients = [f"+90532{number:07}" for number in range(pushes)]
    taken = []
    with tempfile.TemporaryDirectory() as folder, mirrored(Path(folder), recipients) as all_of_it:
        code, said = all_of_it.receiving.said("register", "acme")
        if code:
            raise SystemExit(said)
        for recipient in recipients:
            all_of_it.fake.move(
                BRAND, "IYS", recipient=recipient, channel="MESAJ", recipient_type="BIREYSEL", status="RET"
            )
            began = time.monotonic()
            all_of_it.fake.push_all()
            until_refused(all_of_it, recipient)
            taken.append(time.monotonic() - began)
    p50, p99 = np.percentile(taken, (50, 99)) * 1e3
    result = {
        "command": f"python -m bench.push_delay --pushes {pushes}",
        "python": platform.python_version(),
        "p50_ms": round(p50, 1),
        "p99_ms": round(p99, 1),
        "max_ms": round(max(taken) * 1e3, 1),
        "seconds": [round(each, 4) for each in taken],
    }
    if out is not None:
        out.write_text(json.dumps(result) + "\n")
    sys.stdout.write(f"{pushes} refusals: p50 {p50:.0f} ms, p99 {p99:.0f} ms, longest {max(taken) * 1e3:.0f} ms\n")


if __name__ == "__main__":
    typer.run(main)
