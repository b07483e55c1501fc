"""Releases on the local cluster that are to be called off, and some that are not.

Real pods, real pictures, a real mesh: what `dev/judging` simulates, tried. `make test-seeing`.
"""
