"""O5: what was unsafe at some moment, read from the history of the objects.

I1 to I8 as far as objects show them: weights sum to 100 and go to what is there and ready; nothing
loses its pods while requests still go there; the last ready revision is never deleted; revisions
are immutable.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from math import ceil
from types import MappingProxyType
from typing import Final

from faults.heard import Heard
from faults.history import Seen
from faults.stage import BYSTANDER, NAME
from yolofleet.api.names import REVISION_LABEL, Manifest
from yolofleet.cluster import kinds
from yolofleet.runtime import objects
from yolofleet.workloads.choice import workload_of

STALE_S: Final = 3.0
"""An operator decides on what it has heard of. Where that is not known, so long a change of
readiness, or of the replicas that are asked for, may not be: by the clock in memory, which waits
for the operator, and for a write whose answer went with the one who asked."""


@dataclass(frozen=True)
class View:
    """By what a write is judged. excused: what was ready a moment ago."""

    ready: Mapping[str, int]
    full: int
    excused: Set[str] = frozenset()


@dataclass
class World:
    """The objects at one moment, and when each revision was last ready."""

    deployments: dict[str, Manifest] = field(default_factory=dict)  # or RayServices
    services: dict[str, Manifest] = field(default_factory=dict)
    rules: set[str] = field(default_factory=set)
    route: Manifest | None = None
    detector: Manifest | None = None
    was_ready: dict[str, float] = field(default_factory=dict)
    was_full: list[tuple[float, int]] = field(default_factory=list)
    past: defaultdict[str, list[Seen]] = field(default_factory=lambda: defaultdict(list))

    def ready(self, revision: str) -> int:
        """Return the replicas of `revision` that can answer."""
        return _ready(self.deployments.get(revision))

    def views(self, at: float, heard: Heard | None) -> tuple[View, View]:
        """Return what is, and what whoever writes may take for it: a write is bad by both."""
        now = View({name: self.ready(name) for name in self.deployments}, _full(self.detector))
        return now, self._lately(now, at) if heard is None else self._as_heard(heard)

    def _lately(self, now: View, at: float) -> View:
        full = min([now.full, *(n for until, n in self.was_full if at - until < STALE_S)])
        excused = {name for name, when in self.was_ready.items() if at - when < STALE_S}
        return View(now.ready, full, excused)

    def _as_heard(self, heard: Heard) -> View:
        then = {key: self._version(key, version) for key, version in heard.items()}
        kind = kinds.DETECTOR.name
        (detector,) = [manifest for key, manifest in then.items() if key.startswith(f"{kind}/")]
        ready = {
            key.partition("/")[2]: _ready(manifest)
            for key, manifest in then.items()
            if manifest is not detector
        }
        return View(ready, _full(detector))

    def _version(self, key: str, version: int) -> Manifest | None:
        known = (seen for seen in reversed(self.past[key]) if seen.version <= version)
        seen = next(known, None)
        return seen.manifest if seen and seen.type != "DELETED" else None

    @property
    def weights(self) -> dict[str, int]:
        """Return the weights of the last route."""
        return weights_of(self.route) if self.route else {}

    @property
    def selected(self) -> str:
        """Return the revision that the stable Service selects."""
        selector = self.services.get(NAME, {}).get("spec", {}).get("selector") or {}
        return str(selector.get(REVISION_LABEL, ""))

    @property
    def leaving(self) -> bool:
        """Return whether there is no detector that anything would have to be safe for."""
        return self.detector is None or "deletionTimestamp" in self.detector["metadata"]


def weights_of(route: Manifest) -> dict[str, int]:
    """Return the weights by revision in a VirtualService."""
    return {
        to["destination"]["host"].split(".")[0]: int(to.get("weight", 0))
        for to in route["spec"]["http"][-1]["route"]
    }


def _ready(workload: Manifest | None) -> int:
    status = (workload or {}).get("status", {})
    return int(status.get("availableReplicas", 0) or status.get("numServeEndpoints", 0))


def problems(
    history: Sequence[Seen],
    *,
    before: Sequence[Seen] = (),
    heard: Mapping[int, Heard] = MappingProxyType({}),
) -> list[str]:
    """Return what was unsafe in `history`; `before` is what led up to it.

    heard: by version, what whoever wrote it had heard of, where that is known.
    """
    world = World()
    for seen in before:
        _note(world, seen)
    found: list[str] = []
    for seen in history:
        if seen.name != BYSTANDER:
            found += _judge(world, seen, heard.get(seen.version))
            _note(world, seen)
    return found


def _note(world: World, seen: Seen) -> None:
    gone, name = seen.type == "DELETED", seen.name
    if seen.kind in (kinds.DETECTOR, *kinds.WORKLOADS):
        world.past[f"{seen.kind}/{name}"].append(seen)
    if seen.kind is kinds.DETECTOR:
        if world.detector is not None:
            world.was_full.append((seen.at, _full(world.detector)))
        world.detector = None if gone else seen.manifest
    elif seen.kind is kinds.VIRTUAL_SERVICE:
        world.route = None if gone else seen.manifest
    elif seen.kind is kinds.DESTINATION_RULE:
        (world.rules.discard if gone else world.rules.add)(name)
    elif seen.kind in (*kinds.WORKLOADS, kinds.SERVICE):
        held = world.deployments if seen.kind in kinds.WORKLOADS else world.services
        if seen.kind in kinds.WORKLOADS and world.ready(name):
            world.was_ready[name] = seen.at
        if gone:
            held.pop(name, None)
        else:
            held[name] = seen.manifest


def _judge(world: World, seen: Seen, heard: Heard | None) -> Iterator[str]:
    if world.leaving or not _of_this_detector(world, seen):
        return
    if seen.kind is kinds.VIRTUAL_SERVICE and seen.type != "DELETED":
        yield from _route(world, seen, world.views(seen.at, heard))
    elif seen.kind in kinds.WORKLOADS:
        yield from _deployment(world, seen)
    elif seen.kind in (kinds.SERVICE, kinds.DESTINATION_RULE) and seen.type == "DELETED":
        if weight := world.weights.get(seen.name):
            yield f"I3 {seen.kind} {seen.name} went with {weight} % of the traffic"
    elif seen.kind is kinds.SERVICE and seen.name == NAME and seen.type == "MODIFIED":
        yield from _selector(world, seen, world.views(seen.at, heard))


def _of_this_detector(world: World, seen: Seen) -> bool:
    """Say whether this is not a child of a namesake that was deleted: it goes by itself."""
    assert world.detector is not None
    owner = objects.controller_uid(seen.manifest)
    return owner in ("", world.detector["metadata"]["uid"]) or seen.kind is kinds.DETECTOR


def _route(world: World, seen: Seen, views: tuple[View, View]) -> Iterator[str]:
    """I1, I3: weights sum to 100, exist, and grow only where something is ready."""
    if _foreign(seen.manifest):
        return
    weights, before = weights_of(seen.manifest), world.weights
    if sum(weights.values()) != 100:
        yield f"I1 weights sum to {sum(weights.values())}: {weights}"
    for name, weight in weights.items():
        if weight <= before.get(name, 0):
            continue
        missing = [
            kind
            for kind, held in (("Service", world.services), ("DestinationRule", world.rules))
            if name not in held
        ]
        if missing:
            yield f"I3 {weight} % to {name}, which has no {' and no '.join(missing)}"
        if all(wrong := [_overburdened(name, weights, before, view) for view in views]):
            yield wrong[0]


def _overburdened(
    name: str, weights: Mapping[str, int], before: Mapping[str, int], view: View
) -> str:
    """Say whether more goes to `name` than its ready replicas carry; empty where they do."""
    if name in view.excused:
        return ""
    weight, mine = weights[name], view.ready.get(name, 0)
    others = [n for n, ready in view.ready.items() if n != name and ready]
    if others and not mine:
        return f"I1 {weight} % to {name}, of which nothing is ready; {others} are"
    # Whole percents that sum to 100: where one of three carries 33, the two others bear 67.
    # Where fewer are ready than are needed, each bears more: its part of those that are.
    needed = min(max(view.full, 1), sum(view.ready.values()) or 1)
    carries = ceil(100 * mine / needed)
    stable_kept = any(before.get(n, 0) > weights.get(n, 0) for n in others)
    if stable_kept and carries < weight < 100:
        return (
            f"I1 {weight} % to {name}, whose ready replicas carry {carries} %: after {dict(before)}"
            f" {dict(weights)}, ready {dict(view.ready)} of {view.full}"
        )
    return ""


def _deployment(world: World, seen: Seen) -> Iterator[str]:
    """I5, I7: what requests go to keeps its pods; revisions are immutable."""
    name, before = seen.name, world.deployments.get(seen.name)
    if before is None:
        return
    same = before["metadata"]["uid"] == seen.uid
    ours = not _foreign(seen.manifest)
    if same and _pods(before) != _pods(seen.manifest) and ours:
        yield f"the pods of {name} changed: revisions are immutable"
    gone = seen.type == "DELETED" or not seen.manifest["spec"].get("replicas", 1)
    if not gone or not before["spec"].get("replicas", 1) or not world.ready(name):
        return
    full = _full(world.detector)
    if world.weights.get(name) and full:
        yield f"I7 {name} lost its pods with {world.weights[name]} % of the traffic"
    if world.selected == name and full:
        yield f"I5 {name} lost its pods while the Service selects it"
    others = [n for n in world.deployments if n != name and world.ready(n)]
    if not others and full:
        yield f"the last ready revision {name} lost its pods"


def _pods(manifest: Manifest) -> Manifest | None:
    workload = workload_of(manifest)
    return workload.pod(manifest) if workload else None


def _selector(world: World, seen: Seen, views: tuple[View, View]) -> Iterator[str]:
    """I5: the Service never moves from what serves to what does not."""
    selector: Mapping[str, str] = seen.manifest["spec"].get("selector") or {}
    to, was = selector.get(REVISION_LABEL, ""), world.selected
    if _foreign(seen.manifest) or to == was or not to:  # without one it selects all that is ready
        return
    if all(_serves(was, view) and not _serves(to, view) for view in views):
        yield f"I5 the Service moved from {was} to {to}, of which nothing is ready"


def _serves(revision: str, view: View) -> bool:
    return bool(view.ready.get(revision)) or revision in view.excused


def _foreign(manifest: Manifest) -> bool:
    """Say whether the last write of the spec was somebody else's."""
    entries = [
        entry
        for entry in manifest["metadata"].get("managedFields", ())
        if "f:spec" in (entry.get("fieldsV1") or {}) and not entry.get("subresource")
    ]
    last: Manifest = max(entries, key=lambda entry: str(entry.get("time", "")), default={})
    return str(last.get("manager", "")) not in ("yolofleet", "yolofleet-handover", "")


def _full(detector: Manifest | None) -> int:
    replicas = (detector or {}).get("spec", {}).get("replicas", 1)
    return 1 if replicas is None else int(replicas)
