"""Compares this server's boxes with those of the public YOLO package, which is AGPL-3.0.

For people who work on the project only: the package is in an environment of its own, never in a
lock file. See `python -m parity --help`.
"""
