"""Builders, pure: one function and one template for each kind of child."""
