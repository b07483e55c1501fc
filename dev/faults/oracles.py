"""What must hold whatever broke, as five questions that are asked of every run.

O1 the end is that of the fault-free run. O2 nothing was made or deleted more often than there, nor
updated more often than retries explain. O3 it came to rest, and then nothing was written. O4 the
log knows no exception that nobody handled, and the process ended as it should. O5 at no moment was
anything unsafe (`safety`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from controlplane.kube import eventually
from faults import safety
from faults.history import Seen
from faults.proxy import Call
from faults.size import AT_REST_S, CONVERGE_S, QUIET_S
from faults.stage import BYSTANDER, NAME, Stage
from faults.traces import Trace
from yolofleet.api.names import LAST_APPLIED_ANNOTATION, REVISION_LABEL, Manifest
from yolofleet.cluster import kinds
from yolofleet.runtime import objects

State = Mapping[str, Any]

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_BOOKKEEPING: Final = ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields")
_NOTES: Final = ("deployment.kubernetes.io/revision", LAST_APPLIED_ANNOTATION)
"""A counter that grows with what others do to the pods, and hashes that hold the uid."""

_HISTORY: Final = ("revision",)
"""A record's number grows with the revisions that were there before."""

_ADDRESSES: Final = ("clusterIP", "clusterIPs")


@dataclass(frozen=True)
class Reference:
    """What the fault-free run of a trace did."""

    trace: Trace
    state: State
    made: Counter[str]
    gone: Counter[str]
    updates: Counter[str]
    writes: tuple[str, ...]


async def state_of(stage: Stage) -> State:
    """Return all that a detector is and owns, without what differs from run to run."""
    found: dict[str, Any] = {
        f"{kind}/{name}": _normal(child) for (kind, name), child in (await stage.children()).items()
    }
    if (raw := await stage.kube.find(kinds.DETECTOR, stage.namespace, NAME)) is not None:
        status = dict(raw.get("status", {}))
        seen = status.pop("observedGeneration", None)
        status["ofThisSpec"] = seen == raw["metadata"]["generation"]
        status["conditions"] = [
            {k: v for k, v in c.items() if k != "observedGeneration"}
            for c in status["conditions"]
            if c["type"] != "Drifted"  # it tells what was, too
        ]
        found["YoloDetector"] = {"spec": raw["spec"], "status": status}
    text = json.dumps(found, sort_keys=True).replace(stage.namespace, "NAMESPACE")
    normal: State = json.loads(_TIME.sub("TIME", _UUID.sub("UID", text)))
    return normal


def _normal(child: Manifest) -> Manifest:
    metadata = {k: v for k, v in child["metadata"].items() if k not in _BOOKKEEPING}
    annotations = metadata.get("annotations", {})
    metadata["annotations"] = {k: v for k, v in annotations.items() if k not in _NOTES}
    metadata["appliedFields"] = {
        entry["manager"]: entry["fieldsV1"]
        for entry in child["metadata"].get("managedFields", ())
        if entry["manager"].startswith("yolofleet") and not entry.get("subresource")
    }
    fields = {k: v for k, v in child.items() if k not in ("metadata", "status", *_HISTORY)}
    spec = {k: v for k, v in child.get("spec", {}).items() if k not in _ADDRESSES}
    ready = child.get("status", {}).get("readyReplicas", 0) if "replicas" in spec else None
    return fields | {"metadata": metadata, "spec": spec, "ready": ready}


def counted(seen: Iterable[Seen], type: str) -> Counter[str]:
    """Count how often each object was made (ADDED) or went (DELETED); pods by revision."""
    return Counter(_counted_as(one) for one in seen if one.type == type and one.name != BYSTANDER)


def _counted_as(seen: Seen) -> str:
    if seen.kind in kinds.CHILDREN or seen.kind is kinds.DETECTOR:
        return f"{seen.kind}/{seen.name}"
    labels = seen.manifest["metadata"].get("labels", {})
    return f"{seen.kind} of {labels.get(REVISION_LABEL)}"


def updated(writes: Iterable[Call]) -> Counter[str]:
    """Count the patches of each object that the API server took."""
    return Counter(
        f"{call.kind}/{call.name}{'/status' if call.subresource else ''}"
        for call in writes
        if call.verb == "patch" and call.succeeded and call.kind != "events"
    )


async def reference(stage: Stage, trace: Trace) -> Reference:
    """Run `trace` on `stage`, whose operator runs, without a fault."""
    await trace.prepare(stage)
    await stage.begin()
    await trace.step(stage)
    await stage.settled()
    await stage.rest(QUIET_S)
    found = Reference(
        trace,
        await state_of(stage),
        counted(stage.happened(), "ADDED"),
        counted(stage.happened(), "DELETED"),
        updated(stage.proxy.writes),
        tuple(map(str, stage.proxy.writes)),
    )
    await end(stage)
    assert stage.heard(), "the operator does not say what it had heard of when it wrote"
    if wrong := [*_unsafe(stage), *log_problems(stage.operator.text())]:
        raise AssertionError("the fault-free run is not safe:\n" + "\n".join(wrong))
    return found


async def judge(
    stage: Stage,
    expected: Reference,
    *,
    retries: int = 1,
    exits: tuple[int, ...] = (),
    counts: bool = True,
    net: tuple[str, ...] = (),
    safe: bool = True,
    bystander: bool = True,
    within_s: float = CONVERGE_S,
) -> None:
    """Ask all five questions of what happened on `stage` since `begin`.

    retries: writes that the fault explains, per object. exits: how the operator may have ended.
    counts: whether O2 applies; not where others made and deleted objects. net: of what O2 counts
    only how many are left, by the beginnings of names. safe: as `counts`, for O5.
    bystander: whether what looks like a child and is nobody's must be there untouched.
    """
    wrong = await _end_state(stage, expected, within_s)
    wrong += await _not_quiet(stage, expected)
    if counts:
        wrong += _counts(stage, expected, retries, net)
    await end(stage)
    wrong += [f"O4 {told}" for told in log_problems(stage.operator.text())]
    wrong += [f"O4 exit status {code}" for code in stage.exits if code not in exits]
    if safe:
        wrong += [f"O5 {told}" for told in _unsafe(stage)]
    wrong += await _orphans(stage)
    if bystander:
        wrong += _touched(stage)
    if wrong:
        writes = "\n".join(f"  {c.number} {c} {c.status}" for c in stage.proxy.writes)
        usual = ", ".join(expected.writes)
        raise AssertionError("\n".join(wrong) + f"\nwrites:\n{writes}\nwithout a fault: {usual}")


def _unsafe(stage: Stage) -> list[str]:
    earlier = [one for one in stage.history.of(stage.namespace) if one.version <= stage.since]
    return safety.problems(stage.happened(), before=earlier, heard=stage.heard())


async def _end_state(stage: Stage, expected: Reference, within_s: float) -> list[str]:
    found: State = {}

    async def as_expected() -> bool:
        nonlocal found
        await asyncio.sleep(0.15)  # reading all costs the API server something
        found = await state_of(stage)
        return found == expected.state

    try:
        await eventually(as_expected, within_s)
    except AssertionError as error:
        unlike = [f"O1 {told}" for told in differences(expected.state, found)]
        return unlike or [f"O1 {error}"]
    return []


def differences(expected: Any, found: Any, path: str = "") -> list[str]:
    """Say in which places two states differ."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return [
            told
            for name in sorted(expected.keys() | found.keys())
            for told in differences(expected.get(name), found.get(name), f"{path}.{name}")
        ]
    return [] if expected == found else [f"{path[1:]}: {found!r}, not {expected!r}"[:500]]


async def _not_quiet(stage: Stage, expected: Reference) -> list[str]:
    await stage.rest(AT_REST_S)
    await stage.leading(stage.operator)  # one that was just started again has to be quiet too
    if late := await stage.written_within(QUIET_S):
        return [f"O3 written after it had come to rest: {late}"]
    after = differences(expected.state, await state_of(stage))
    return [f"O3 it did not stay so: {told}" for told in after]


def _counts(stage: Stage, expected: Reference, retries: int, net: tuple[str, ...]) -> list[str]:
    happened = stage.happened()
    made, gone = counted(happened, "ADDED"), counted(happened, "DELETED")
    usual_made, usual_gone = Counter(expected.made), Counter(expected.gone)
    for came, went in ((made, gone), (usual_made, usual_gone)):
        for name in [name for name in came.keys() | went.keys() if name.startswith(net)]:
            came[name], went[name] = came[name] - went[name], 0
    wrong = [f"O2 made {told}" for told in _unlike(made, usual_made)]
    wrong += [f"O2 deleted {told}" for told in _unlike(gone, usual_gone)]
    for name, times in updated(stage.proxy.writes).items():
        allowed = expected.updates[name] + retries
        if name.endswith("/status"):  # how many steps pods take to become ready is their matter
            allowed = 2 * expected.updates[name] + 4 + retries
        if times > allowed:
            wrong.append(f"O2 updated {name} {times} times, and {expected.updates[name]} do")
    return wrong


def _unlike(found: Counter[str], expected: Counter[str]) -> list[str]:
    return [
        f"{name} {found[name]} times, not {expected[name]}"
        for name in sorted(found.keys() | expected.keys())
        if found[name] != expected[name]
    ]


def _touched(stage: Stage) -> list[str]:
    """Foreign objects are untouched."""
    happened = [one.type for one in stage.history.of(stage.namespace) if one.name == BYSTANDER]
    return [] if happened == ["ADDED"] else [f"O5 the bystander was touched: {happened}"]


async def _orphans(stage: Stage) -> list[str]:
    """Nothing is left without its owner."""
    wrong = []
    raw = await stage.kube.find(kinds.DETECTOR, stage.namespace, NAME)
    uid = raw["metadata"]["uid"] if raw else "nobody"
    for (kind, name), child in (await stage.children()).items():
        if (owner := objects.controller_uid(child)) not in (uid, ""):
            wrong.append(f"O5 {kind} {name} belongs to {owner}, who is gone")
    return wrong


async def end(stage: Stage) -> None:
    """End the operator as the kubelet does; it must obey, and say 0."""
    stage.restarts = False
    if stage.operator.exit_status() is None:
        with contextlib.suppress(AssertionError, RuntimeError):  # it has just begun, or ends
            await stage.operator.ready(60.0)
        try:
            status = await asyncio.to_thread(stage.operator.terminate)
        except subprocess.TimeoutExpired:
            raise AssertionError("O4 SIGTERM did not end the operator") from None
        assert status == 0, f"O4 SIGTERM ended the operator with {status}"


_UNHANDLED: Final = ("Traceback (most recent", "never retrieved", "was never awaited")


def _fields(line: str) -> Mapping[str, Any]:
    try:
        fields: Mapping[str, Any] = json.loads(line)
    except json.JSONDecodeError:  # a traceback, or a line that SIGKILL cut short
        return {"message": line}
    return fields


def log_problems(text: str) -> list[str]:
    """Return what in a log shows that something went wrong that nobody had thought of."""
    wrong = []
    for line in text.splitlines():
        told = _fields(line)
        unhandled = any(sign in line for sign in _UNHANDLED)
        critical = told.get("level") == "critical" or told.get("message") == "reconcile failed"
        if unhandled or critical:
            wrong.append(line[:3000])
    return wrong
