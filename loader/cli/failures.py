"""Whatever goes wrong in a command: one sentence, one JSON object beside it, and an exit code."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

import typer

from iyscheck import output
from iyscheck.errors import IyscheckError, IysError, MemoryShortError, PublishError, SystemRefusedError
from loader.iys.faults import (
    AuthFailedFault,
    ForbiddenFault,
    IysFault,
    LockedFault,
    SlowedFault,
    TransientFault,
)

EXIT_REJECTS: Final = 1
EXIT_ERROR: Final = 2
EXIT_FENCED: Final = 3
"""Of a publisher: to start it again helps nobody."""
_FIXES: Final = (
    (TransientFault, "Try again in some minutes."),
    (SlowedFault, "Try again in some minutes."),
    (LockedFault, "Wait until then: who asks earlier starts the hour anew."),
    (AuthFailedFault, "Correct user name and password file: see 'iyscheck-loader config check'."),
    (ForbiddenFault, "Look at İYS whether the account may do that, and whether its subscription is active."),
)


@contextmanager
def errors(*, as_json: bool) -> Iterator[None]:
    """End with one sentence on standard error, and one object on standard output with `as_json`, whatever fails."""
    try:
        yield
    except IyscheckError as error:
        _end(error, as_json=as_json)
    except IysFault as fault:
        _end(iys_error(fault), as_json=as_json)
    except (typer.Exit, typer.Abort):
        raise
    except BrokenPipeError:
        raise output.Told(EXIT_ERROR) from None
    except MemoryError:
        _end(MemoryShortError("There is not enough memory.", fix="Lower --commit-rows."), as_json=as_json)
    except OSError as error:  # of what is left then: standard output on a full disk, no thread, no temporary folder
        why = error.strerror or "no reason given"
        _end(SystemRefusedError(f"The system refused something that is needed: {why}."), as_json=as_json)
    except Exception as error:  # noqa: BLE001 - a user gets a sentence; its text might hold content, its type cannot
        _end(
            IyscheckError(f"iyscheck-loader itself failed ({type(error).__name__}).", fix="Please report it."),
            as_json=as_json,
        )


def iys_error(fault: IysFault) -> IysError:
    """Make an error of what İYS, or the way to it, said instead of an answer."""
    said = " ".join(filter(None, (str(fault.status or ""), fault.code)))
    fix = next((fix for kind, fix in _FIXES if isinstance(fault, kind)), "")
    return IysError(f"{fault.message.rstrip('.')}{f' ({said})' if said else ''}.", fix=fix)


def _end(error: IyscheckError, *, as_json: bool) -> NoReturn:
    output.tell_error("iyscheck-loader", error, with_json=as_json)
    raise output.Told(EXIT_FENCED if isinstance(error, PublishError) else EXIT_ERROR)
