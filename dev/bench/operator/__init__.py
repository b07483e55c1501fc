"""The operator at scale: a thousand detectors on a bare control plane, against its targets.

The API server's own audit log says who wrote what and when; the operator is never asked for that.
"""
