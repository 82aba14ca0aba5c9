"""Judge it: graders, statistics, summary and gate."""
