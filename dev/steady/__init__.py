"""Whether tests pass by more than luck, and where their time goes."""
