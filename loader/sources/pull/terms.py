"""The numbers of the changes feed: what İYS promises of it, and how far from the edge of that we stay. Seconds."""

from enum import StrEnum
from typing import Final

WINDOW_S: Final = 7 * 24 * 3600
"""So far back İYS shows changes."""
VISIBLE_S: Final = 3600
"""After so long İYS shows a row at the latest; nothing says that none is shown earlier."""
SLACK_S: Final = 120
"""A claim stays so far behind what İYS promises: whole seconds, open ends, and clocks that differ a little."""
SLACK_UNDATED_S: Final = 300
"""The same where İYS's answer does not say what time it is there."""
SKEW_MAX_S: Final = 60
"""By more than this no clock may differ from İYS's, or nothing is claimed."""
EDGE_S: Final = SKEW_MAX_S
"""A cursor stays so far behind what İYS promises to show, as its clock and ours may differ; less than any slack."""
START_MARGIN_S: Final = 2 * 3600
"""A stream that begins covers what is so much younger than the window: while it pages, the window moves."""
GAP_MARGIN_S: Final = 300
"""A stream that is less than this ahead of the window's end has lost rows, or is about to."""
PAGE_ROWS: Final = 1000
"""The most that İYS gives."""
SWEEP_ROWS: Final = 997
"""Of a sweep, so that its pages end at other rows than those of a pass."""
CAPPED_ROWS: Final = 50
"""From so many rows on, a page that is not full may end because İYS gives no more at once."""
LATENESS_MAX_S: Final = 6 * 3600
"""More than this is not waited for: the watermark would be stale before any row is."""
TRIES: Final = 4
"""How often a request is made that fails for a reason that may pass."""
PAUSE_MAX_S: Final = 60.0
CUTS: Final = 3
"""How often a page is asked for anew whose beginning is not the same when it is cut."""


class Doubt(StrEnum):
    """Why nothing is claimed of a stream: something happened that İYS's feed does not do as we understand it."""

    CURSOR_STUCK = "CURSOR_STUCK"
    CURSOR_TWINS = "CURSOR_TWINS"
    DISORDER = "DISORDER"
    IYS_FEED_SILENT = "IYS_FEED_SILENT"
