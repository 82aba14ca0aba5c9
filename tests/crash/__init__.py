"""Kills evalrun, or fails its system calls, and counts at the server's ledger what was lost or paid twice."""
