"""Whose route has which host, over all detectors: an index beside the cache, kept by it.

Each host on a gateway has one holder: whoever is routed now, of two the one whose route is older,
which is how routers choose; else whoever asked first. Who has to look again when that changes is
collected in `stirred`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from yolofleet.plan.claims import Claim

Since = tuple[str, str]
"""When something was made, and "namespace/name": the lesser of two comes first."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What one object means to other detectors. routed: it is a route, and no wish for one.

    key: the detector that it belongs to, or is; empty for a VirtualService of somebody else.
    """

    key: str
    since: str
    claims: frozenset[Claim]
    routed: bool
    delegates: frozenset[str] = frozenset()  # whom it sends requests to


class Routes:
    """Claims of all detectors, by host and gateway."""

    def __init__(self) -> None:
        self._wishes: dict[Claim, dict[str, Since]] = {}  # by uid of the detector
        self._routes: dict[Claim, dict[str, Since]] = {}  # by uid of the route
        self._roots: dict[str, set[str]] = {}  # uids of who delegates to a detector's route
        self._stirred: set[str] = set()

    def holder(self, claim: Claim) -> str:
        """Return the key of the detector that has `claim`, or nothing."""
        held = self._routes.get(claim) or self._wishes.get(claim)
        return min(held.values())[1] if held else ""

    def taken(self, key: str, claims: Iterable[Claim]) -> Mapping[Claim, str]:
        """Return which of `claims` others than `key` hold, and who."""
        held = {claim: self.holder(claim) for claim in claims}
        return {claim: holder for claim, holder in held.items() if holder not in ("", key)}

    def rivals(self, key: str, claims: Iterable[Claim]) -> Mapping[Claim, str]:
        """Return which of `claims` others than `key` have or ask for, and who comes first."""
        found = {}
        for claim in claims:
            everybody = [
                *self._routes.get(claim, {}).values(),
                *self._wishes.get(claim, {}).values(),
            ]
            if others := [each for each in everybody if each[1] != key]:
                found[claim] = min(others)[1]
        return found

    def delegated(self, key: str) -> bool:
        """Say whether a VirtualService delegates to that of the detector `key`."""
        return key in self._roots

    def change(self, uid: str, before: Standing | None, after: Standing | None) -> None:
        """Take in what the object `uid` was and is; what did not change stirs nobody."""
        if before == after:
            return
        touched = (before.claims if before else _NONE) | (after.claims if after else _NONE)
        held = {claim: self.holder(claim) for claim in touched}
        if before:
            self._forget(uid, before)
        if after:
            index = self._routes if after.routed else self._wishes
            for claim in after.claims:
                index.setdefault(claim, {})[uid] = after.since, after.key
            for key in after.delegates:
                self._roots.setdefault(key, set()).add(uid)
        was, now = (each.delegates if each else frozenset() for each in (before, after))
        self._stirred |= was ^ now
        own = {each.key for each in (before, after) if each}
        for claim, holder in held.items():
            if self.holder(claim) != holder:
                self._stirred |= self._concerned(claim) - own

    def wake(self, keys: Iterable[str]) -> None:
        """Have `keys` look again, for a reason of the caller's."""
        self._stirred.update(keys)

    def gateway_changed(self, gateway: str) -> None:
        """Wake who asks for hosts on a gateway that came or went."""
        for (on, _), wishes in self._wishes.items():
            if on == gateway:
                self._stirred.update(key for _, key in wishes.values())

    def stirred(self) -> set[str]:
        """Return who has to look again since this was last asked."""
        keys, self._stirred = self._stirred, set()
        return keys

    def _forget(self, uid: str, standing: Standing) -> None:
        for key in standing.delegates:
            self._roots[key].discard(uid)
            if not self._roots[key]:
                del self._roots[key]
        index = self._routes if standing.routed else self._wishes
        for claim in standing.claims:
            index[claim].pop(uid, None)
            if not index[claim]:
                del index[claim]

    def _concerned(self, claim: Claim) -> set[str]:
        everybody = self._routes.get(claim, {}), self._wishes.get(claim, {})
        return {key for index in everybody for _, key in index.values()}


_NONE: Final = frozenset[Claim]()
