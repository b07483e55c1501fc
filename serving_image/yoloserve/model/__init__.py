"""The file of a network: where it comes from, what is in it, whether it may be loaded."""
