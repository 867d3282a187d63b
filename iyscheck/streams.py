"""The three standard streams, which a process may be started without."""

import os
import sys


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
