"""The mirror: what keeps the store filled from İYS, for every account, day and night."""
