"""`python -m iyscheck` and `iyscheck`: the command line. It hears SIGTERM before anything else is imported."""

import sys

from iyscheck.signals import TOLD, leave_when_told
from iyscheck.streams import open_closed_streams


def main() -> None:
    """Run the command line: the console script `iyscheck`."""
    open_closed_streams()
    leave_when_told(0 if sys.argv[1:2] == ["serve"] else TOLD)  # to serve until told to end is what a server is for
    from iyscheck.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
