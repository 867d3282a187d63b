"""iyscheck answers "may I send to this recipient on this channel for this brand?" from a local mirror of İYS.

Importing this package loads neither gRPC nor LMDB. Ask a server with `iyscheck.client`, or open a store in your
own process with `iyscheck.engine`.
"""

__version__ = "0.1.0"
