"""`python -m tests.iys`: a fake İYS as a process, for demonstrations and for tests of processes.

It prints its address, and is told everything else by `POST /__fake__/…`.
"""

import argparse
import signal
import sys
from pathlib import Path

from tests.iys.clock import RunningClock, SharedClock
from tests.iys.fake import FakeIys


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m tests.iys", description="A fake İYS on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--clock", type=Path, help="a clock in a file, shared with other processes; else the machine's")
    parser.add_argument("--tls", type=Path, metavar="CA.pem", help="serve by TLS, and write its authority here")
    options = parser.parse_args()
    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    fake = FakeIys(clock=SharedClock(options.clock) if options.clock else RunningClock())
    if options.tls:
        fake.authority.cert_pem.write_to_path(options.tls)
    with fake.running(tls=options.tls is not None, port=options.port) as url:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        signal.sigwait(stops)


if __name__ == "__main__":
    main()
