"""The console's texts: both languages, the same places in them, none missing and none idle."""

import re
import string
from pathlib import Path

import pytest

import iyscheck.console
from iyscheck.consent import Channel, RecipientType
from iyscheck.console import pages
from iyscheck.console.readings import REASONS
from iyscheck.console.sentences import TEXTS, Texts
from iyscheck.console.sources import Trouble
from iyscheck.overview import BRAND_STATES
from iyscheck.sentences import Language

FOLDER = Path(iyscheck.console.__file__).parent
MADE = {
    *(f"reason_{name}" for name in REASONS),
    *(f"brand_{state.name.lower()}" for state in (*BRAND_STATES, type(BRAND_STATES[0])(0))),
    *(f"source_{state.name.lower()}" for state in (*pages.SOURCE_STATES, type(pages.SOURCE_STATES[0])(0))),
    *(f"trouble_{trouble}" for trouble in Trouble),
    *(f"state_{state}" for state in ("good", "look", "act", "unknown")),
    *(f"channel_{channel.name.lower()}" for channel in Channel),
    *(f"type_{kind.name.lower()}" for kind in RecipientType),
}
"""Keys that are put together from a state."""


def places(text: str) -> list[str]:
    """The names of a text's places."""
    return sorted(name for _, name, _, _ in string.Formatter().parse(text) if name)


@pytest.mark.parametrize("key", TEXTS)
def test_both_languages(key: str) -> None:
    """Every text is there in English and in Turkish, with the same places."""
    english, turkish = TEXTS[key]

    assert english.strip() == english
    assert turkish.strip() == turkish
    assert english
    assert turkish
    assert places(english) == places(turkish)


def test_asked_for() -> None:
    """What code and templates ask for is there, and what is there is asked for."""
    written = [*FOLDER.glob("*.py"), *FOLDER.glob("templates/*.html")]
    texts = [path.read_text() for path in written if path.name != "sentences.py"]
    asked = {key for text in texts for key in re.findall(r"""\bt\(["']([a-zA-Z0-9_]+)["'][,)]""", text)}
    named = {key for text in texts for key in re.findall(r"""["']([a-zA-Z0-9_]+)["']""", text)}

    assert asked | MADE <= set(TEXTS)
    assert set(TEXTS) <= MADE | named


def test_filled() -> None:
    """Places are filled, in each language."""
    assert Texts(Language.ENGLISH)("page_of", page=1, pages=2) == "Page 1 of 2"
    assert Texts(Language.TURKISH)("page_of", page=1, pages=2) == "Sayfa 1 / 2"
