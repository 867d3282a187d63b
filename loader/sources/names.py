"""The names under which the store knows what came from İYS itself."""

from typing import Final

from loader.iys.messages import FeedSource

IYS_FEED_SILENT: Final = "IYS_FEED_SILENT"
"""The doubt in a stream of citizens' own movements that shows none though there were some."""


def stream_name(iys_code: int, brand: int, source: FeedSource) -> str:
    """Name one half of a brand's changes feed."""
    return f"iys:{iys_code}:{brand}:{source}"


def day_name(iys_code: int, brand: int) -> str:
    """Name a brand's daily files: one name for all, which begins anew with each of them."""
    return f"iys:{iys_code}:{brand}:day"
