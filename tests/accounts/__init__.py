"""Holds a run's tables against the simulator's ledger, to the token and to the last digit of a dollar."""
