"""How a new revision is judged: evidence in, verdicts out. No clock, no I/O, no chance."""
