"""Angarium: a gRPC notification gateway. `python -m server` runs it."""
