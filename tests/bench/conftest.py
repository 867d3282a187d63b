"""The population that the tests here read."""

import pytest

from bench.population import Population
from tests.bench.populations import BRANDS, CHANGES, CONSENTS, NOW, Written, parsed


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """One population for all tests that only read."""
    folder = tmp_path_factory.mktemp("population")
    population = Population(seed=7, consents=CONSENTS, brands=BRANDS)
    feed = population.write_feed(folder / "first.jsonl", now=NOW)
    wave = population.write_changes(folder / "second.jsonl", now=NOW, changes=CHANGES)
    return Written(population, feed, parsed(feed.path), wave, parsed(wave.path))
