"""KEDA, played: it makes an autoscaler of each ScaledObject, or takes one over, and lets go of it.

As `controllers/keda` of 2.18 does: the autoscaler is replaced whole, labels, annotations and owner
included, and belongs to the ScaledObject, which has a finalizer of KEDA's own.
"""

from __future__ import annotations

from typing import Final

from memory_cluster.server import Server, a_copy
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds
from yolofleet.runtime.client import Request
from yolofleet.runtime.kind import Kind

FINALIZER: Final = "finalizer.keda.sh"
_MANAGER: Final = "keda-operator"
_LABEL: Final = "scaledobject.keda.sh/name"


def keda(server: Server) -> None:
    """Do once what KEDA has to do for each ScaledObject."""
    for scaled in server.all(kinds.SCALED_OBJECT):
        metadata = scaled["metadata"]
        if "deletionTimestamp" in metadata:
            _put(server, kinds.SCALED_OBJECT, _with(scaled, finalizers=[]))
            continue
        labels = metadata["labels"] | {_LABEL: metadata["name"]}
        taken = _with(scaled, finalizers=[FINALIZER], labels=labels)
        advanced = {"scalingModifiers": {}} | scaled["spec"][
            "advanced"
        ]  # as its Go type is written
        taken["spec"] = scaled["spec"] | {"advanced": advanced}
        _put(server, kinds.SCALED_OBJECT, taken)
        _tell(server, metadata["namespace"], metadata["name"])
        _autoscale(server, scaled)


def _autoscale(server: Server, scaled: Manifest) -> None:
    metadata, spec = scaled["metadata"], scaled["spec"]
    config = spec["advanced"]["horizontalPodAutoscalerConfig"]
    owner = {name: scaled[name] for name in ("apiVersion", "kind")}
    owner |= {name: metadata[name] for name in ("name", "uid")}
    external = {
        "metric": {"name": f"s0-{spec['triggers'][0]['type']}"},
        "target": {"type": "AverageValue", "averageValue": "1"},
    }
    made: Manifest = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {
            "name": config["name"],
            "namespace": metadata["namespace"],
            "labels": metadata["labels"],
            "annotations": metadata["annotations"],
            "ownerReferences": [owner | {"controller": True, "blockOwnerDeletion": True}],
        },
        "spec": {
            "scaleTargetRef": spec["scaleTargetRef"],
            "minReplicas": spec["minReplicaCount"],
            "maxReplicas": spec["maxReplicaCount"],
            "metrics": [{"type": "External", "external": external}],
            "behavior": config["behavior"],
        },
    }
    if server.find(kinds.HPA, metadata["namespace"], config["name"]):
        _put(server, kinds.HPA, made)
    else:
        _send(server, Request("POST", kinds.HPA.path(metadata["namespace"]), _AS, made))


_AS: Final = {"fieldManager": _MANAGER}


def _tell(server: Server, namespace: str, name: str) -> None:
    ready = {"type": "Ready", "status": "True", "reason": "ScaledObjectReady"}
    path = kinds.SCALED_OBJECT.path(namespace, name, "status")
    live = server.find(kinds.SCALED_OBJECT, namespace, name)
    assert live
    _send(server, Request("PUT", path, _AS, live | {"status": {"conditions": [ready]}}))


def _with(scaled: Manifest, **metadata: object) -> Manifest:
    return scaled | {"metadata": scaled["metadata"] | metadata}


def _put(server: Server, kind: Kind, manifest: Manifest) -> None:
    metadata = manifest["metadata"]
    path = kind.path(metadata["namespace"], metadata["name"])
    _send(server, Request("PUT", path, _AS, a_copy(manifest)))


def _send(server: Server, request: Request) -> None:
    answer = server.answer(request)
    assert answer.code < 300, answer.body
