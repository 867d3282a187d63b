"""A bare native front that answers all checks alike: the ceiling for any Python server over the same package.

It reads no request: it takes up what has come in, as ours does, and returns an answer of the size that ours would
send. `python -m bench.bare_native` prints the port it got.
"""

import signal
import sys
import threading

from pygrpc_native import EVENT_CALL, NativeGrpcFront

from bench.callers import CHECK
from bench.echo import RESPONSE

_TAKEN_UP = 8_192
_ROUND_MS = 250


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    front = NativeGrpcFront("127.0.0.1:0", ((CHECK, False),), io_threads=1, call_details=True)
    front.start()
    sys.stdout.write(f"{front.bound_port}\n")
    sys.stdout.flush()
    while not over.is_set():
        for event in front.recv_batch_details(_TAKEN_UP, _ROUND_MS) or ():
            if event[0] == EVENT_CALL:
                front.respond(event[1], RESPONSE)
    front.close()


if __name__ == "__main__":
    main()
