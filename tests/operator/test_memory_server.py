"""The API server in memory answers as a real one does: the same requests to both, told apart."""

import itertools
import json
import re
from collections.abc import Callable
from typing import Any

from controlplane.kube import MERGE
from faults.oracles import differences
from faults.traces import SPEC, B
from faults.written import chosen
from memory_cluster.fields import paths_of
from memory_cluster.operator import MemoryClient
from memory_cluster.server import Server
from memory_cluster.world import World, detector
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds
from yolofleet.runtime import client as requests
from yolofleet.runtime.client import Client, Request
from yolofleet.runtime.errors import ClusterError
from yolofleet.runtime.kind import kind_of

ELSEWHERE = ("kube-controller-manager", "kubectl-create")
"""Whose fields are not compared: one is not there in memory, one owns what is defaulted."""
WATCHED = ("Deployment", "PodDisruptionBudget")
"""Controllers write their status at any moment: their versions tell nothing."""
NOBODY = "0c1b7f6e-0000-4000-8000-000000000000"
OTHERS = {
    "Deployment": {"spec": {"minReadySeconds": 7}},
    "ControllerRevision": {"data": {"record": "another"}},
    "Service": {"spec": {"internalTrafficPolicy": "Local"}},
    "VirtualService": {"spec": {"hosts": ["other.example.com"]}},
    "DestinationRule": {"spec": {"host": "other.example.com"}},
    "NetworkPolicy": {"spec": {"policyTypes": ["Egress"]}},
    "ServiceAccount": {"automountServiceAccountToken": True},
    "PodDisruptionBudget": {"spec": {"maxUnavailable": 3}},
    "ConfigMap": {"data": {"live.json": "{}"}},
}
"""What somebody else sets on each: a field of ours where there is one to be had."""


class Played:
    """Sends requests as the operator and others do; notes what came of each, in words alike."""

    def __init__(self, client: Client, namespace: str) -> None:
        self.client = client
        self.namespace = namespace
        self.told: list[tuple[str, Any]] = []
        self._versions: dict[str, tuple[str, int]] = {}

    async def send(self, what: str, request: Request) -> Manifest:
        """Send `request`, note the answer, and return it; empty if it was refused."""
        try:
            answer = await self.client.send(request)
        except ClusterError as error:
            self.told.append((what, self._plain(f"{type(error).__name__}: {_managers(error)}")))
            return {}
        seen = {} if request.method == "DELETE" else self._seen(answer)  # some tell of the deletion
        self.told.append((what, json.loads(self._plain(json.dumps(seen)))))
        return answer

    def _seen(self, answer: Manifest) -> Manifest:
        """Return of an answer what the operator relies on: owners, their values, what counts up."""
        if answer.get("kind") == "Status" or "uid" not in answer.get("metadata", {}):
            return {}
        metadata = answer["metadata"]
        version, generation = self._versions.get(metadata["uid"], ("", 0))
        now = metadata["resourceVersion"], metadata.get("generation", 0)
        self._versions[metadata["uid"]] = now
        entries = sorted(
            (e for e in metadata.get("managedFields", ()) if e["manager"] not in ELSEWHERE),
            key=lambda e: (e["manager"], e["operation"]),
        )
        return {
            "changed": now[0] != version and answer["kind"] not in WATCHED,
            "generation": now[1] - generation,
            "owners": [_owner(entry) for entry in entries],
            "values": [chosen(answer, entry["fieldsV1"]) for entry in entries],
            "going": "deletionTimestamp" in metadata,
        }

    def _plain(self, text: str) -> str:
        text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UID", text)
        return text.replace(self.namespace, "NAMESPACE")


def _owner(entry: Manifest) -> list[Any]:
    """Return who an entry is of and of which fields; a map itself is nobody's that counts."""
    owned = {path for path in paths_of(entry["fieldsV1"]) if path}
    leaves = (p for p in owned if not any(q != p and q[: len(p)] == p for q in owned))
    who = [entry["manager"], entry["operation"], entry.get("subresource", "")]
    return [*who, sorted(map("/".join, leaves))]


def _managers(error: ClusterError) -> list[str]:
    return sorted(set(re.findall(r'conflict with "([^"]+)"', str(error))))


async def play(client: Client, namespace: str, children: list[Manifest]) -> list[tuple[str, Any]]:
    """Do to every kind of child what the operator and others do to it."""
    played = Played(client, namespace)
    raw = detector(**SPEC)
    raw["metadata"]["namespace"] = namespace
    made = await played.send("the detector", requests.create(raw, "kubectl-create"))
    for child in children:
        text = json.dumps(child).replace("shop", namespace)
        mine = json.loads(text.replace(NOBODY, made["metadata"]["uid"]))
        await play_child(played, mine)
    await play_status(played, made)
    return played.told


async def play_child(played: Played, child: Manifest) -> None:
    kind, name = kind_of(child), f"{child['kind']} {child['metadata']['name']}"

    def merged(patch: Manifest) -> Request:
        path = kind.path(played.namespace, child["metadata"]["name"])
        return Request("PATCH", path, {"fieldManager": "kubectl-edit"}, patch, MERGE)

    def ours(manifest: Manifest, *, force: bool = True, **metadata: Any) -> Request:
        body = manifest | {"metadata": manifest["metadata"] | metadata}
        return requests.apply(body, "yolofleet", force=force)

    await played.send(f"{name} of another uid, which is not there", ours(child, uid=NOBODY))
    live = await played.send(f"{name} made", ours(child, force=False))
    uid = live["metadata"]["uid"]
    await played.send(f"{name} again", ours(child, uid=uid))
    await played.send(f"{name} of another uid", ours(child, uid=NOBODY))
    await played.send(f"{name} of another version", ours(child, resourceVersion="1"))
    await played.send(f"{name} made twice", requests.create(child, "kubectl-create"))
    await played.send(f"{name} gets a label", merged({"metadata": {"labels": {"team": "vision"}}}))
    await played.send(f"{name} is changed by others", merged(OTHERS[child["kind"]]))
    await played.send(f"{name} gives way", ours(child, force=False))
    await played.send(f"{name} is ours again", ours(child, uid=uid))
    less = {k: v for k, v in child["metadata"]["labels"].items() if "instance" not in k}
    live = await played.send(f"{name} with a label less", ours(child, uid=uid, labels=less))
    for field in ("uid", "resourceVersion"):
        wrong = live | {"metadata": live["metadata"] | {field: "1"}}
        await played.send(f"{name} deleted by another {field}", requests.delete(wrong))
    if child["kind"] == "Deployment":
        await play_replicas(played, child)
        return  # its controller writes to it, so that no version is the last for long
    operations = [
        {"op": "replace", "path": "/metadata/resourceVersion", "value": "1"},
        {"op": "remove", "path": "/metadata/labels/team"},
    ]
    stale = requests.json_patch(live, operations, "yolofleet")
    await played.send(f"{name} patched by another version", stale)
    fresh = requests.json_patch(live, operations[1:], "yolofleet")
    live = await played.send(f"{name} patched", fresh)
    await played.send(f"{name} deleted", requests.delete(live))
    await played.send(f"{name} is gone", requests.get(kind, played.namespace, name.split()[1]))


async def play_replicas(played: Played, child: Manifest) -> None:
    """Hand the replicas over to an autoscaler and back."""
    address = {k: child[k] for k in ("apiVersion", "kind")}
    name = {k: child["metadata"][k] for k in ("name", "namespace")}
    replicas = {"spec": {"replicas": child["spec"]["replicas"]}}
    left = {k: v for k, v in child["spec"].items() if k != "replicas"}
    handed = address | {"metadata": name} | replicas
    await played.send(
        "replicas handed over", requests.apply(handed, "yolofleet-handover", force=False)
    )
    await played.send(
        "replicas let go of", requests.apply(child | {"spec": left}, "yolofleet", force=True)
    )
    other = address | {"metadata": name} | {"spec": {"replicas": 1}}
    await played.send("replicas of others", requests.apply(other, "yolofleet-handover", force=True))
    await played.send("replicas taken back", requests.apply(child, "yolofleet", force=True))
    await played.send(
        "and let go of", requests.apply(child | {"spec": left}, "yolofleet", force=True)
    )


async def play_status(played: Played, made: Manifest) -> None:
    condition = {"type": "Ready", "status": "True", "reason": "Serving", "message": "2 of 2"}
    condition |= {"lastTransitionTime": "2030-01-01T00:00:00Z"}
    status = {"observedGeneration": 1, "replicas": 2, "conditions": [condition]}
    address = {k: made[k] for k in ("apiVersion", "kind")}
    names = {k: made["metadata"][k] for k in ("name", "namespace", "uid")}

    def applied(version: str, status: Manifest) -> Request:
        body = address | {"metadata": names | {"resourceVersion": version}, "status": status}
        return requests.apply(body, "yolofleet-status", force=True, subresource="status")

    version = made["metadata"]["resourceVersion"]
    live = await played.send("status told", applied(version, status))
    await played.send("status told by an old leader", applied(version, {"replicas": 1}))
    version = live["metadata"]["resourceVersion"]
    await played.send("status told again", applied(version, status))
    path = kinds.DETECTOR.path(played.namespace, made["metadata"]["name"])
    query = {"fieldManager": "kubectl-edit"}
    edit = {"spec": {"model": B}, "status": {"replicas": 9}}
    live = await played.send("spec edited", Request("PATCH", path, query, edit, MERGE))
    version = live["metadata"]["resourceVersion"]
    less = {k: v for k, v in status.items() if k != "replicas"}
    live = await played.send("status with less", applied(version, less))
    for types in (
        ["Ready", "Stalled"],
        ["Ready", "Released", "Stalled"],
        ["Stalled", "Ready"],
        ["Ready"],
    ):
        told = [condition | {"type": type} for type in types]
        version = live["metadata"]["resourceVersion"]
        live = await played.send(f"{types}", applied(version, less | {"conditions": told}))
    operations = [{"op": "replace", "path": "/status", "value": {"observedGeneration": 2}}]
    await played.send(
        "status replaced",
        requests.json_patch(live, operations, "yolofleet-status", subresource="status"),
    )


async def children_of_a_canary() -> list[Manifest]:
    """Return one child of each kind, as the operator applies it; the owner's uid is NOBODY's."""
    world = World()
    await world.settle()
    world.suffer()
    await world.create(**SPEC, canary={"model": B, "weight": 50, "shadow": 50})
    await world.settle(120.0)  # a shadow is renewed after five minutes
    sent = [call.request.body for call, _ in world.client.calls if call.request.method == "PATCH"]
    first = {b["kind"]: b for b in reversed(sent) if isinstance(b, dict) and "status" not in b}
    owner = (world.detector() or {})["metadata"]["uid"]
    for child in first.values():
        child["metadata"].pop("uid", None)
    text = json.dumps([first[kind] for kind in OTHERS if kind in first])
    made: list[Manifest] = json.loads(text.replace(owner, NOBODY))
    assert len(made) == len(OTHERS)
    return made


async def test_the_server_in_memory_answers_as_a_real_one(
    client: Client, namespace: str, istio: None, eventually: Callable[..., Any]
) -> None:
    await eventually(lambda: client.serves(kinds.VIRTUAL_SERVICE))
    children = await children_of_a_canary()
    server = Server(itertools.count().__next__)
    memory = await play(MemoryClient(server), namespace, children)
    real = await play(client, namespace, children)
    wrong = [
        f"{what}: {told}"
        for (what, mine), (_, its) in zip(memory, real, strict=True)
        for told in differences({"": its}, {"": mine})
    ]
    assert not wrong, "\n".join(wrong)
