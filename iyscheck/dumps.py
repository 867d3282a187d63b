"""No core dump of a process that holds keys: whoever reads the dump of a crash would have them."""

import resource
from typing import Final

NONE: Final = 1
"""A limit of bytes that means "none" everywhere. No dump fits into it, so no file is made. Where the system hands
dumps to a program, Linux ignores each limit but this one: 0 would hand it the whole memory."""


def leave_no_dumps() -> None:
    """Have this process, and those that it starts, leave no core dump, whatever happens to them.

    They stay as open to debuggers and profilers of the same user as they were. A limit of 0 that may not be raised is
    left alone.
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    if most != 0:
        resource.setrlimit(resource.RLIMIT_CORE, (NONE, NONE))
