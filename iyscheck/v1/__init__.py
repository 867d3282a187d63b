"""Generated code of the wire contract (see scripts/generate-protos); only `iyscheck.wire` and the edges use it."""
