"""Whose route has which host, over all detectors: an index beside the cache, kept by it.

Each host on a gateway has one holder: whoever is routed now, of two the one whose route is older,
which is how routers choose; else whoever asked first. Those who ask each for what the next one has
and no longer asks for would wait for each other for ever, each with the route that it has: they
exchange. Who cannot write keeps what it has: to take its host would leave the other one dark. Who
has to look again when that changes is collected in `stirred`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from yolofleet.routers.claims import Claim

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
    moves: bool = True  # of a detector: whether it writes its route as it asks for it


class Routes:
    """Claims of all detectors, by host and gateway."""

    def __init__(self) -> None:
        self._wishes: dict[Claim, dict[str, Since]] = {}  # by uid of the detector
        self._routes: dict[Claim, dict[str, Since]] = {}  # by uid of the route
        self._asked: dict[str, tuple[str, Standing]] = {}  # by key: uid of the detector
        self._had: dict[str, Counter[Claim]] = {}  # by key of the detector, of its routes
        self._roots: dict[str, set[str]] = {}  # uids of who delegates to a detector's route
        self._stirred: set[str] = set()

    def holder(self, claim: Claim) -> str:
        """Return the key of the detector that has `claim`, or nothing."""
        return self._holder(claim, frozenset())

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
        own = {each.key for each in (before, after) if each}
        touched |= self._exchanged(touched, own)
        held = {claim: self.holder(claim) for claim in touched}
        if before:
            self._forget(uid, before)
        if after:
            self._note(uid, after)
        was, now = (each.delegates if each else frozenset() for each in (before, after))
        self._stirred |= was ^ now
        if before and after and before.moves != after.moves:
            own = set()  # by what we wrote ourselves of it: no event of its own has it looked at
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

    def _holder(self, claim: Claim, moving: frozenset[str]) -> str:
        """Return who has `claim` while `moving` get what they ask for."""
        routed = self._routes.get(claim, _NOBODY).values()
        asking = self._wishes.get(claim, _NOBODY).values()
        staying = [each for each in routed if not self._exchanges(each[1], claim, moving)]
        held = staying or asking or routed
        return min(held)[1] if held else ""

    def _exchanges(self, key: str, claim: Claim, moving: frozenset[str]) -> bool:
        """Say whether `key` no longer asks for `claim`, and gets by an exchange what it asks for.

        What is simply free it has to have first: until its route is written it serves by the old.
        """
        asks = self._asks(key)
        if claim in asks or not asks or not self._asked[key][1].moves:
            return False
        further = moving | {key}
        return key in moving or any(
            each in self._routes and self._holder(each, further) == key for each in asks
        )

    def _exchanged(self, touched: frozenset[Claim], own: set[str]) -> frozenset[Claim]:
        """Return what further claims may change hands with `touched`, in a round of exchanges."""
        found, seen, todo = set[Claim](), set[str](), [*touched]
        while todo:
            for key in (self._concerned(todo.pop()) | own) - seen:
                seen.add(key)
                had, asks = self._had.get(key), self._asks(key)
                if had and not asks >= had.keys():
                    more = (asks | had.keys()) - found
                    found |= more
                    todo += more
        return frozenset(found)

    def _note(self, uid: str, standing: Standing) -> None:
        index = self._routes if standing.routed else self._wishes
        for claim in standing.claims:
            index.setdefault(claim, {})[uid] = standing.since, standing.key
        for key in standing.delegates:
            self._roots.setdefault(key, set()).add(uid)
        if standing.routed:
            self._had.setdefault(standing.key, Counter()).update(standing.claims)
        else:
            self._asked[standing.key] = uid, standing

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
        if not standing.routed:
            if self._asked.get(standing.key, ("", None))[0] == uid:  # a successor may have the name
                del self._asked[standing.key]
        elif left := self._had.pop(standing.key, Counter()) - Counter(standing.claims):
            self._had[standing.key] = left

    def _asks(self, key: str) -> frozenset[Claim]:
        return self._asked[key][1].claims if key in self._asked else _NONE

    def _concerned(self, claim: Claim) -> set[str]:
        everybody = self._routes.get(claim, {}), self._wishes.get(claim, {})
        return {key for index in everybody for _, key in index.values()}


_NONE: Final = frozenset[Claim]()
_NOBODY: Final[Mapping[str, Since]] = MappingProxyType({})
