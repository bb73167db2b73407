"""The sandbox upstream: a process that speaks providers' wire formats on loopback, for trials without an account."""
