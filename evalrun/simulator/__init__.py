"""A gateway of our own: deterministic, on loopback, with a ledger."""
