"""In-process cases of pytest-benchmark; the test run does not collect them: `python -m pytest bench/cases`."""
