"""Who may ask, what, and how much: the callers file, identities, scopes and rates. Knows no transport and no store."""
