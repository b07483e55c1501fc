"""Whose route has which host, over all detectors: an index beside the cache, kept by it.

Each host on a gateway has one holder: whoever is routed now, of two the one whose route is older,
which is how routers choose; else whoever asked first of those that would be given it. Who would
not, because others route the host on another of its gateways, leaves it to the rest. Those who ask
each for what the next one has and no longer asks for would wait for each other for ever, each with
the route that it has: they exchange. Who cannot write keeps what it has: to take its host would
leave the other one dark. Who has to look again when that changes is collected in `stirred`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain, islice, product
from types import MappingProxyType
from typing import Final

from yolofleet.api.hosts import MESH
from yolofleet.routers.claims import MOST_CROSSINGS, Area, Claim, Crossing, wildcards_over
from yolofleet.routers.doors import Doors
from yolofleet.routers.exposure import granted
from yolofleet.routers.hostnames import Hostnames

Since = tuple[str, str]
"""When something was made, and "namespace/name": the lesser of two comes first."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What one object means to other detectors. routed: it is a route, and no wish for one.

    key: the detector that it belongs to, or is; empty for a route of somebody else, which is
    `other` ("KIND NAMESPACE/NAME"): it has no claims, but areas of which it leaves nothing.
    kept: of a detector, the hosts and gateways of its route from which it goes on, also those that
    are no claims, as its gateways keep them for others: new ones have to be free beside them.
    """

    key: str
    since: str
    claims: frozenset[Claim]
    routed: bool
    delegates: frozenset[str] = frozenset()  # whom it sends requests to
    moves: bool = True  # of a detector: whether it writes its route as it asks for it
    other: str = ""
    gateways: frozenset[str] = frozenset()  # that a detector, or its route, names
    areas: tuple[Area, ...] = ()
    kept: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())

    def covers(self, claim: Claim) -> bool:
        """Say whether it leaves nothing of `claim` to others."""
        gateway, host = claim
        return any(gateway in area.gateways and host in area.hosts for area in self.areas)


Change = tuple[Standing | None, Standing | None]
"""What an object was and is."""


class Routes:
    """Claims of all detectors, by host and gateway."""

    def __init__(
        self,
        doors: Callable[[str, str], Doors | None] | None = None,
        seen: Callable[[str], str] | None = None,
    ) -> None:
        self._doors = doors or (lambda _kind, _gateway: None)  # of a kind of route: whom it lets in
        self._seen = seen or (lambda gateway: gateway)  # as which gateway that of a claim counts
        self._unrouted: dict[Claim, dict[str, Since]] = {}  # by uid of the detector
        self._routes: dict[Claim, dict[str, Since]] = {}  # by uid of the route
        self._asked: dict[str, tuple[str, Standing]] = {}  # by key: uid of the detector
        self._had: dict[str, Counter[Claim]] = {}  # by key of the detector, of its routes
        self._roots: dict[str, set[str]] = {}  # uids of who delegates to a detector's route
        self._hosts: dict[str, Hostnames] = {}  # by gateway, of all that detectors have or ask for
        self._others: dict[str, dict[str, Standing]] = {}  # by host, and uid of the route
        self._naming: dict[str, dict[str, str]] = {}  # by gateway and uid: who names it
        self._givable: dict[str, frozenset[Claim]] = {}  # by key, where it was asked: what it gets
        self._stirred: set[str] = set()

    def holder(self, claim: Claim) -> str:
        """Return the key of the detector that has `claim`, or nothing."""
        return self._holders([claim])[claim]

    def taken(self, key: str, claims: Iterable[Claim]) -> Mapping[Claim, str]:
        """Return which of `claims` others than `key` hold, and who.

        An exchange that its own write held up is there for it to try again: were its host taken
        then, it would ask for no write, be no longer held up, and try for ever at once.
        """
        held = self._holders(claims, trying=key)
        return {claim: holder for claim, holder in held.items() if holder not in ("", key)}

    def shadows(self, key: str, claims: Iterable[Claim], kind: str) -> Mapping[Claim, str]:
        """Return which of `claims` routes of others of `kind` have, and which: older than ours."""
        found: dict[Claim, str] = {}
        reaches = cache(partial(self._reaches, kind, _namespace(key)))
        for claim in claims:
            seen = self._as_seen(claim)
            own = [e for e in self._routes.get(seen, _NOBODY).values() if e[1] == key]
            before = [
                (each.since, each.other)
                for each in self._others.get(claim[1], {}).values()
                if each.other.startswith(f"{kind} ")
                and each.covers(seen)
                and not (own and min(own)[0] <= each.since)
                and reaches(_home(each), seen)
            ]
            if before:
                found[claim] = min(before)[1]
        return found

    def crossed(self, key: str, claims: Iterable[Claim]) -> list[Crossing]:
        """Return which hosts of others are below wildcards among `claims`, or the other way.

        Not more than are worth telling: below a few wildcards may be those of the whole cluster.
        """
        pairs = ((claim, other) for claim in sorted(claims) for other in self._crossing(claim))
        found = set[Crossing]()
        while len(found) < MOST_CROSSINGS and (some := list(islice(pairs, _AT_ONCE))):
            held = self._holders({other for _, other in some})
            found |= {
                Crossing(claim[0], claim[1], other[1], held[other])
                for claim, other in some
                if held[other] not in ("", key)
            }
        return sorted(found, key=str)[:MOST_CROSSINGS]

    def _crossing(self, claim: Claim) -> Iterator[Claim]:
        yield from self._over(claim)
        yield from self._below(claim)

    def _over(self, claim: Claim) -> list[Claim]:
        over = ((claim[0], wildcard) for wildcard in wildcards_over(claim[1]))
        return [each for each in over if self._known(each)]

    def _below(self, claim: Claim) -> Iterator[Claim]:
        gateway, host = claim
        return ((gateway, each) for each in self._hosts.get(gateway, _NO_HOSTS).below(host))

    def rivals(self, key: str, claims: Iterable[Claim]) -> Mapping[Claim, str]:
        """Return which of `claims` others than `key` have or ask for, and who comes first."""
        found = {}
        for claim in claims:
            seen = self._as_seen(claim)
            everybody = [
                *self._routes.get(seen, {}).values(),
                *self._unrouted.get(seen, {}).values(),
            ]
            if others := [each for each in everybody if each[1] != key]:
                found[claim] = min(others)[1]
        return found

    def delegated(self, key: str) -> bool:
        """Say whether a VirtualService delegates to that of the detector `key`."""
        return key in self._roots

    def change(self, uid: str, before: Standing | None, after: Standing | None) -> None:
        """Take in what the object `uid` was and is; what did not change stirs nobody."""
        self.change_all({uid: (before, after)})

    def change_all(self, changes: Mapping[str, Change]) -> None:
        """Take in what several objects were and are, by their uids.

        One look at all whom they concern: for each of them one would be the square of what is
        there, and whoever writes in one namespace has hundreds change at once.
        """
        changes = {
            uid: (self._standing(before), self._standing(after))
            for uid, (before, after) in changes.items()
            if before != after
        }
        if not changes:
            return
        standings = [each for change in changes.values() for each in change if each]
        areas = [area for each in standings for area in each.areas]
        routed = _NONE.union(
            self._within(areas), *(each.claims for each in standings if each.routed)
        )
        touched = routed.union(self._beside(routed), *(each.claims for each in standings))
        own = {each.key for each in standings} - {""}
        around = touched | self._exchanged(touched, own)
        moved = self._moving(around)
        held = self._held(touched, moved)
        for uid, (before, after) in changes.items():
            if before:
                self._ask_again(before)
                self._forget(uid, before)
            if after:
                self._note(uid, after)
                self._ask_again(after)
            was, now = (each.delegates if each else frozenset() for each in (before, after))
            self._stirred |= was ^ now
        moving = self._moving(around)
        left = {claim for key in moved ^ moving for claim in self._had.get(key, ())}
        held |= self._held((left & around) - touched, moved)
        now_held = self._held(held, moving)
        changed = {claim for claim in held if now_held[claim] != held[claim]}
        self._stirred |= self._concerned_around(changed) - _looking(changes.values())
        for claim in self._within(areas):
            self._stirred |= self._concerned(claim)

    def wake(self, keys: Iterable[str]) -> None:
        """Have `keys` look again, for a reason of the caller's."""
        self._stirred.update(keys)

    def wake_around(self, keys: Collection[str]) -> None:
        """Have `keys` look again, and those to whom it may fall what these ask for."""
        self._stirred.update(keys)
        for key in keys:
            self._givable.pop(key, None)
        for claim in self._contested(keys):
            self._stirred |= self._concerned(claim)

    def naming(self, gateway: str) -> Mapping[str, str]:
        """Return who names `gateway`: detectors, and what they have a route by; by uid the key."""
        return dict(self._naming.get(gateway, {}))

    def stirred(self) -> set[str]:
        """Return who has to look again since this was last asked."""
        keys, self._stirred = self._stirred, set()
        return keys

    def _holders(self, claims: Iterable[Claim], trying: str = "") -> dict[Claim, str]:
        """Return who has each of `claims`. trying: who is taken to write its route at any rate."""
        seen = {claim: self._as_seen(claim) for claim in claims}
        asked = set(seen.values())
        held = self._held(asked, self._moving(asked, trying))
        return {claim: held[each] for claim, each in seen.items()}

    def _held(self, claims: Collection[Claim], moving: Collection[str]) -> dict[Claim, str]:
        """Return who has each of `claims` while `moving` get what they ask for."""
        return {
            claim: self._holder(claim, moving) if claim in self._routes else self._first(claim)
            for claim in claims
        }

    def _holder(self, claim: Claim, moving: Collection[str]) -> str:
        """Return who has `claim`, which is routed, while `moving` get what they ask for."""
        routed = self._routes[claim].values()
        asking = self._unrouted.get(claim, _NOBODY).values()
        staying = [e for e in routed if e[1] not in moving or claim in self._claims(e[1])]
        return min(staying or asking or routed)[1]

    def _first(self, claim: Claim) -> str:
        """Return who comes first of those that ask for `claim`, which nobody routes.

        Who would not be given it does not hold it: nobody would route it then, and who waits for it
        would wait for ever.
        """
        asking = [key for _, key in sorted(self._unrouted.get(claim, _NOBODY).values())]
        if len(asking) < 2:
            return "".join(asking)
        return next((key for key in asking if claim in self._given(key)), asking[0])

    def _given(self, key: str) -> frozenset[Claim]:
        """Return what `key` would be given if nobody had anything but by a route that is there.

        It is kept: a thousand may ask for one host, and each look of each asks who comes first.
        """
        if key not in self._givable:
            self._givable[key] = self._found_givable(key)
        return self._givable[key]

    def _ask_again(self, standing: Standing) -> None:
        """Forget what is given to those to whom `standing` makes a difference."""
        routed = standing.claims if standing.routed else _NONE
        self._givable.pop(standing.key, None)
        for claim in chain(routed, self._within(standing.areas)):
            for _, key in self._unrouted.get(claim, _NOBODY).values():
                self._givable.pop(key, None)

    def _found_givable(self, key: str) -> frozenset[Claim]:
        if key not in self._asked:
            return _NONE
        claims, kept = self._asked[key][1].claims, self._asked[key][1].kept
        unrouted = [
            each
            for each in claims
            if all(other == key for _, other in self._routes.get(each, _NOBODY).values())
        ]
        free = self._unshadowed(key, unrouted)
        given, on = granted(
            sorted({host for _, host in claims} | kept[0]),
            sorted({gateway for gateway, _ in claims} | kept[1]),
            kept,
            lambda gateway, host: (gateway, host) in free,
        )
        return frozenset(product(on, given))

    def _beside(self, claims: Collection[Claim]) -> set[Claim]:
        """Return what may fall to another one by who routes `claims`.

        That is what nobody routes, and several ask for, of whom one asks for some of `claims` too.
        """
        asking = (self._unrouted.get(claim, _NOBODY).values() for claim in claims)
        return self._contested({key for each in asking for _, key in each})

    def _contested(self, keys: Iterable[str]) -> set[Claim]:
        """Return what of the wishes of `keys` nobody routes, and others ask for too."""
        return {
            claim
            for key in keys
            for claim in self._claims(key)
            if claim not in self._routes and len(self._unrouted[claim]) > 1
        }

    def _moving(self, claims: Collection[Claim], trying: str = "") -> set[str]:
        """Return who gets by an exchange what it asks for, of those on whom `claims` depend.

        All who leave something are taken to; then who would be given nothing of what it asks for is
        struck, until nobody is. What one of them has it can only lose by that: each wish is looked
        at once, and again only when whoever was to leave it was struck.
        """
        wishes = self._wishes(claims, trying)
        moving, by = set(wishes), dict[Claim, str]()  # by: the wish by which each one moves
        left = {key: self._gifts(key, wishes[key], moving) for key in wishes}
        todo = list(moving)
        while todo:
            key = todo.pop()
            gifts = left[key]
            while gifts and self._holder(gifts[-1], moving) != key:
                gifts.pop()
            if gifts:
                by[gifts[-1]] = key
            elif key in moving:
                moving.discard(key)
                todo += {by.pop(claim) for claim in self._had[key] if claim in by}
        return moving

    def _gifts(self, key: str, wish: Iterable[Claim], moving: Collection[str]) -> list[Claim]:
        """Return by what of its wish `key` may move, if `moving` do: it is enough to hold one.

        Of what it holds some is given to it in any case (`granted`), if not this: by that it leaves
        the rest.
        """
        routed = (each for each in wish if each in self._routes)
        held = [each for each in routed if self._holder(each, moving) == key]
        new = self._unshadowed(key, (each for each in held if each not in self._had[key]))
        return [each for each in held if each in new or each in self._had[key]]

    def _unshadowed(self, key: str, claims: Iterable[Claim]) -> set[Claim]:
        """Return of which `claims` the routes of others leave something to a new one of `key`."""
        on = dict[str, set[str]]()
        for gateway, host in claims:
            on.setdefault(host, set()).add(gateway)
        return {
            (gateway, host)
            for host, gateways in on.items()
            for gateway in gateways - self._shadowed(key, host, gateways)
        }

    def _shadowed(self, key: str, host: str, gateways: set[str]) -> set[str]:
        """Return on which `gateways` the route of somebody else leaves a new one nothing of it."""
        found = set[str]()
        for other in self._others.get(host, {}).values():
            kind, home = other.other.partition(" ")[0], _home(other)
            for area in (area for area in other.areas if host in area.hosts):
                for gateway in gateways & area.gateways - found:
                    if self._reaches(kind, _namespace(key), home, (gateway, host)):
                        found.add(gateway)
        return found

    def _reaches(self, kind: str, namespace: str, home: str, claim: Claim) -> bool:
        """Say whether a route of `kind` in `home` gets requests to `claim`, before `namespace`'s.

        Inside the mesh those of its own namespace alone; on a gateway if that lets it in.
        """
        gateway, host = claim
        if gateway == MESH and home != namespace:
            return False
        at = self._doors(kind, gateway)
        return at is None or at.let_in(home, host)

    def _wishes(self, claims: Collection[Claim], trying: str) -> dict[str, frozenset[Claim]]:
        """Return who leaves something, of those on whom `claims` depend, and what each asks for.

        What is simply free counts for nothing: until its route is written it serves by the old one.
        """
        found, seen, todo = dict[str, frozenset[Claim]](), set(claims), [*claims]
        while todo:
            claim = todo.pop()
            for _, key in self._routes.get(claim, _NOBODY).values():
                if key not in found and self._leaves(key, claim, trying):
                    found[key] = self._claims(key)
                    routed = [each for each in found[key] if each in self._routes]
                    todo += (each for each in routed if each not in seen)
                    seen.update(routed)
        return found

    def _leaves(self, key: str, claim: Claim, trying: str) -> bool:
        """Say whether `key` no longer asks for `claim`, but for something else, and writes it."""
        claims = self._claims(key)
        if claim in claims or not claims:
            return False
        return key == trying or self._asked[key][1].moves

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

    def _as_seen(self, claim: Claim) -> Claim:
        return self._seen(claim[0]), claim[1]

    def _standing(self, standing: Standing | None) -> Standing | None:
        """Return `standing` with its gateways as they count."""
        if standing is None:
            return None
        claims = frozenset(map(self._as_seen, standing.claims))
        areas = tuple(
            Area(area.hosts, frozenset(map(self._seen, area.gateways))) for area in standing.areas
        )
        kept = standing.kept[0], frozenset(map(self._seen, standing.kept[1]))
        return replace(standing, claims=claims, areas=areas, kept=kept)

    def _note(self, uid: str, standing: Standing) -> None:
        index = self._index(standing)
        for claim in standing.claims:
            if not self._known(claim):
                self._hosts.setdefault(claim[0], Hostnames()).add(claim[1])
            index.setdefault(claim, {})[uid] = standing.since, standing.key
        for host in _hosts_of(standing):
            self._others.setdefault(host, {})[uid] = standing
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
                self._drop_host(claim)
        for host in _hosts_of(standing):
            self._others[host].pop(uid, None)
            if not self._others[host]:
                del self._others[host]
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

    def _drop_host(self, claim: Claim) -> None:
        gateway, host = claim
        if self._known(claim):
            return
        self._hosts[gateway].remove(host)
        if not self._hosts[gateway]:
            del self._hosts[gateway]

    def _known(self, claim: Claim) -> bool:
        return claim in self._routes or claim in self._unrouted

    def _index(self, standing: Standing) -> dict[Claim, dict[str, Since]]:
        return self._routes if standing.routed else self._unrouted

    def _claims(self, key: str) -> frozenset[Claim]:
        return self._asked[key][1].claims if key in self._asked else _NONE

    def _concerned(self, claim: Claim) -> set[str]:
        everybody = self._routes.get(claim, {}), self._unrouted.get(claim, {})
        return {key for index in everybody for _, key in index.values()}

    def _concerned_around(self, claims: Collection[Claim]) -> set[str]:
        """Return whom `claims` concern, and what crosses them: that below several of them once."""
        found = set[str]()
        for claim in claims:
            over = self._over(claim)
            for each in (claim, *over):
                found |= self._concerned(each)
            if not any(each in claims for each in over):
                for each in self._below(claim):
                    found |= self._concerned(each)
        return found

    def _within(self, areas: Iterable[Area]) -> Iterator[Claim]:
        """Return what of `areas` detectors have or ask for."""
        for area in areas:
            for gateway in area.gateways & self._hosts.keys():
                ours, theirs = self._hosts[gateway], area.hosts
                few, many = (ours, theirs) if len(ours) < len(theirs) else (theirs, ours)
                yield from ((gateway, host) for host in few if host in many)


def _hosts_of(standing: Standing) -> frozenset[str]:
    return frozenset().union(*(area.hosts for area in standing.areas))


def _looking(changes: Collection[Change]) -> set[str]:
    """Return whom the event of the change itself has look: that of one object of one detector.

    Not where we wrote ourselves what changed of it.
    """
    if any(before and after and before.moves != after.moves for before, after in changes):
        return set()
    keys = {each.key for change in changes for each in change if each}
    return keys if len(changes) == 1 else set()


def _home(other: Standing) -> str:
    return _namespace(other.other.partition(" ")[2])


def _namespace(name: str) -> str:
    return name.partition("/")[0]


_NONE: Final = frozenset[Claim]()
_NOBODY: Final[Mapping[str, Since]] = MappingProxyType({})
_NO_HOSTS: Final = Hostnames()
_AT_ONCE: Final = 1024
"""So many pairs of hosts are looked at at once: who has them is worked out together."""
