"""`python -m loader` and `iyscheck-loader`: the command line. It hears SIGTERM before anything else is imported."""

from iyscheck.dumps import leave_no_dumps
from iyscheck.signals import leave_when_told
from iyscheck.streams import open_closed_streams


def main() -> None:
    """Run the command line: the console script `iyscheck-loader`."""
    open_closed_streams()
    leave_no_dumps()
    leave_when_told()
    from loader.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
