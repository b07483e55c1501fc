"""A detector as it was read: raw, as parsing a fleet takes long, with what people ask of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

Raw = dict[str, Any]
"""An object as the API server speaks it."""


GOOD_WHEN_FALSE: Final = frozenset(
    {
        "Stalled",
        "Reconciling",
        "Drifted",
        "AutoscalingLimited",
        "NameClash",
        "HeadNotRedundant",
    }
)
FIRST: Final = ("Stalled", "Ready", "Progressing")
"""What comes before all else of what is not as asked, in this order."""

FINE: Final = frozenset({"Settled", "DriftRepaired", "AsDesired"})
"""Reasons of what is as asked, whatever its status."""


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
    def edit_of_spec(self) -> tuple[str, int]:
        """Return which object and which edit of its spec it is."""
        metadata = self.raw["metadata"]
        return str(metadata.get("uid") or ""), int(metadata.get("generation") or 0)

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
    def release(self) -> Raw:
        """Return what is said of the release under way; empty without one."""
        return self.status.get("rollout") or {}

    @property
    def unseen(self) -> bool:
        """Say whether the operator has yet to see the last edit."""
        generation = self.raw["metadata"].get("generation", 0)
        return int(self.status.get("observedGeneration") or 0) < int(generation)

    @property
    def leaving(self) -> str:
        """Say since when it is being deleted, and what that waits for; empty where it is not."""
        metadata = self.raw["metadata"]
        if not metadata.get("deletionTimestamp"):
            return ""
        awaited = ", ".join(metadata.get("finalizers") or ())
        since = f"being deleted since {metadata['deletionTimestamp']}"
        return f"{since} (waits for {awaited})" if awaited else since

    def condition(self, kind: str) -> Raw:
        """Return what is said about `kind`; empty where nothing is."""
        conditions = self.status.get("conditions") or []
        return next((each for each in conditions if each["type"] == kind), {})

    def says(self, kind: str, status: str) -> bool:
        """Say whether `kind` is `status`."""
        return bool(self.condition(kind).get("status") == status)

    @property
    def summary(self) -> str:
        """Say in a few words how it is."""
        if self.leaving:
            return self.leaving
        if not self.status.get("conditions"):
            return "not seen by the operator yet"
        words = [str(self.condition("Ready").get("reason") or "")]
        if self.says("Stalled", "True"):
            words.append(f"Stalled ({self.condition('Stalled')['reason']})")
        elif self.says("Released", "True"):
            words.append("Released")
        else:
            words.append(str(self.condition("Progressing").get("reason") or ""))
        if self.unseen:
            words.append("last edit not seen yet")
        return ", ".join(dict.fromkeys(filter(None, words)))

    def unmet(self) -> Iterator[Raw]:
        """Return the conditions that are not as they should be, each message once."""
        said: set[str] = set()
        for condition in sorted(self.status.get("conditions") or (), key=_order):
            message = str(condition.get("message") or "")
            if not _is_fine(condition) and message not in said:
                said.add(message)
                yield condition


def _order(condition: Raw) -> tuple[int, str]:
    kind = condition["type"]
    return (FIRST.index(kind) if kind in FIRST else len(FIRST), kind)


def _is_fine(condition: Raw) -> bool:
    if condition["reason"] in FINE:
        return True
    if condition["type"] == "Progressing":  # True is on its way: that is why it is not there yet
        return False
    good = "False" if condition["type"] in GOOD_WHEN_FALSE else "True"
    return bool(condition["status"] == good)
