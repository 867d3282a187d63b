"""Chance that can be had again: dice print their seed, which pytest shows with a failure."""

import os
import random
import secrets
import sys

VARIABLE = "TEST_SEED"
"""Set to a seed that was printed, it gives every test the same dice again."""

THOROUGH = "TEST_THOROUGH"
"""Set, it makes tests of chance try as often as they were written for: see scripts/test-thorough."""


def often(most: int, *, least: int = 20) -> int:
    """Say how often to try chance: a sixth of the most, and other chances in each run; all of it if asked for."""
    return most if os.environ.get(THOROUGH) else max(most // 6, min(most, least))


def thrown() -> random.Random:
    """Make dice, other ones in each run unless a seed is asked for."""
    seed = int(os.environ.get(VARIABLE) or secrets.randbits(32))
    print(f"dice: {VARIABLE}={seed}", file=sys.stderr)  # noqa: T201 - for whoever looks at a failure
    return random.Random(seed)
