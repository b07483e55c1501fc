"""The typed API: what a user writes, what the operator answers, and every name both use."""
