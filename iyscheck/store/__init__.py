"""Bytes on disk: one LMDB environment that holds hashed consents and registries."""
