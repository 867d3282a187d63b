"""The three standard streams: which a process may be started without, and which others write to."""

import os
import sys
from typing import Final

VERBOSITY: Final = "GRPC_VERBOSITY"
SILENT: Final = "NONE"
_TRACE: Final = "GRPC_TRACE"


def keep_grpc_silent() -> None:
    """Have gRPC's core write nothing to standard error, here and in processes that this one starts.

    It writes a line for each handshake that fails, so that strangers decide how much. It writes from the threads that
    read the sockets, and where nobody reads the log, all of them wait for ever. To be called before gRPC is imported,
    by programs of ours only. Who has set a variable of gRPC's log wants the lines, and gets them.
    """
    if not os.environ.get(VERBOSITY) and not os.environ.get(_TRACE):
        os.environ[VERBOSITY] = SILENT


def open_closed_streams() -> None:
    """Open the standard streams that are closed, to nowhere; before anything else is opened.

    Else the next file gets the number: the store would be what a library writes its complaints to.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004 - the last of the three
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
