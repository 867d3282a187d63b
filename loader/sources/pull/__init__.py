"""A brand's changes at İYS as a source: one stream for each of its two halves, asked for page by page.

What is asked next, and what may be claimed, is decided without a clock, a network or a store (`walk`, `coverage`).
"""
