"""The page of the fleet: every detector that the operator sees, on a screen; it only reads."""
