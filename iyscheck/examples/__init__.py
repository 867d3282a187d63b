"""Gateways in a page each, to start yours from. Each runs: `python -m iyscheck.examples.asyncio_sender --help`."""
