"""Makes a process run as where numba is not installed: workers then start in two thirds of the time."""

import sys

sys.modules["numba"] = None  # type: ignore[assignment] # Python's own way to say that there is no such module
