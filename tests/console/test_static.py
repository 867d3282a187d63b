"""What is vendored is what it is said to be, and nothing of ours needs more than the policy of the pages allows."""

import hashlib
import re
from pathlib import Path

import iyscheck.console

STATIC = Path(iyscheck.console.__file__).parent / "static"
TEMPLATES = STATIC.parent / "templates"
OWN = {"console.css", "console.js", "favicon.svg", "LICENSES.txt"}


def test_vendored() -> None:
    """Each vendored file stands in LICENSES.txt with its licence and its sum, and has that sum."""
    said = dict(re.findall(r"^(\S+)\n  from .*\n  licence  \S+\n  sha256   ([0-9a-f]{64})$", _licences(), re.MULTILINE))

    assert set(said) | OWN == {path.name for path in STATIC.iterdir()}
    assert {name: hashlib.sha256((STATIC / name).read_bytes()).hexdigest() for name in said} == said


def test_script_is_short() -> None:
    """Our own script stays below 150 lines: what is more belongs into pages."""
    assert len((STATIC / "console.js").read_text().splitlines()) < 150


def test_nothing_inline() -> None:
    """No template has a script, a style or a handler in it, and none names another host."""
    for path in TEMPLATES.iterdir():
        text = path.read_text()
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon[a-z]+=|javascript:|hx-on|\bjs:", text), (
            path.name
        )
        assert "//" not in text.replace("http://www.w3.org/2000/svg", ""), path.name


def _licences() -> str:
    return (STATIC / "LICENSES.txt").read_text()
