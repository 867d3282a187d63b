"""The server asks itself through its own door once a second, as a newcomer does: what it then sees, callers see."""
