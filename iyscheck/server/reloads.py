"""How often something that was to be read anew could not be used, so that what was before stays in force."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector


class ReloadFailures(Collector):
    """Shows what others count. Of several workers the supervisor does so alone: it looks at the files as they do."""

    def __init__(self) -> None:
        self._counts: dict[str, Callable[[], int]] = {}

    def of(self, what: str, count: Callable[[], int]) -> None:
        """Show how often it failed for something; it must never fall."""
        self._counts[what] = count

    def describe(self) -> Iterable[Metric]:
        """Name nothing before the first scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Show all."""
        failures = CounterMetricFamily(
            "consent_reload_failures",
            "How often something new could not be used, and what was before stays.",
            labels=("what",),
        )
        for what, count in self._counts.items():
            failures.add_metric([what], count())
        yield failures
