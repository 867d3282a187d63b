"""One primary and its replicas: what the log carries, how it is published, followed, copied and promoted."""
