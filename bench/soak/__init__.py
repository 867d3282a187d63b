"""A soak: a real server, loaders and callers for minutes or hours, faults at random, and a model of every answer."""
