"""What a version of the operator wrote: recorded once, so that later versions are tested on it.

`python -m faults.written FILE` records what the present one writes for `SPECS`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from cluster import assets
from controlplane.kube import Kube
from controlplane.plane import control_plane
from faults.stage import NAME, Stage
from faults.theatre import Theatre
from faults.traces import SPEC, B
from yolofleet.api.names import MANAGER, STATUS_MANAGER, Manifest
from yolofleet.cluster import kinds

SPECS: Final[dict[str, dict[str, Any]]] = {
    "plain": SPEC,
    "canary": {**SPEC, "canary": {"model": B, "weight": 50}},
    "full": {
        "model": {"uri": "pvc://models/gate.onnx", "sha256": "0" * 64, "classes": ["a", "b"]},
        "runtime": {"image": "example.com/serve:1", "backend": "openvino", "precision": "bf16"},
        "inference": {"profile": "throughput", "imageSize": 640, "iou": 0.5, "maxBatch": 16},
        "resources": {"requests": {"cpu": "2", "memory": "2Gi"}, "limits": {"memory": "4Gi"}},
        "autoscaling": {"minReplicas": 2, "maxReplicas": 4},
        "podTemplate": {
            "metadata": {"annotations": {"example.com/a": "b"}},
            "spec": {"nodeSelector": {"disk": "ssd"}, "volumes": [{"name": "x", "emptyDir": {}}]},
        },
    },
}


async def record(stage: Stage) -> list[Manifest]:
    """Return the detector and its children, as they would be applied again."""
    detector = await stage.detector()
    found = [*(await stage.children()).values(), detector]
    text = json.dumps([_applied(manifest) for manifest in found])
    uid = detector["metadata"]["uid"]
    recorded: list[Manifest] = json.loads(
        text.replace(uid, "UID").replace(stage.namespace, "NAMESPACE")
    )
    return sorted(recorded, key=lambda m: (m["kind"], m["metadata"]["name"]))


def _applied(manifest: Manifest) -> Manifest:
    """Keep of `manifest` the fields that our managers applied, as managedFields has them."""
    entries = manifest["metadata"].get("managedFields", ())
    ours = [e["fieldsV1"] for e in entries if e["manager"] in (MANAGER, STATUS_MANAGER)]
    names = {k: manifest["metadata"][k] for k in ("name", "namespace")}
    if manifest["kind"] == kinds.DETECTOR.name:
        kept: Manifest = {"spec": manifest["spec"], "status": manifest["status"]}
    else:
        kept = {}
        for tree in ours:
            _merge(kept, chosen(manifest, tree))
    kept["metadata"] = kept.get("metadata", {}) | names
    return {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"], **kept}


def chosen(value: Any, tree: dict[str, Any]) -> Any:
    """Return the part of `value` that a FieldsV1 tree names."""
    if not {name for name in tree if name != "."}:
        return value
    if isinstance(value, dict):
        return {
            name[2:]: chosen(value[name[2:]], inner)
            for name, inner in tree.items()
            if name.startswith("f:") and name[2:] in value
        }
    return [part for item in value for part in _items(item, tree)]  # in their order: env has one


def _items(item: Any, tree: dict[str, Any]) -> Iterator[Any]:
    for name, inner in tree.items():
        if name.startswith("v:") and json.loads(name[2:]) == item:
            yield item
        elif name.startswith("k:"):
            key = json.loads(name[2:])
            if all(item.get(k) == v for k, v in key.items()):
                yield key | chosen(item, inner)


def _merge(into: Manifest, other: Manifest) -> None:
    for name, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = value


async def put_back(stage: Stage, recorded: list[Manifest]) -> None:
    """Put what was recorded into the namespace of `stage`, as the operator of then did."""
    text = json.dumps(recorded).replace("NAMESPACE", stage.namespace)
    detector = next(m for m in json.loads(text) if m["kind"] == kinds.DETECTOR.name)
    status = detector.pop("status")
    made = await stage.kube.create(detector)
    wrote = stage.kube.acting_as(MANAGER)
    for manifest in json.loads(text.replace("UID", made["metadata"]["uid"])):
        if manifest["kind"] != kinds.DETECTOR.name:
            await wrote.apply(manifest)
    status["observedGeneration"] = made["metadata"]["generation"]
    await Kube(stage.kube.client, STATUS_MANAGER).merge(
        kinds.DETECTOR, stage.namespace, NAME, {"status": status}, "status"
    )


async def _record_all(theatre: Theatre) -> dict[str, list[Manifest]]:
    found = {}
    for name, spec in SPECS.items():
        async with theatre.stage() as stage:
            await stage.create(**spec)
            await stage.settled()
            await stage.rest(2)
            found[name] = await record(stage)
    return found


def main(file: str) -> None:
    """Write the recording to `file`."""
    folder = Path(tempfile.mkdtemp())
    with (
        control_plane(assets.directory(), controllers=False) as plane,
        Theatre(plane, folder) as theatre,
    ):
        found = theatre.play(_record_all(theatre)).result()
    Path(file).write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
