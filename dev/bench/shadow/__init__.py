"""What showing a canary one's pictures costs those who ask: `python -m bench.shadow`."""
