"""What an expression of PromQL asks for: as far as our own rules and dashboards need, not a parser of the language."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_WORDS: Final = {"and", "or", "unless", "on", "ignoring", "by", "without", "offset", "bool"}
_GROUPING: Final = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")
_RANGE: Final = re.compile(r"\[[^\]]*\]")
_OFFSET: Final = re.compile(r"\boffset\s+\w+")
_NAME: Final = re.compile(r"(?<![\w:.])([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?\s*(\()?")
_MATCHER: Final = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_RATED: Final = re.compile(r"\b(?:rate|increase|irate)\(\s*([a-zA-Z_:][\w:]*)")


@dataclass(frozen=True, kw_only=True)
class Selector:
    """One metric that an expression asks for, with what its labels must be: name, operator, value."""

    name: str
    text: str
    matchers: tuple[tuple[str, str, str], ...]


def selectors(expr: str) -> Iterator[Selector]:
    """Yield each metric of an expression."""
    for found in _NAME.finditer(_OFFSET.sub("", _RANGE.sub("", _GROUPING.sub("", expr)))):
        name, braces, call = found.groups()
        if call is None and name not in _WORDS:
            matchers = tuple(each.groups() for each in _MATCHER.finditer(braces or ""))
            yield Selector(name=name, text=name + (braces or ""), matchers=matchers)  # type: ignore[arg-type] # three groups


def grouped(expr: str) -> set[str]:
    """Return the labels that an expression keeps apart."""
    return {label.strip() for found in _GROUPING.finditer(expr) for label in found[1].split(",")}


def ranges(expr: str) -> set[str]:
    """Return the windows of an expression, as they are written."""
    return {found[0][1:-1] for found in _RANGE.finditer(expr)}


def rated(expr: str) -> set[str]:
    """Return the metrics whose growth an expression asks for."""
    return set(_RATED.findall(expr))
