"""A primary, its replicas and a log in three servers of NATS, killed while a campaign runs: scripts/demo --cluster."""
