"""Power failures, enumerated: every state that a disk may be in afterwards is opened by the real code.

`recorder` writes down what a run asks of the disk, `disk` knows which states that allows, `choices` picks them,
`oracle` opens them, `workloads` are the runs, `mutants` prove that the harness sees what is wrong, and `full_disk` is
the same for a disk without room. `python -m tests.crash_states` does all of it at length.
"""
