"""A server as it is, with other bounds: python -m tests.server.hostile.impatient SETTINGS BOUNDS, both JSON.

It prints where it listens, and ends with its standard input. The command has no such flags: its bounds are no settings.
"""

import json
import sys

from iyscheck.server.processes.polling import poll_directly


def main() -> None:
    """Serve."""
    poll_directly()
    import msgspec

    from iyscheck.log import STANDARD_ERROR, LogLines
    from iyscheck.server.app import Server
    from iyscheck.server.bounds import Bounds
    from iyscheck.server.log import open_log
    from iyscheck.server.settings import Settings

    settings = Settings.read(**json.loads(sys.argv[1]))
    bounds = msgspec.json.decode(sys.argv[2], type=Bounds)
    with Server.start(settings, open_log("info", LogLines(STANDARD_ERROR)), bounds=bounds) as server:
        print(json.dumps([server.address, server.metrics_address]), flush=True)  # noqa: T201 - to who started it
        sys.stdin.read()


if __name__ == "__main__":
    main()
