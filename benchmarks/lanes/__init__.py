"""What lanes do at limits, waits, outages and faults, at full size: `python -m benchmarks.lanes [SCENARIO…]`."""
