"""The sandbox upstream: a process that speaks a provider's wire format on loopback, for trials without an account."""
