"""What the operator believes about one detector, and why: the answer of the debug endpoint.

Only reads. It decides as `reconcile` would now, and writes nothing of it. No value of an
environment variable, no spec and no credentials in an address are shown: names, numbers, reasons.
"""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from yolofleet.api.base import InvalidSpec
from yolofleet.api.detector import Detector
from yolofleet.api.names import Manifest
from yolofleet.api.status import Condition, read_status
from yolofleet.cluster import kinds
from yolofleet.cluster.accelerators import Accelerators
from yolofleet.cluster.apply import Writer
from yolofleet.cluster.cache import Cache, Entry
from yolofleet.cluster.floors import Floors
from yolofleet.plan import powers
from yolofleet.plan.defaults import Defaults
from yolofleet.plan.live import Shadow
from yolofleet.plan.nodes import NodeRoom
from yolofleet.plan.observed import child_named
from yolofleet.plan.snapshot import Snapshot
from yolofleet.resources.service_account import pull_secrets_of
from yolofleet.runtime import objects
from yolofleet.runtime.compare import Difference
from yolofleet.runtime.errors import ClusterError
from yolofleet.runtime.queue import WorkQueue
from yolofleet.think import think
from yolofleet.workloads.revision import Revision
from yolofleet.workloads.workload import Record

Facts = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """What is known of one detector's world, as a reconcile would read it. cached: the children."""

    snapshot: Snapshot
    cached: Sequence[Entry]
    defaults: Defaults
    differing: Callable[[Manifest, Entry], Iterable[Difference]]


@dataclasses.dataclass(frozen=True, slots=True)
class Sources:
    """Where beliefs are kept; nothing of it is changed here."""

    cache: Cache
    writer: Writer
    accelerators: Accelerators
    floors: Floors
    queue: WorkQueue[str]
    defaults: Defaults
    leads: Callable[[], bool]


async def look(key: str, sources: Sources, *, now: datetime) -> Facts | None:
    """Return all that is believed of the detector `key`; None when there is none."""
    if (raw := sources.cache.detector(key)) is None:
        return None
    about: Facts = {"detector": key, "leads": sources.leads(), "queue": sources.queue.describe(key)}
    metadata = raw["metadata"]
    cached = sources.cache.owned_by(metadata["uid"])
    children = [child.manifest() for child in cached]
    nodes: tuple[NodeRoom, ...] = ()
    classes: frozenset[str] | None = None
    try:
        nodes, classes = await sources.accelerators.found_by(Detector.parse(raw), children)
    except InvalidSpec:
        pass  # told below
    except Exception as error:  # a fault of ours is what this is asked about
        about["nodesUnknown"] = repr(error)
    except ClusterError as error:
        about["nodesUnknown"] = str(error)
    snapshot = Snapshot(
        status=read_status(raw),
        children=children,
        pods=sources.cache.pods(key),
        nodes=nodes,
        device_classes=classes,
        routers=sources.cache.routers(),
        elsewhere=sources.cache.elsewhere(key, raw, sources.defaults),
        monitors=sources.cache.serves(kinds.POD_MONITOR),
        pull_secrets=pull_secrets_of(child_named(children, "ServiceAccount", metadata["name"])),
        unreached=sources.writer.unreached(metadata["uid"]),
        edited=sources.writer.edited(children),
        keda=sources.cache.keda(children, sources.defaults),
        moved=sources.floors.found(key),
        lacking=sources.cache.lacking(),
    )
    seen = Seen(snapshot, cached, sources.defaults, sources.writer.differing)
    return about | explain(raw, seen, now=now)


def overview(sources: Sources) -> list[Facts]:
    """Return a line for each detector: what is said of it, and when it was last looked at."""
    lines = []
    for key in sorted(sources.cache.detectors()):
        if raw := sources.cache.detector(key):
            conditions = (raw.get("status") or {}).get("conditions") or ()  # of thousands: unparsed
            said = {c["type"]: f"{c['status']} ({c['reason']})" for c in conditions}
            lines.append(
                {"detector": key, "conditions": said, "queue": sources.queue.describe(key)}
            )
    return lines


def explain(raw: Manifest, seen: Seen, *, now: datetime) -> Facts:
    """Return what is observed, what would be decided now and why, and what differs; pure."""
    metadata, status, pods = raw["metadata"], seen.snapshot.status, seen.snapshot.pods
    facts: Facts = {
        "resource": {
            "uid": metadata["uid"],
            "resourceVersion": metadata.get("resourceVersion"),
            "generation": metadata["generation"],
            "observedGeneration": status.observed_generation,
            "deleted": metadata.get("deletionTimestamp"),
        },
        "says": _said(status.conditions),
        "cached": [_object(child) for child in seen.cached] + [_pod(pod) for pod in pods],
    }
    try:
        detector = Detector.parse(raw)
        powers.check(detector.spec, seen.defaults.forbidden)
    except InvalidSpec as error:
        return facts | {"invalid": str(error)}
    try:
        thought = think(detector, seen.snapshot, seen.defaults, now=now)
    except Exception as error:  # a fault of ours is what this is asked about
        return facts | {"failed": traceback.format_exception_only(error), "at": _places(error)}
    observed = _plain(thought.observed)
    return facts | {
        "suspended": detector.spec.suspend,
        "observed": {
            k: v for k, v in observed.items() if k not in ("status", "token")
        },  # said above; a secret
        "analysis": _plain(thought.detector.spec.rollout.analysis),  # the chart's, where it is open
        "plan": _plain(thought.plan),
        "wouldSay": _said(thought.status.conditions),
        "differences": list(_differences(thought.desired, seen)),
    }


def _places(error: Exception) -> list[str]:
    """Return through which lines of code it came, without any value."""
    lines = traceback.extract_tb(error.__traceback__)
    return [f"{Path(each.filename).name}:{each.lineno} {each.name}" for each in lines]


def _differences(desired: Iterable[Manifest], seen: Seen) -> Iterable[str]:
    """Tell each write that a reconcile would consider now, and the fields that ask for it."""
    live = {(child.kind.name, child.name): child for child in seen.cached}
    for manifest in desired:
        kind, name = objects.identity(manifest)
        child = live.pop((kind, name), None)
        if child is None:
            yield f"{kind} {name}: is not there"
        else:
            yield from (f"{kind} {name}: {each}" for each in seen.differing(manifest, child))
    yield from (f"{kind} {name}: is not wanted" for kind, name in live)


def _object(child: Entry) -> Facts:
    return {
        "kind": child.kind.name,
        "name": child.name,
        "resourceVersion": str(child.version),
        "otherManagers": list(child.ownership.foreign_managers),
    }


def _pod(pod: Manifest) -> Facts:
    metadata = pod["metadata"]
    return {
        "kind": "Pod",
        "name": metadata["name"],
        "resourceVersion": metadata.get("resourceVersion"),
        "phase": pod.get("status", {}).get("phase"),
    }


def _said(conditions: Iterable[Condition]) -> Facts:
    return {c.type: f"{c.status} ({c.reason}): {c.message}" for c in conditions}


def _plain(value: Any) -> Any:
    """Return `value` as JSON can hold it; of a revision only what identifies it."""
    match value:
        case Revision():
            model = value.model.shown
            plain = {"name": value.name, "model": model, "image": value.image}
            return plain | {"renderVersion": value.render_version}
        case Shadow():
            return _plain(dataclasses.asdict(value) | {"token": None})
        case Record():
            return {"number": value.number}
        case BaseModel():
            return value.model_dump(mode="json", by_alias=True, exclude_none=True)
        case Enum():
            return value.value
        case datetime():
            return value.astimezone(UTC).isoformat()
        case timedelta():
            return f"{value.total_seconds():g} s"
        case Mapping():
            return {str(name): _plain(inner) for name, inner in value.items()}
        case set() | frozenset():
            return sorted(_plain(inner) for inner in value)
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case _ if dataclasses.is_dataclass(value):
            fields = dataclasses.fields(value)
            return {field.name: _plain(getattr(value, field.name)) for field in fields}
        case _:
            return value
