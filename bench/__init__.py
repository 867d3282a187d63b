"""What measures iyscheck: a synthetic population, benchmark cases, and what other stores do with the same data."""
