"""What came from İYS, kept encrypted: for a new address key, and for questions about the past (decision 104)."""
