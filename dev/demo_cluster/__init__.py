"""`make demo`: the whole product in a few minutes, on a cluster of your own machine.

The end-to-end tests use the same pieces: `installation`, `detector`, `release`, `load`.
"""
