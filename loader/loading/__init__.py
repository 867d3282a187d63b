"""One source into a store: piece by piece or sorted as a whole, with its rejects, its claims and its resume point."""
