"""From bytes to changes: what a feed is, how its lines become rows, and what a row means. Plaintext ends here."""
