import sys
from types import SimpleNamespace

import pytest

from iyscheck.client import Client
from iyscheck.errors import ServiceUnavailableError
from tests.embedding import run


def test_forked() -> None:
    """A child of a fork is told at once that it has no threads, also if the lock was held; leaving harms nothing."""
    # The lock is private: a fork in the very moment in which a thread holds it cannot be had from outside.
    result = run(
        "import os, sys, time\n"
        "from iyscheck.client import Client\n"
        "from iyscheck.errors import ServiceUnavailableError\n"
        "from tests.embedding import PEOPLE, ask\n"
        "with Client('127.0.0.1:9').batching() as batching:\n"
        "    with batching._lock:\n"
        "        child = os.fork()\n"
        "    if not child:\n"
        "        began = time.monotonic()\n"
        "        try: ask(batching, PEOPLE[0])\n"
        "        except ServiceUnavailableError as error: print(error, flush=True)\n"
        "        batching.close()\n"
        "        os._exit(0)\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
    )

    assert result.stdout == (
        "The batching client was opened before this process was forked, and works only there. "
        "Open it in each process after the fork.\n"
    ), result.stderr


def test_forked_tasks() -> None:
    """The same for asyncio: a child that would go on with its parent's client is told, and leaves in peace."""
    result = run(
        "import asyncio, os\n"
        "from iyscheck.client import AsyncClient\n"
        "from iyscheck.errors import ServiceUnavailableError\n"
        "from tests.embedding import PEOPLE, ask\n"
        "async def asked(batching):\n"
        "    try: await ask(batching, PEOPLE[0])\n"
        "    except ServiceUnavailableError as error: print(error, flush=True)\n"
        "    await batching.__aexit__(ValueError, ValueError(), None)\n"
        "async def main():\n"
        "    async with AsyncClient('127.0.0.1:9') as client, client.batching() as batching:\n"
        "        child = os.fork()\n"
        "        if not child:\n"
        "            asyncio._set_running_loop(None)  # as a program does that forks out of asyncio\n"
        "            asyncio.new_event_loop().run_until_complete(asyncio.wait_for(asked(batching), 20))\n"
        "            os._exit(0)\n"
        "        assert os.waitpid(child, 0)[1] == 0\n"
        "asyncio.run(main())\n"
    )

    assert result.stdout == (
        "The batching client was opened before this process was forked, and works only there. "
        "Open it in each process after the fork.\n"
    ), result.stderr


def test_gevent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where gevent stands in the place of threads, opening is refused instead of hanging."""
    monkeypatch.setitem(
        sys.modules, "gevent.monkey", SimpleNamespace(is_module_patched=lambda name: name == "threading")
    )

    with (
        Client("127.0.0.1:9") as client,
        pytest.raises(ServiceUnavailableError, match="needs real threads, and gevent has replaced them"),
        client.batching(),
    ):
        pass
