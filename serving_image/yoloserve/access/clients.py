"""Somebody who may ask, as the rest of the server knows them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Client:
    """Somebody who may ask."""

    name: str
    per_second: float | None = None  # a quota of its own
    expires: float = float("inf")  # seconds since 1970; a stream ends then
