"""What it costs to ask a fleet for its load."""
