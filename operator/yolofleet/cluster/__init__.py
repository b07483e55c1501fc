"""I/O with the API server; knows manifests and keys, nothing of models or weights."""
