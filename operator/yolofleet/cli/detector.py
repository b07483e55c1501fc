"""A detector as it was read: raw, with the few questions that the plugin asks of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Raw = dict[str, Any]
"""An object as the API server speaks it."""


class NothingToDo(Exception):
    """What was asked for cannot be, or is so already; the message says why and what to type."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A `YoloDetector`; whatever it lacks is empty."""

    raw: Raw

    @property
    def name(self) -> str:
        """Return its name."""
        return str(self.raw["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Return where it is."""
        return str(self.raw["metadata"]["namespace"])

    @property
    def version(self) -> str:
        """Return the resourceVersion that was read."""
        return str(self.raw["metadata"]["resourceVersion"])

    @property
    def spec(self) -> Raw:
        """Return what is asked for."""
        return self.raw.get("spec") or {}

    @property
    def status(self) -> Raw:
        """Return what the operator said."""
        return self.raw.get("status") or {}

    @property
    def revisions(self) -> list[Raw]:
        """Return what is said of each revision that has pods or requests."""
        return self.status.get("revisions") or []

    @property
    def stable(self) -> str:
        """Return the revision that it is released on; empty before there is one."""
        return str((self.status.get("stable") or {}).get("revision") or "")

    @property
    def going(self) -> Raw:
        """Return what is said of the release under way; empty without one."""
        return self.status.get("rollout") or {}

    @property
    def unseen(self) -> bool:
        """Say whether the operator has yet to see the last edit."""
        generation = self.raw["metadata"].get("generation", 0)
        return int(self.status.get("observedGeneration") or 0) < int(generation)

    def condition(self, kind: str) -> Raw:
        """Return what is said about `kind`; empty where nothing is."""
        told = self.status.get("conditions") or []
        return next((each for each in told if each["type"] == kind), {})

    def says(self, kind: str, status: str) -> bool:
        """Say whether `kind` is `status`."""
        return bool(self.condition(kind).get("status") == status)

    def messages(self, *kinds: str) -> Iterable[str]:
        """Return what is told about these."""
        return (str(self.condition(kind).get("message", "")) for kind in kinds)
