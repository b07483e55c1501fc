"""What the operator knows of the cluster: every object it watches, and whose route is whose.

Everything here is memory; nothing waits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from yolofleet.api.detector import Provider
from yolofleet.api.hosts import MESH
from yolofleet.api.names import Manifest, is_accelerator
from yolofleet.cluster import kinds
from yolofleet.cluster.namesakes import Namesakes
from yolofleet.cluster.routes import Change, Routes, Standing
from yolofleet.plan.defaults import Defaults
from yolofleet.plan.snapshot import Elsewhere, Keda
from yolofleet.routers.choice import ROUTERS, router_of
from yolofleet.routers.claims import (
    NOTHING,
    Claim,
    as_named,
    moves,
    named_gateways,
    rests,
    routed,
    shadowed,
    wanted,
    wish_of,
)
from yolofleet.routers.doors import Doors
from yolofleet.routers.exposure import Allowed, Limits, reach_of
from yolofleet.routers.following import Mesh
from yolofleet.routers.istio import delegates_of
from yolofleet.routers.router import Places, Router
from yolofleet.runtime import objects, store
from yolofleet.runtime.compact import compact
from yolofleet.runtime.kind import Kind
from yolofleet.runtime.nesting import bounded
from yolofleet.runtime.ownership import ownership_of
from yolofleet.runtime.store import Store, content_of, is_news
from yolofleet.workloads.accelerators import place, pod_requests
from yolofleet.workloads.failures import EXIT_BLIND

Holding = tuple[str, Mapping[str, int]]

_BLIND: Final = f'"exitCode":{EXIT_BLIND}'.encode()
_OFFERS_NONE: Final = b'"allocatable":{}'


@dataclass(frozen=True, slots=True)
class Entry(store.Entry):
    """One object, shrunk, and what it means to other detectors."""

    reserved: Holding | None = None  # of a pod: the accelerators it holds, and on which node
    standing: Standing | None = None  # of a route: what it means to other detectors; of a detector,
    # which depends on what there is to route by, the cache says so
    doors: Doors | None = None  # of a gateway: whom it lets in


@bounded
def entry_of(kind: Kind, manifest: Manifest) -> Entry:
    """Shrink `manifest`, which is left as it is; kind and version are taken from `kind`."""
    metadata = manifest["metadata"]
    slim = {name: value for name, value in metadata.items() if name != "managedFields"}
    identity = {"apiVersion": kind.api_version, "kind": kind.name}
    body: Manifest = manifest | {"metadata": slim} | identity
    if kind is kinds.NODE:
        body = _slim_node(manifest) | identity
    standing = _standing(kind, body) if kind in kinds.ROUTERS.values() else None
    others = kind in kinds.ROUTERS.values() and not _key(kind, manifest)
    if others or kind in kinds.GATEWAYS.values():
        body = identity | {"metadata": _named(slim), "spec": {}}  # others' specs are no concern
    namespace, name = metadata.get("namespace", ""), metadata["name"]
    return Entry(
        kind=kind,
        namespace=namespace,
        name=name,
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        owner=objects.controller_uid(manifest),
        key=_key(kind, manifest),
        body=compact(body),
        content=content_of(body, _heard(kind, body)),
        ownership=ownership_of(manifest, kinds.CONTROLLER),
        reserved=_reserved(manifest) if kind is kinds.POD else None,
        standing=standing,
        doors=_doors(kind, manifest),
    )


def _standing(kind: Kind, manifest: Manifest) -> Standing | None:
    """Return what a route means to detectors: their own, or one of somebody else."""
    key, metadata = _key(kind, manifest), manifest["metadata"]
    claims, areas = (routed(manifest), ()) if key else (NOTHING, shadowed(manifest))
    delegates = delegates_of(manifest) if kind is kinds.VIRTUAL_SERVICE else frozenset[str]()
    if not claims and not areas and not delegates:
        return None
    other = "" if key else f"{kind.name} {metadata['namespace']}/{metadata['name']}"
    on = frozenset(gateway for gateway, _ in claims if as_named(gateway) != MESH)
    since = _since(metadata)
    return Standing(key, since, claims, True, delegates, other=other, gateways=on, areas=areas)


def _doors(kind: Kind, manifest: Manifest) -> Doors | None:
    """Return whom a gateway lets in; nothing of what is none."""
    of = (ROUTERS[router] for router, gateways in kinds.GATEWAYS.items() if gateways is kind)
    return next((router.doors(manifest) for router in of), None)


def _since(metadata: Manifest) -> str:
    return str(metadata.get("creationTimestamp", ""))


def _named(metadata: Manifest) -> Manifest:
    kept = ("name", "namespace", "uid", "resourceVersion", "labels", "ownerReferences")
    return {name: metadata[name] for name in kept if name in metadata}


def _reserved(pod: Manifest) -> Holding | None:
    node, amounts = place(pod), pod_requests(pod)
    return (node, amounts) if node and amounts else None


def _key(kind: Kind, manifest: Manifest) -> str:
    if kind is kinds.DETECTOR:
        return f"{manifest['metadata']['namespace']}/{manifest['metadata']['name']}"
    return kinds.CONTROLLER.owner_key(manifest) if kind.namespaced else ""


def _heard(kind: Kind, body: Manifest) -> Any:
    """Return what of the status matters to a detector where not all of it does.

    An autoscaler writes every few seconds what it measures; whether it can is seldom news.
    """
    status = body.get("status") or {}
    if kind is kinds.NODE:
        return status
    if kind is kinds.RAY_SERVICE:
        return {name: value for name, value in status.items() if name != "lastUpdateTime"}
    if kind not in (kinds.HPA, kinds.SCALED_OBJECT):
        return None
    return [[c["type"], c["status"], c.get("reason")] for c in status.get("conditions") or ()]


def _slim_node(node: Manifest) -> Manifest:
    """Keep of a node what tells whether a pod may run there, and with which accelerators."""
    metadata, spec, status = node["metadata"], node.get("spec", {}), node.get("status", {})
    conditions = [
        {"type": "Ready", "status": c["status"]}  # without the time of its last heartbeat
        for c in status.get("conditions", ())
        if c.get("type") == "Ready"
    ]
    kept = ("name", "uid", "resourceVersion", "labels")
    allocatable = status.get("allocatable", {}).items()
    accelerators = {name: amount for name, amount in allocatable if is_accelerator(name)}
    return {
        "metadata": {name: metadata[name] for name in kept if name in metadata},
        "spec": {name: spec[name] for name in ("taints", "unschedulable") if name in spec},
        "status": {"allocatable": accelerators, "conditions": conditions},
    }


class Cache(Store[Entry]):
    """What is watched for detectors: their children and pods, their routes, and the nodes.

    allowed: what the admin lets detectors route; who asks for more stands in nobody's way by it.
    """

    def __init__(self, allowed: Allowed | None = None) -> None:
        super().__init__(kinds.CONTROLLER, kinds.CACHED, entry_of)
        self._allowed = allowed or Allowed()
        self._pods: dict[str, dict[str, Entry]] = {}
        self._held: dict[str, Counter[str]] = {}
        self._namesakes = Namesakes()
        self._left: dict[tuple[Kind, str], dict[str, Standing]] = {}  # by kind and namespace; uid
        self._together: dict[str, Change] | None = None  # by uid: what is to be looked at once
        self.routes = Routes(self._doors, self._allowed.seen)
        """Which detector has which host."""
        self.nodes_version = 0
        """Rises when a node came, went or changed in what it offers to whom."""
        self.offers_version = 0
        """Rises with it where that node offers accelerators by number, or did."""
        self.freed = 0
        """Rises when a pod of ours went that held an accelerator."""

    # reading

    def detector(self, key: str) -> Manifest | None:
        """Return the detector "namespace/name" with its status, or None."""
        namespace, _, name = key.partition("/")
        entry = self.named(kinds.DETECTOR, namespace, name)
        return entry.manifest() if entry else None

    def detectors(self) -> list[str]:
        """Return the keys of all detectors."""
        return [entry.key for entry in self._entries[kinds.DETECTOR].values()]

    def pods(self, key: str) -> list[Manifest]:
        """Return the pods of the detector "namespace/name"."""
        return [entry.manifest() for entry in self._pods.get(key, {}).values()]

    def gone_blind(self) -> list[Manifest]:
        """Return the pods that may tell of a server which went blind: few, of all there are."""
        all_pods = (entry for pods in self._pods.values() for entry in pods.values())
        return [entry.manifest() for entry in all_pods if _BLIND in entry.body]

    def nodes(self) -> list[Manifest]:
        """Return the nodes: name, labels, taints, unschedulable, accelerators, Ready."""
        return [entry.manifest() for entry in self._entries[kinds.NODE].values()]

    def held(self) -> Mapping[str, Counter[str]]:
        """Return per node how much of each accelerator the pods of all detectors hold."""
        return self._held

    def routers(self) -> frozenset[Provider]:
        """Return what of Istio and the Gateway API is in the cluster now."""
        return frozenset(each for each, kind in kinds.ROUTERS.items() if self.serves(kind))

    def lacking(self) -> frozenset[str]:
        """Return the kinds of workloads that the cluster does not have, or not for us."""
        return frozenset(kind.name for kind in kinds.WORKLOADS if not self.serves(kind))

    def elsewhere(self, key: str, raw: Manifest, defaults: Defaults) -> Elsewhere:
        """Return what of the rest of the cluster concerns the route of the detector `raw`."""
        absent = self.absent(raw, defaults.namespaces)
        claims = wanted(raw, self.routers(), absent)
        by = {provider: wanted(raw, {provider}) for provider in kinds.ROUTERS}
        return Elsewhere(
            taken=self.routes.taken(key, claims),
            others={
                provider: self.routes.shadows(key, by[provider], kind.name)
                for provider, kind in kinds.ROUTERS.items()
            },
            shut={
                provider: self.shut(kind.name, raw["metadata"]["namespace"], by[provider])
                for provider, kind in kinds.ROUTERS.items()
            },
            crossed=tuple(self.routes.crossed(key, claims)),
            allowed=defaults.allowed,
            namesake=self._namesakes.older(key),
            mesh=Mesh(self.routes.delegated(key), everywhere=not defaults.namespaces),
            absent=absent,
        )

    def keda(self, children: Iterable[Manifest], defaults: Defaults) -> Keda:
        """Return what KEDA has, and has made, for the detector of these children."""
        made = (child for child in children if child["kind"] == kinds.SCALED_OBJECT.name)
        owned = (entry for child in made for entry in self.owned_by(child["metadata"]["uid"]))
        return Keda(
            served=self.serves(kinds.SCALED_OBJECT),
            prometheus=defaults.prometheus,
            authentication=defaults.keda_authentication,
            gpu=defaults.gpu,
            autoscalers=tuple(entry.manifest() for entry in owned if entry.kind is kinds.HPA),
        )

    def absent(
        self, raw: Manifest, namespaces: Collection[str] = ()
    ) -> Mapping[Provider, frozenset[str]]:
        """Return which gateways that a detector names are not there, of each router's kind.

        namespaces: where alone the operator may look; none: everywhere.
        """
        named = named_gateways(raw) - {MESH}
        return {
            provider: frozenset(self._absent_gateways(kind, named, namespaces))
            for provider, kind in kinds.GATEWAYS.items()
            if self.serves(kind)
        }

    def _absent_gateways(
        self, kind: Kind, named: Iterable[str], namespaces: Collection[str]
    ) -> Iterator[str]:
        for gateway in named:
            namespace, _, name = gateway.partition("/")
            looked = not namespaces or namespace in namespaces
            if looked and self.named(kind, namespace, name) is None:
                yield gateway

    def shut(self, kind: str, namespace: str, claims: Collection[Claim]) -> Mapping[Claim, str]:
        """Return of which `claims` a gateway keeps routes of `namespace` out, and whom it lets in.

        What it lets in for nobody is no such claim: it may be about to.
        """
        doors = {each: self._doors(kind, each) for each in {gateway for gateway, _ in claims}}
        return {
            (gateway, host): f"{listed} ({at.said_in})"
            for gateway, host in claims
            if (at := doors[gateway]) and (listed := at.kept_for(namespace, host))
        }

    # writing

    def put_entry(self, entry: Entry) -> str | None:
        """Take in an object that was shrunk before; return whose detector should look again."""
        if self._knows(entry.kind, entry.uid, entry.version):
            return None
        known = self._entries[entry.kind].get(entry.uid)
        if entry.kind is kinds.DETECTOR:
            entry = self._asking(entry)
        if entry.kind in kinds.ROUTERS.values():
            entry = self._let_in(entry)
        key = super().put_entry(entry)
        left = self._left.get((entry.kind, entry.namespace), {}).pop(entry.uid, None)
        self._change(entry.uid, known.standing if known else left, entry.standing)
        if entry.kind in kinds.ROUTERS.values() and not (known and known.content == entry.content):
            for each in {each.key: each for each in (known, entry) if each}.values():
                self._ask_anew_for(each)
        if entry.kind is kinds.DETECTOR and not known:
            created = str(entry.manifest()["metadata"].get("creationTimestamp", ""))
            self.routes.wake(self._namesakes.add(entry.key, created))
        if entry.kind in kinds.GATEWAYS.values() and (not known or known.doors != entry.doors):
            self._gateway_changed(f"{entry.namespace}/{entry.name}")
        if entry.kind is kinds.NODE and is_news(known, entry):
            self._node_changed(known, entry)
        return key

    def remove(self, kind: Kind, uid: str, version: int) -> str | None:
        """Forget an object that was gone at `version`; return whose detector should look again."""
        known = self._entries[kind].get(uid)
        key = super().remove(kind, uid, version)
        if known is None or known.version > version:
            return None
        self._change(uid, known.standing, None)
        if kind in kinds.ROUTERS.values():
            self._ask_anew_for(known)
        if kind is kinds.DETECTOR and self.detector(known.key) is None:
            self.routes.wake(self._namesakes.remove(known.key))
        if kind in kinds.GATEWAYS.values():
            self._gateway_changed(f"{known.namespace}/{known.name}")
        if kind is kinds.NODE:
            self._node_changed(known)
        if kind is kinds.POD and (known.reserved or b'"resourceClaims"' in known.body):
            self.freed += 1
        return key

    def replace_all(
        self, kind: Kind, entries: Iterable[Entry], version: int, namespace: str = ""
    ) -> Counter[str]:
        """Take in a whole list, as the store does, and what went while a namespace was left."""
        with self._at_once():
            keys = super().replace_all(kind, entries, version, namespace)
            for uid, standing in self._left.pop((kind, namespace), {}).items():
                self._change(uid, standing, None)
        return keys

    def forget(self, namespace: str) -> set[str]:
        """Forget what is held of a namespace, but for its hosts: its routes may well serve on.

        Others get these once it is read again without them; its detectors write nothing meanwhile.
        """
        held = [each for of_kind in self._entries.values() for each in of_kind.values()]
        with self._at_once():
            keys = super().forget(namespace)
            for each in held:
                if each.namespace == namespace and each.standing:
                    left = replace(each.standing, moves=False)
                    self._left.setdefault((each.kind, namespace), {})[each.uid] = left
                    self._change(each.uid, None, left)
        return keys

    def set_served(self, kind: Kind, served: bool) -> bool:
        """Record whether the API of an optional kind exists; return whether that is news."""
        with self._at_once():
            if not super().set_served(kind, served):
                return False
            if kind in kinds.ROUTERS.values() or kind in kinds.GATEWAYS.values():
                for known in list(self._entries[kinds.DETECTOR].values()):
                    self._ask_anew(known)
        return True

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        """Have what changes within looked at once, however many objects it is."""
        if self._together is not None:
            yield
            return
        self._together = {}
        try:
            yield
        finally:
            together, self._together = self._together, None
            self.routes.change_all(together)

    def _change(self, uid: str, before: Standing | None, after: Standing | None) -> None:
        if self._together is None:
            self.routes.change(uid, before, after)
        else:
            first, _ = self._together.get(uid, (before, None))
            self._together[uid] = first, after

    def _node_changed(self, *nodes: Entry | None) -> None:
        """Take in that a node is another one than it was, one of which may be none."""
        self.nodes_version += 1
        if any(node and _OFFERS_NONE not in node.body for node in nodes):
            self.offers_version += 1

    def _gateway_changed(self, gateway: str) -> None:
        """Take in that a gateway came, went, or lets in others.

        Who names it may be for another router now, and have what it had not, or the other way.
        """
        naming = self.routes.naming(gateway)
        with self._at_once():
            for uid in naming:
                if known := self._entries[kinds.DETECTOR].get(uid):
                    self._ask_anew(known)
                for kind in kinds.ROUTERS.values():
                    if known := self._entries[kind].get(uid):
                        anew = replace(known, standing=_standing(kind, known.manifest()))
                        self._stand_anew(known, self._let_in(anew))
        self.routes.wake_around(naming.values())

    def _ask_anew_for(self, route: Entry) -> None:
        """Take in that a route came, went, or is elsewhere: what may be added to it follows."""
        detector = self.named(kinds.DETECTOR, route.namespace, route.name)
        if detector and detector.key == route.key:
            self._ask_anew(detector)

    def _ask_anew(self, detector: Entry) -> None:
        self._stand_anew(detector, self._asking(detector))

    def _stand_anew(self, known: Entry, entry: Entry) -> None:
        self._entries[known.kind][known.uid] = entry
        if (owner := self._owner(known)) in self._owned:
            self._owned[owner][known.uid] = entry
        self._change(known.uid, known.standing, entry.standing)

    def _doors(self, kind: str, gateway: str) -> Doors | None:
        """Return whom a gateway of routes of `kind` lets in, if it is known."""
        namespace, _, name = gateway.partition("/")
        of = (kinds.GATEWAYS[each] for each, by in kinds.ROUTERS.items() if by.name == kind)
        found = (self.named(each, namespace, name) for each in of)
        return next((entry.doors for entry in found if entry), None)

    def _let_in(self, route: Entry) -> Entry:
        """Return a route with what of its claims its gateways leave to it."""
        if not (standing := route.standing) or not standing.claims:
            return route
        claims = (
            standing.claims - self.shut(route.kind.name, route.namespace, standing.claims).keys()
        )
        return replace(route, standing=replace(standing, claims=claims))

    def _asking(self, detector: Entry) -> Entry:
        """Return the entry of a detector with what it asks for by the routers that there are."""
        raw = detector.manifest()
        routers, absent = self.routers(), self.absent(raw)
        wish, router = wish_of(raw, routers, absent), router_of(raw, routers, absent)
        shut = self.shut(router.KIND, detector.namespace, wish.claims())
        limits = Limits(self._allowed, shut, bare=router.TAKES_ALL_HOSTS, most=router.MOST_HOSTS)
        gateways, live = named_gateways(raw) - {MESH}, self._live(router, detector)
        reach = reach_of(wish, live, limits)
        claims = reach.had if rests(raw) else frozenset(reach.claims.values())
        if not claims and not gateways:
            return replace(detector, standing=None)
        hosts, there = reach.kept
        standing = Standing(
            detector.key,
            _since(raw["metadata"]),
            claims,
            routed=False,
            moves=moves(raw),
            gateways=gateways,
            kept=(hosts, frozenset(wish.claim(each, "")[0] for each in there - reach.idle)),
        )
        return replace(detector, standing=standing)

    def _live(self, router: Router, detector: Entry) -> Places | None:
        """Return what the route of a detector has by `router`, whomever its gateways let in."""
        of = (each for each in kinds.ROUTERS.values() if each.name == router.KIND)
        found = (self.named(each, detector.namespace, detector.name) for each in of)
        route = next((each.manifest() for each in found if each and each.key == detector.key), None)
        if route is None or "deletionTimestamp" in route["metadata"]:
            return None
        return router.places(route.get("spec") or {})

    def _owner(self, entry: Entry) -> str:
        """Return whose child it is; pods are no children: they are found by `pods`."""
        return "" if entry.kind is kinds.POD else super()._owner(entry)

    def _link(self, entry: Entry) -> None:
        super()._link(entry)
        if entry.kind is kinds.POD:
            self._pods.setdefault(entry.key, {})[entry.uid] = entry
            if entry.reserved:
                self._held.setdefault(entry.reserved[0], Counter()).update(entry.reserved[1])

    def _unlink(self, entry: Entry) -> None:
        super()._unlink(entry)
        if entry.reserved:
            node, amounts = entry.reserved
            self._held[node] = self._held[node] - Counter(amounts)
            if not self._held[node]:
                del self._held[node]
        if entry.kind is kinds.POD and entry.key in self._pods:
            self._pods[entry.key].pop(entry.uid, None)
            if not self._pods[entry.key]:
                del self._pods[entry.key]
