"""What is true of a detector, one condition a file: a list of checks, of which the first speaks."""
