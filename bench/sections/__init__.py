"""The parts of a run, one per module and topic; each can be measured alone (`--only NAME`)."""

from collections.abc import Callable
from typing import Final

from bench.measures import Section
from bench.sections import (
    changes,
    cold,
    door,
    embedded,
    fairness,
    frames,
    inprocess,
    large,
    loading,
    mixed,
    overload,
    postgres,
    rates,
    reach,
    singles,
    stream,
    tests,
    unary,
    workers,
    writing,
)
from bench.sections.replicas import applying, booting, growing, outbox, streaming
from bench.session import Session

SECTIONS: Final[dict[str, Callable[[Session], Section]]] = {
    "stream": stream.measure,
    "unary": unary.measure,
    "singles": singles.measure,
    "reach": reach.measure,
    "mixed": mixed.measure,
    "workers": workers.measure,
    "fairness": fairness.measure,
    "overload": overload.measure,
    "door": door.measure,
    "rates": rates.measure,
    "frames": frames.measure,
    "embedded": embedded.measure,
    "inprocess": inprocess.measure,
    "changes": changes.measure,
    "loading": loading.measure,
    "writing": writing.measure,
    outbox.NAME: outbox.measure,
    applying.NAME: applying.measure,
    streaming.NAME: streaming.measure,
    booting.NAME: booting.measure,
    growing.NAME: growing.measure,
    "large": large.measure,
    "cold": cold.measure,
    "postgres": postgres.measure,
    "tests": tests.measure,
}
FULL_ONLY: Final = ("large", "cold", "postgres", "rates", "tests", growing.NAME)
