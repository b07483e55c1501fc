"""Manifests, pure: templates with holes, and what every child of a detector begins with."""
