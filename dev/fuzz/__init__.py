"""Throws broken input at the parts of the server that read what strangers send."""
