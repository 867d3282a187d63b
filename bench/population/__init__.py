"""A seeded, realistic population of İYS consents: feed files, changes, campaigns, and what is true about each.

Everything is a function of the seed and a number, made in columns: a hundred million consents need no more memory
than a thousand, and consent i can be asked for without its neighbours. The same seed and `now` give the same bytes.

    population = Population(seed=7, consents=1_000_000, brands=220)
    population.write_feed(Path("first.jsonl.zst"), now=now)
"""

from bench.population.brands import Brand, Watermark
from bench.population.consents import Consents
from bench.population.examples import Example, Flip
from bench.population.population import Consent, Population
from bench.population.summaries import ChangeSummary, DailySummary, FeedSummary

__all__ = [
    "Brand",
    "ChangeSummary",
    "Consent",
    "Consents",
    "DailySummary",
    "Example",
    "FeedSummary",
    "Flip",
    "Population",
    "Watermark",
]
