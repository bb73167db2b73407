"""Upstreams: one file each, and the transport and the roster that they share."""
