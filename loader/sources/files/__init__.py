"""Files and standard input: plain, gzip or zstd, as JSON Lines, İYS's documents or the daily CSV."""
