"""Counts what a request costs, without a clock: steps of Python, system calls, living objects, imported modules."""
