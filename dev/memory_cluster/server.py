"""The API server in memory: objects, versions and owners of fields; one request, one answer.

It keeps what a real one keeps to: a resourceVersion of the whole store, generations, uids,
server-side apply with conflicts, preconditions, the status apart from the spec, deletion by
finalizers, and everything that happened, in order, for whoever watches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import orjson

from faults.history import Seen
from memory_cluster import fields
from memory_cluster.fields import Paths
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds
from yolofleet.runtime import kind as declared
from yolofleet.runtime.client import APPLY, JSON_PATCH, Request
from yolofleet.runtime.kind import Kind

MERGE: Final = "application/merge-patch+json"
EPOCH: Final = datetime(2030, 1, 1, tzinfo=UTC)

_NAMED: Final = (*vars(kinds).values(), *vars(declared).values())
KINDS: Final = tuple({k.path(): k for k in _NAMED if isinstance(k, Kind)}.values())
_APIS: Final = frozenset(kind.api_path for kind in KINDS)
_STATUS: Final = {
    "YoloDetector",
    "Deployment",
    "Pod",
    "HTTPRoute",
    "PodDisruptionBudget",
    "ScaledObject",
    "RayService",
}
_GENERATIONS_OF_NONE: Final = {
    "ConfigMap",
    "ControllerRevision",
    "Event",
    "Lease",
    "Node",
    "Pod",
    "ResourceClaimTemplate",
    "Service",
    "ServiceAccount",
}

Key = tuple[str, str, str]  # plural, namespace, name
Clock = Callable[[], float]


Json = TypeVar("Json")


def a_copy(value: Json) -> Json:
    """Return a copy of what is JSON, many times faster than `copy.deepcopy` makes one."""
    copied: Json = orjson.loads(orjson.dumps(value))
    return copied


@dataclass(frozen=True)
class Answer:
    """What the API server says."""

    code: int
    body: Manifest


class Failure(Exception):
    """A request that is not done, and how that is told."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.answer = Answer(code, status(code, reason, message))


def status(code: int, reason: str, message: str) -> Manifest:
    """Return the object with which an API server tells of a failure."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


@dataclass(frozen=True)
class _Address:
    kind: Kind
    namespace: str
    name: str
    subresource: str

    @property
    def key(self) -> Key:
        return self.kind.plural, self.namespace, self.name


@dataclass
class Server:
    """Objects by kind, namespace and name. absent: kinds whose API is not installed."""

    clock: Clock
    absent: set[Kind] = field(default_factory=set)
    objects: dict[Key, Manifest] = field(default_factory=dict)
    history: list[Seen] = field(default_factory=list)
    version: int = 100
    made: int = 0
    _addresses: dict[str, _Address | None] = field(default_factory=dict)

    def fork(self, clock: Clock) -> Server:
        """Return a copy that goes its own way; what happened so far is shared."""
        return replace(
            self,
            clock=clock,
            absent=set(self.absent),
            objects=dict(self.objects),  # what is stored is never changed, only replaced
            history=list(self.history),
        )

    def answer(self, request: Request) -> Answer:
        """Do what `request` asks for."""
        body = a_copy(request.body)  # nothing is shared with who asks
        try:
            if request.path in _APIS:
                return self._api(request.path)
            where = self._find(request.path)
            match request.method:
                case "GET" if where.name:
                    return Answer(200, a_copy(self._get(where)))
                case "GET":
                    return self._list(where, request.query)
                case "POST":
                    return self._create(where, body, request.query)
                case "PUT":
                    return self._put(where, body, request.query)
                case "PATCH":
                    return self._patch(where, body, request)
                case "DELETE":
                    return self._delete(where, body or {})
        except Failure as failure:
            return failure.answer
        raise AssertionError(f"the operator never sends {request.method}")

    def all(self, kind: Kind) -> list[Manifest]:
        """Return the objects of a kind as they are stored; not to be changed."""
        return [one for (plural, _, _), one in self.objects.items() if plural == kind.plural]

    def find(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """Return one object as it is stored; not to be changed."""
        return self.objects.get((kind.plural, namespace, name))

    @property
    def now(self) -> str:
        """The time that is written on objects."""
        return (EPOCH + timedelta(seconds=self.clock())).strftime("%Y-%m-%dT%H:%M:%SZ")

    # where

    def _api(self, path: str) -> Answer:
        served = [k for k in KINDS if k.api_path == path and k not in self.absent]
        if not served:
            raise Failure(404, "NotFound", "the server could not find the requested resource")
        return Answer(200, {"resources": [{"name": kind.plural} for kind in served]})

    def _find(self, path: str) -> _Address:
        if path not in self._addresses:
            self._addresses[path] = next(_addresses(path), None)
        found = self._addresses[path]
        if found is None or found.kind in self.absent:
            raise Failure(404, "NotFound", "the server could not find the requested resource")
        return found

    def _get(self, where: _Address) -> Manifest:
        if (found := self.objects.get(where.key)) is None:
            raise Failure(404, "NotFound", f'{where.kind.plural} "{where.name}" not found')
        return found

    # reading

    def _list(self, where: _Address, query: Mapping[str, str]) -> Answer:
        wanted = [
            one
            for one in self.all(where.kind)
            if where.namespace in ("", one["metadata"].get("namespace", ""))
            and selected(one, query.get("labelSelector", ""))
        ]
        items = a_copy(wanted)
        return Answer(200, {"items": items, "metadata": {"resourceVersion": str(self.version)}})

    # writing

    def _create(self, where: _Address, body: Manifest, query: Mapping[str, str]) -> Answer:
        where = replace(where, name=body["metadata"]["name"])
        if where.key in self.objects:
            raise Failure(
                409, "AlreadyExists", f'{where.kind.plural} "{where.name}" already exists'
            )
        manager = query.get("fieldManager", "unknown")
        return Answer(201, self._made(where, body, manager, "Update"))

    def _made(self, where: _Address, body: Manifest, manager: str, operation: str) -> Manifest:
        self.made += 1
        digest = hashlib.sha256(f"{where.key} {self.made}".encode()).hexdigest()
        uid = "-".join(
            (digest[:8], digest[8:12], "4" + digest[13:16], digest[16:20], digest[20:32])
        )
        made = a_copy(body)
        made["apiVersion"], made["kind"] = where.kind.api_version, where.kind.name
        if where.kind.name in _STATUS:
            made.pop("status", None)
        metadata = made["metadata"]
        for name in ("resourceVersion", "managedFields", "deletionTimestamp", "uid"):
            metadata.pop(name, None)
        owned = frozenset(fields.leaves(made))  # before the defaults, which nobody owns
        metadata |= {"name": where.name, "uid": uid, "creationTimestamp": self.now}
        if where.namespace:
            metadata["namespace"] = where.namespace
        if where.kind.name not in _GENERATIONS_OF_NONE:
            metadata["generation"] = 1
        _default(made, self.made)
        entry = _entry(made, _Owner(manager, operation, ""), owned, self.now)
        metadata["managedFields"] = [entry] if entry["fieldsV1"] else []
        return self._store(where, None, made)

    def _put(self, where: _Address, body: Manifest, query: Mapping[str, str]) -> Answer:
        live = self._get(where)
        self._check(where, live, body.get("metadata", {}))
        manager = query.get("fieldManager", "unknown")
        return Answer(200, self._updated(where, live, body, manager))

    def _patch(self, where: _Address, body: Any, request: Request) -> Answer:
        manager = request.query.get("fieldManager", "unknown")
        if request.content_type == APPLY:
            return self._apply(where, body, manager, force=request.query.get("force") == "true")
        live = self._get(where)
        if request.content_type == JSON_PATCH:
            after = _json_patched(live, body)
        elif request.content_type == MERGE:
            after = merge_patched(live, body)
        else:
            raise Failure(415, "UnsupportedMediaType", f"{request.content_type} is not spoken here")
        self._check(where, live, after["metadata"])
        return Answer(200, self._updated(where, live, after, manager))

    def _apply(self, where: _Address, config: Manifest, manager: str, *, force: bool) -> Answer:
        live = self.objects.get(where.key)
        told = config["metadata"]
        if live is None:
            if told.get("uid") or told.get("resourceVersion"):
                self._check(where, {"metadata": {"uid": "", "resourceVersion": "0"}}, told)
            if where.subresource:
                raise Failure(404, "NotFound", f'{where.kind.plural} "{where.name}" not found')
            return Answer(201, self._made(where, config, manager, "Apply"))
        self._check(where, live, told)
        after, owners = applied(live, config, manager, where.subresource, force=force)
        return Answer(200, self._changed(where, live, after, owners))

    def _updated(self, where: _Address, live: Manifest, after: Manifest, manager: str) -> Manifest:
        after = self._kept_apart(where, live, after)
        differs = fields.changes(live, after)
        owners = _owners(live)
        mine = _Owner(manager, "Update", where.subresource)
        touched = _wanted(differs.set, where.subresource)
        for owner, owned in owners.items():
            if owner != mine:
                owners[owner] = owned - touched - differs.gone
        owners[mine] = (owners.get(mine, frozenset()) | touched) - differs.gone
        return self._changed(where, live, after, owners)

    def _kept_apart(self, where: _Address, live: Manifest, after: Manifest) -> Manifest:
        """Return `after`, of which a request for the status changes only that, and others not."""
        if where.subresource == "status":
            return live | {"status": after.get("status", {})}
        kept = {k: v for k, v in after.items() if k != "status"}
        if where.kind.name in _STATUS:
            return kept | ({"status": live["status"]} if "status" in live else {})
        return after

    def _changed(
        self,
        where: _Address,
        live: Manifest,
        after: Manifest,
        owners: Mapping[_Owner, Paths],
    ) -> Manifest:
        after = a_copy(self._kept_apart(where, live, after))
        kept = ("name", "namespace", "uid", "creationTimestamp", "generation", "deletionTimestamp")
        after["metadata"] |= {n: live["metadata"][n] for n in kept if n in live["metadata"]}
        _default(after, self.made)
        if (fixed := where.kind.fixed) and after.get(fixed) != live.get(fixed):
            raise Failure(
                422,
                "Invalid",
                f'{where.kind} "{where.name}" is invalid: {fixed}: field is immutable',
            )
        known = {_owner_of(entry): entry for entry in _managed(live)}
        # In one order: an apply that changes nothing must leave the version alone.
        after["metadata"]["managedFields"] = [
            known[owner]
            if owner in known and fields.paths_of(known[owner]["fieldsV1"]) == owned
            else _entry(live, owner, owned, self.now)
            for owner, owned in sorted(owners.items(), key=lambda item: item[0])
            if owned
        ]
        after["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"]
        if after == live:
            return a_copy(live)
        if "generation" in live["metadata"] and _spec(after) != _spec(live):
            after["metadata"]["generation"] += 1
        return self._store(where, live, after)

    def _check(self, where: _Address, live: Manifest, told: Mapping[str, Any]) -> None:
        """Refuse what was meant for another object, or for another state of this one."""
        there = live["metadata"]
        if told.get("uid", there["uid"]) != there["uid"]:
            raise Failure(
                409,
                "Conflict",
                f'Operation cannot be fulfilled on {where.kind.plural} "{where.name}": the UID in'
                f" the precondition ({told['uid']}) does not match the UID in record"
                f" ({there['uid']}). The object might have been deleted and then recreated",
            )
        if told.get("resourceVersion", there["resourceVersion"]) != there["resourceVersion"]:
            raise Failure(
                409,
                "Conflict",
                f'Operation cannot be fulfilled on {where.kind.plural} "{where.name}": the object'
                " has been modified; please apply your changes to the latest version and try again",
            )

    def _delete(self, where: _Address, options: Manifest) -> Answer:
        live = self._get(where)
        self._check(where, live, options.get("preconditions") or {})
        if options.get("propagationPolicy") == "Orphan":
            self._orphan(live["metadata"]["uid"])
        if live["metadata"].get("finalizers"):
            going = a_copy(live)
            going["metadata"].setdefault("deletionTimestamp", self.now)
            return Answer(200, self._store(where, live, going) if going != live else going)
        return Answer(200, self._gone(where, live))

    def _orphan(self, uid: str) -> None:
        for (plural, namespace, name), one in list(self.objects.items()):
            references = one["metadata"].get("ownerReferences") or []
            left = [each for each in references if each["uid"] != uid]
            if left == references:
                continue
            kind = next(kind for kind in KINDS if kind.plural == plural)
            after = one | {"metadata": one["metadata"] | {"ownerReferences": left}}
            if not left:
                del after["metadata"]["ownerReferences"]
            where = _Address(kind, namespace, name, "")
            self._updated(where, one, after, "kube-controller-manager")

    def _store(self, where: _Address, live: Manifest | None, after: Manifest) -> Manifest:
        metadata = after["metadata"]
        if "deletionTimestamp" in metadata and not metadata.get("finalizers"):
            return self._gone(where, after)
        self.version += 1
        metadata["resourceVersion"] = str(self.version)
        self.objects[where.key] = after
        self._happened(where, "MODIFIED" if live else "ADDED", after)
        return a_copy(after)

    def _gone(self, where: _Address, live: Manifest) -> Manifest:
        self.version += 1
        last = a_copy(live)
        last["metadata"]["resourceVersion"] = str(self.version)
        self.objects.pop(where.key, None)
        self._happened(where, "DELETED", last)
        return last

    def _happened(self, where: _Address, type: str, manifest: Manifest) -> None:
        seen = Seen(self.version, self.clock(), type, where.kind, manifest)
        self.history.append(seen)


def _addresses(path: str) -> Iterator[_Address]:
    for kind in KINDS:
        prefix, parts = kind.api_path + "/", path.split("/")
        if not path.startswith(prefix):
            continue
        rest = path[len(prefix) :].split("/")
        namespace = ""
        if kind.namespaced and rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        if rest[0] == kind.plural and len(parts) < 10:
            yield _Address(kind, namespace, *[*rest[1:], "", ""][:2])


def selected(manifest: Manifest, selector: str) -> bool:
    """Say whether the labels of `manifest` are those of `selector` ("a=b,c=d")."""
    labels = manifest["metadata"].get("labels") or {}
    pairs = (part.split("=", 1) for part in selector.split(",") if part)
    return all(labels.get(name) == value for name, value in pairs)


# owners of fields


@dataclass(frozen=True, order=True)
class _Owner:
    manager: str
    operation: str
    subresource: str


def _managed(manifest: Manifest) -> list[Manifest]:
    return list(manifest["metadata"].get("managedFields") or ())


def _owner_of(entry: Manifest) -> _Owner:
    return _Owner(entry["manager"], entry["operation"], entry.get("subresource", ""))


def _owners(manifest: Manifest) -> dict[_Owner, Paths]:
    return {_owner_of(entry): fields.paths_of(entry["fieldsV1"]) for entry in _managed(manifest)}


def _wanted(paths: Paths, subresource: str) -> Paths:
    """Return of `paths` those that a manager owns who writes there."""
    return frozenset(
        path
        for path in paths
        if fields.is_status(path) is (subresource == "status") and not fields.owned_by_nobody(path)
    )


def applied(
    live: Manifest, config: Manifest, manager: str, subresource: str, *, force: bool
) -> tuple[Manifest, dict[_Owner, Paths]]:
    """Return what applying `config` to `live` makes of it, and who owns what then."""
    owners, mine = _owners(live), _Owner(manager, "Apply", subresource)
    others = {owner: owned for owner, owned in owners.items() if owner != mine}
    wanted = _wanted(frozenset(fields.leaves(config)), subresource)
    after = fields.merged(live, config, live)
    dropped = _of_nobody_else(owners.get(mine, frozenset()) - wanted, wanted, others)
    after = fields.without(after, dropped, live)
    differs = fields.changes(live, after)
    clashes = {owner: owned & differs.set for owner, owned in others.items() if owned & differs.set}
    if clashes and not force:
        told = "; ".join(
            f'conflict with "{owner.manager}": {_dotted(path)}'
            for owner, paths in clashes.items()
            for path in sorted(paths)
        )
        count = sum(map(len, clashes.values()))
        plural = "s" if count > 1 else ""
        raise Failure(409, "Conflict", f"Apply failed with {count} conflict{plural}: {told}")
    left = {owner: owned - differs.set - differs.gone for owner, owned in others.items()}
    return after, {**left, mine: wanted}


def _of_nobody_else(
    dropped: Paths, wanted: Paths, others: Mapping[_Owner, Paths]
) -> list[fields.Path]:
    """Return of `dropped` what goes from the object: what others own, or own part of, stays."""
    kept = wanted.union(*others.values())
    goes = [p for p in dropped if not any(other[: len(p)] == p for other in kept)]
    return sorted(goes, key=len, reverse=True)


def _entry(of: Manifest, owner: _Owner, owned: Paths, now: str) -> Manifest:
    entry = {
        "manager": owner.manager,
        "operation": owner.operation,
        "apiVersion": of["apiVersion"],
        "time": now,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields.tree_of(_wanted(owned, owner.subresource)),
    }
    return entry | ({"subresource": owner.subresource} if owner.subresource else {})


def _dotted(path: fields.Path) -> str:
    return "".join(f".{s[2:]}" if s.startswith("f:") else f"[{s[2:]}]" for s in path)


def _spec(manifest: Manifest) -> Manifest:
    apart = ("metadata", "status", "apiVersion", "kind")
    deleted = "deletionTimestamp" in manifest["metadata"]
    return {k: v for k, v in manifest.items() if k not in apart} | {"deleted": deleted}


# what the API server does to what it is given


def _default(manifest: Manifest, number: int) -> None:
    """Fill in what the operator reads back, where nobody says otherwise."""
    spec = manifest.get("spec")
    if manifest["kind"] == "Deployment" and isinstance(spec, dict):
        spec.setdefault("replicas", 1)
    if manifest["kind"] == "Service" and isinstance(spec, dict):
        spec.setdefault("clusterIP", f"10.96.{number // 250 % 250}.{number % 250 + 1}")
        spec.setdefault("type", "ClusterIP")


def merge_patched(value: Any, patch: Any) -> Any:
    """Return `value` as a merge patch (RFC 7386) leaves it."""
    if not isinstance(patch, dict):
        return patch
    base = value if isinstance(value, dict) else {}
    left = {k: v for k, v in base.items() if k not in patch or patch[k] is not None}
    return left | {k: merge_patched(base.get(k), v) for k, v in patch.items() if v is not None}


def _json_patched(value: Manifest, operations: list[Manifest]) -> Manifest:
    after = a_copy(value)
    for each in operations:
        steps = [s.replace("~1", "/").replace("~0", "~") for s in each["path"].split("/")[1:]]
        at: Any = after
        try:
            for step in steps[:-1]:
                at = at[int(step)] if isinstance(at, list) else at[step]
            last = int(steps[-1]) if isinstance(at, list) else steps[-1]
            match each["op"]:
                case "remove":
                    del at[last]
                case "replace" | "add" if isinstance(at, dict):
                    at[last] = each["value"]
                case "replace":
                    at[last] = each["value"]
                case other:
                    raise AssertionError(f"the operator never sends the operation {other}")
        except (KeyError, IndexError):
            told = f"the server rejected our request due to an error in our request: {each['path']}"
            raise Failure(422, "Invalid", told) from None
    return after
