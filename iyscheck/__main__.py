"""`python -m iyscheck` and `iyscheck`: the command line. It hears SIGTERM before anything else is imported."""

import sys

from iyscheck.dumps import leave_no_dumps
from iyscheck.signals import TOLD, leave_when_told, outlive_reloads
from iyscheck.streams import open_closed_streams


def main() -> None:
    """Run the command line: the console script `iyscheck`."""
    open_closed_streams()
    leave_no_dumps()
    serves = sys.argv[1:2] == ["serve"]
    leave_when_told(0 if serves else TOLD)  # to serve until told to end is what a server is for
    if serves:
        outlive_reloads()
    from iyscheck.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
