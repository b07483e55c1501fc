"""Another revision is asked what this one answered, and the two answers are compared."""
