"""Every SQL statement and every transaction. Other rooms import `server.store.store` and nothing else of it."""
