"""What iyscheck is measured beside: each peer is started by the benchmark itself, or reported as absent."""
