"""Benchmarks: each prints its own table, and compares with targets only what one run measured."""
