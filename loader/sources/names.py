"""The names under which the store knows what came from İYS itself."""

from loader.iys.messages import FeedSource


def stream_name(iys_code: int, brand: int, source: FeedSource) -> str:
    """Name one half of a brand's changes feed."""
    return f"iys:{iys_code}:{brand}:{source}"


def day_name(iys_code: int, brand: int) -> str:
    """Name a brand's daily files: one name for all, which begins anew with each of them."""
    return f"iys:{iys_code}:{brand}:day"
