"""Files of settings in TOML: where in the text a key stands."""

import pytest

from iyscheck.toml_file import Path, line_of

TEXT = """\
a = 1
[t.u]
"b c" = 2
v.w = 3
[[many]]
x = 1
[[many]]
x = 2
[many.inner]
y = 3
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("a",), 1),
        (("t", "u"), 2),
        (("t", "u", "b c"), 3),
        (("t", "u", "v", "w"), 4),
        (("t", "u", "missing"), 2),
        (("many", 1, "x"), 6),
        (("many", 2, "x"), 8),
        (("many", 2, "missing"), 7),
        (("many", 3, "x"), None),
        (("missing",), None),
    ],
)
def test_line_of(path: Path, line: int | None) -> None:
    """A key is found in its own table, of several of one name in the right one; what is missing, where it would be."""
    assert line_of(TEXT, path) == line
