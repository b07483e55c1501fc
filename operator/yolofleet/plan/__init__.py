"""Decisions, pure: (detector, observed, now) in, plan out; no client, clock, log or environment."""
