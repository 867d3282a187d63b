"""A receiver that is killed at any moment."""

import threading
from pathlib import Path

import httpx
import pytest

from tests.dice import often, thrown
from tests.loader.push.receiving import Receiving, body, row

KILLS = often(12, least=2)


@pytest.mark.crash
def test_killed(tmp_path: Path) -> None:
    """Every row that was answered with 200 is in the journal, once, whatever killed the receiver and when."""
    receiving = Receiving.make(tmp_path)
    made = receiving.credential()
    dice, taken, over = thrown(), list[str](), threading.Event()

    def push() -> None:
        number = 0
        while not over.is_set():
            number += 1
            sent = row(number)
            try:
                with receiving.client(made) as client:
                    if client.post("/push", json=body([sent])).status_code == 200:
                        taken.append(str(sent["transactionId"]))
            except httpx.HTTPError:
                continue  # it was killed meanwhile: nobody was told that this row is kept

    receiving.start()
    thread = threading.Thread(target=push)
    thread.start()
    try:
        for _ in range(KILLS):
            wanted = len(taken) + dice.randint(1, 30)
            while len(taken) < wanted:
                threading.Event().wait(0.001)
            receiving.kill()
            receiving.start()
    finally:
        over.set()
        thread.join()
        receiving.kill()

    kept = [str(each["transactionId"]) for each in receiving.journalled()]
    assert len(taken) >= KILLS
    assert not set(taken) - set(kept)
    assert len(kept) == len(set(kept))
