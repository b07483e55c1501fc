"""Whose route has which host, over all detectors: an index beside the cache, kept by it.

Each host on a gateway has one holder: whoever is routed now, of two the one whose route is older,
which is how routers choose; else whoever asked first. Those who ask each for what the next one has
and no longer asks for would wait for each other for ever, each with the route that it has: they
exchange. Who cannot write keeps what it has: to take its host would leave the other one dark. Who
has to look again when that changes is collected in `stirred`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from yolofleet.api.hosts import MESH
from yolofleet.routers.claims import Claim, Crossing, below, wildcards_over

Since = tuple[str, str]
"""When something was made, and "namespace/name": the lesser of two comes first."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What one object means to other detectors. routed: it is a route, and no wish for one.

    key: the detector that it belongs to, or is; empty for a route of somebody else, which is
    `other` ("KIND NAMESPACE/NAME"): its claims are those of which it leaves nothing to others.
    """

    key: str
    since: str
    claims: frozenset[Claim]
    routed: bool
    delegates: frozenset[str] = frozenset()  # whom it sends requests to
    moves: bool = True  # of a detector: whether it writes its route as it asks for it
    other: str = ""
    gateways: frozenset[str] = frozenset()  # that a detector names

    @property
    def owned(self) -> frozenset[Claim]:
        """What of the claims is a detector's."""
        return _NONE if self.other else self.claims


class Routes:
    """Claims of all detectors, by host and gateway."""

    def __init__(self) -> None:
        self._unrouted: dict[Claim, dict[str, Since]] = {}  # by uid of the detector
        self._routes: dict[Claim, dict[str, Since]] = {}  # by uid of the route
        self._asked: dict[str, tuple[str, Standing]] = {}  # by key: uid of the detector
        self._had: dict[str, Counter[Claim]] = {}  # by key of the detector, of its routes
        self._roots: dict[str, set[str]] = {}  # uids of who delegates to a detector's route
        self._others: dict[Claim, dict[str, Since]] = {}  # by uid of the route
        self._naming: dict[str, dict[str, str]] = {}  # by gateway and uid: who names it
        self._stirred: set[str] = set()

    def holder(self, claim: Claim) -> str:
        """Return the key of the detector that has `claim`, or nothing."""
        return self._holder(claim, frozenset())

    def taken(self, key: str, claims: Iterable[Claim]) -> Mapping[Claim, str]:
        """Return which of `claims` others than `key` hold, and who.

        An exchange that its own write held up is there for it to try again: were its host taken
        then, it would ask for no write, be no longer held up, and try for ever at once.
        """
        held = {claim: self._holder(claim, frozenset(), trying=key) for claim in claims}
        return {claim: holder for claim, holder in held.items() if holder not in ("", key)}

    def shadows(self, key: str, claims: Iterable[Claim], kind: str) -> Mapping[Claim, str]:
        """Return which of `claims` routes of others of `kind` have, and which: older than ours."""
        found: dict[Claim, str] = {}
        for claim in claims:
            own = [e for e in self._routes.get(claim, _NOBODY).values() if e[1] == key]
            for since, name in sorted(self._others.get(claim, _NOBODY).values()):
                near = claim[0] != MESH or _namespace(name.partition(" ")[2]) == _namespace(key)
                if near and name.startswith(f"{kind} ") and not (own and min(own)[0] <= since):
                    found.setdefault(claim, name)
        return found

    def crossed(self, key: str, claims: Iterable[Claim]) -> list[Crossing]:
        """Return which hosts of others are below wildcards among `claims`, or the other way."""
        found = {
            Crossing(claim[0], claim[1], other[1], holder)
            for claim in claims
            for other in self._crossing(claim)
            if (holder := self.holder(other)) not in ("", key)
        }
        return sorted(found, key=str)

    def _crossing(self, claim: Claim) -> Iterator[Claim]:
        gateway, host = claim
        for wildcard in wildcards_over(host):
            if (gateway, wildcard) in self._routes or (gateway, wildcard) in self._unrouted:
                yield gateway, wildcard
        if host.startswith("*."):
            for other in self._routes.keys() | self._unrouted.keys():
                if other[0] == gateway and below(other[1], host):
                    yield other

    def rivals(self, key: str, claims: Iterable[Claim]) -> Mapping[Claim, str]:
        """Return which of `claims` others than `key` have or ask for, and who comes first."""
        found = {}
        for claim in claims:
            everybody = [
                *self._routes.get(claim, {}).values(),
                *self._unrouted.get(claim, {}).values(),
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
        touched = (before.owned if before else _NONE) | (after.owned if after else _NONE)
        own = {each.key for each in (before, after) if each} - {""}
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
                for each in (claim, *self._crossing(claim)):
                    self._stirred |= self._concerned(each) - own
        for other in (each for each in (before, after) if each and each.other):
            for claim in other.claims:
                self._stirred |= self._concerned(claim)

    def wake(self, keys: Iterable[str]) -> None:
        """Have `keys` look again, for a reason of the caller's."""
        self._stirred.update(keys)

    def naming(self, gateway: str) -> frozenset[str]:
        """Return the detectors that name `gateway`."""
        return frozenset(self._naming.get(gateway, {}).values())

    def stirred(self) -> set[str]:
        """Return who has to look again since this was last asked."""
        keys, self._stirred = self._stirred, set()
        return keys

    def _holder(self, claim: Claim, moving: frozenset[str], trying: str = "") -> str:
        """Return who has `claim` while `moving` get what they ask for.

        trying: who is taken to write its route, whatever its status says.
        """
        routed = self._routes.get(claim, _NOBODY).values()
        asking = self._unrouted.get(claim, _NOBODY).values()
        staying = [each for each in routed if not self._exchanges(each[1], claim, moving, trying)]
        held = staying or asking or routed
        return min(held)[1] if held else ""

    def _exchanges(self, key: str, claim: Claim, moving: frozenset[str], trying: str) -> bool:
        """Say whether `key` no longer asks for `claim`, and gets by an exchange what it asks for.

        What is simply free it has to have first: until its route is written it serves by the old.
        """
        claims = self._claims(key)
        if claim in claims or not claims or not (key == trying or self._asked[key][1].moves):
            return False
        further = moving | {key}
        return key in moving or any(
            each in self._routes and self._holder(each, further, trying) == key for each in claims
        )

    def _exchanged(self, touched: frozenset[Claim], own: set[str]) -> frozenset[Claim]:
        """Return what further claims may change hands with `touched`, in a round of exchanges."""
        found, seen, todo = set[Claim](), set[str](), [*touched]
        while todo:
            for key in (self._concerned(todo.pop()) | own) - seen:
                seen.add(key)
                had, claims = self._had.get(key), self._claims(key)
                if had and not claims >= had.keys():
                    more = (claims | had.keys()) - found
                    found |= more
                    todo += more
        return frozenset(found)

    def _note(self, uid: str, standing: Standing) -> None:
        index = self._index(standing)
        for claim in standing.claims:
            index.setdefault(claim, {})[uid] = standing.since, standing.other or standing.key
        for key in standing.delegates:
            self._roots.setdefault(key, set()).add(uid)
        for gateway in standing.gateways:
            self._naming.setdefault(gateway, {})[uid] = standing.key
        if standing.other:
            return
        if standing.routed:
            self._had.setdefault(standing.key, Counter()).update(standing.claims)
        else:
            self._asked[standing.key] = uid, standing

    def _forget(self, uid: str, standing: Standing) -> None:
        for key in standing.delegates:
            self._roots[key].discard(uid)
            if not self._roots[key]:
                del self._roots[key]
        index = self._index(standing)
        for claim in standing.claims:
            index[claim].pop(uid, None)
            if not index[claim]:
                del index[claim]
        for gateway in standing.gateways:
            self._naming[gateway].pop(uid, None)
            if not self._naming[gateway]:
                del self._naming[gateway]
        if standing.other:
            return
        if not standing.routed:
            if self._asked.get(standing.key, ("", None))[0] == uid:  # a successor may have the name
                del self._asked[standing.key]
        elif left := self._had.pop(standing.key, Counter()) - Counter(standing.claims):
            self._had[standing.key] = left

    def _index(self, standing: Standing) -> dict[Claim, dict[str, Since]]:
        if standing.other:
            return self._others
        return self._routes if standing.routed else self._unrouted

    def _claims(self, key: str) -> frozenset[Claim]:
        return self._asked[key][1].claims if key in self._asked else _NONE

    def _concerned(self, claim: Claim) -> set[str]:
        everybody = self._routes.get(claim, {}), self._unrouted.get(claim, {})
        return {key for index in everybody for _, key in index.values()}


def _namespace(name: str) -> str:
    return name.partition("/")[0]


_NONE: Final = frozenset[Claim]()
_NOBODY: Final[Mapping[str, Since]] = MappingProxyType({})
