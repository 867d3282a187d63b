"""A process that holds one object and calls its methods as its parent asks: one JSON object a line, both ways.

`python -m bench.worker MODULE:CLASS ARGUMENTS` is started by `bench.processes.Remote` on one core. So load is made
and product code is measured in processes of their own, and in those of another commit too.
"""

import importlib
import json
import os
import sys
import traceback


def main() -> None:
    """Make the object, say so, and answer until there are no more lines."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not look like an answer
    module, _, name = sys.argv[1].partition(":")
    made = getattr(importlib.import_module(module), name)(**json.loads(sys.argv[2]))
    answers.write(json.dumps({"answer": "ready"}) + "\n")
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = {"answer": getattr(made, asked["method"])(**asked["arguments"])}
        except Exception as error:  # noqa: BLE001 - the parent raises it
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
