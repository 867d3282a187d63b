"""A list is washed by processes that are killed again and again, until one comes to its end; see test_killed.

Runs as a program of its own, without threads, so that it can fork. It says how many were killed.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Final

from iyscheck.cli.scrubbing import washing
from iyscheck.cli.scrubbing.outputs import part_of
from iyscheck.errors import IyscheckError
from tests.cli.scrubbing.lists import Form
from tests.cli.scrubbing.lists import washing as prepared

FORM: Final = Form(columns=3, column=2)
KILLED: Final = 9
_CALLS: Final = ((os, "fsync"), (os, "open"), (Path, "replace"), (Path, "unlink"))


def content() -> bytes:
    """A list of 200 rows of all kinds."""
    dice = random.Random(1)
    kinds = (b"a;%d;b\n", b'"a;\n";%d;"b"\r\n', b"a;%d\n", b'a;%d;"b\n', b";;\n%%%d;x;\n", b"\n%d;\xff;b\n")
    return b"".join(dice.choices(kinds, [9, 1, 1, 1, 1, 1])[0] % dice.randrange(1000) for _ in range(200))


def _wash(folder: Path, dies_at: int | None) -> None:
    """Wash in a child; it kills itself at the n-th call of those by which files change, if it comes so far."""
    if dies_at is not None:
        left = [dies_at]
        for owner, name in _CALLS:
            _count(owner, name, left)
    washing.Places.of(Path("list.csv"), folder, "split").prepare(afresh=False)
    prepared(content(), FORM, folder, "split").run(lambda _: None, lambda *_: None, lambda: None)


def _count(owner: object, name: str, left: list[int]) -> None:
    real = getattr(owner, name)

    def counted(*args: object, **kwargs: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(owner, name, counted)


def _in_child(folder: Path, dies_at: int | None, kill_after_s: float | None) -> bool:
    """Wash in a child process; say whether it came to its end."""
    child = os.fork()
    if not child:
        try:
            _wash(folder, dies_at)
        except IyscheckError as error:
            sys.stderr.write(str(error))
            os._exit(1)
        os._exit(0)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return False
    assert os.WEXITSTATUS(status) == 0
    return True


def _is_done(folder: Path) -> bool:
    """Say whether a washing has left nothing to do, though it was killed before it could say so."""
    paths = washing.Places.of(Path("list.csv"), folder, "split")
    return not paths.sidecar.exists() and all(path.exists() for path in paths.outputs.values())


def main(folder: Path, seed: int, times: int) -> None:
    """Wash into folders below `folder`: `whole`, one for each call to die at, and `times` by chance."""
    washing.STEP_ROWS = 40  # type: ignore[misc] # so that there are many steps
    os.fsync = lambda fd: None  # noqa: ARG005 - takes nearly all of the time, and what it is for no kill can show
    assert _in_child(_made(folder / "whole"), None, None)
    kills = calls = 0
    while True:  # every call in turn, until the last one
        into = _made(folder / f"call-{calls}")
        if _in_child(into, calls, None):
            break
        assert _is_done(into) or _in_child(into, None, None)
        calls, kills = calls + 1, kills + 1
    dice = random.Random(seed)
    for turn in range(times):
        into = _made(folder / f"chance-{turn}")
        longest = 0.002
        while not _in_child(into, None, dice.uniform(0, longest)) and not _is_done(into):
            kills += 1
            longest *= 1.1  # a slow disk gets nowhere in so little time
    print(f"{calls} {kills}")  # noqa: T201 - for the test
    for path in folder.glob("*/*.csv"):
        assert not part_of(path).exists()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
