"""Faults 13 to 16: others write to what is ours, or have what we want."""

import asyncio
import time
from typing import Any

import pytest

from controlplane.kube import eventually
from faults.oracles import updated
from faults.size import AT_REST_S, CONVERGE_S, sized
from faults.stage import NAME, Stage
from faults.theatre import Theatre
from faults.traces import CREATE, STEADY, STEADY_CANARY
from yolofleet.api import names
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds
from yolofleet.runtime.kind import Kind

ABSENT = (
    kinds.HPA,
    kinds.HTTP_ROUTE,
    kinds.POD_MONITOR,
    kinds.SCALED_OBJECT,
    kinds.CLAIM_TEMPLATE,
    kinds.RAY_SERVICE,
    kinds.CONFIG_MAP,
)
"""What the detectors of these traces have none of."""
MADE = [kind for kind in kinds.CHILDREN if kind not in ABSENT]
CONTESTED_S = sized(6, 30)


def stolen(share: int) -> Manifest:
    return {
        "spec": {"http": [{"route": [{"destination": {"host": f"thief-{share}"}, "weight": 100}]}]}
    }


SPOILING: dict[Kind, Any] = {
    kinds.VIRTUAL_SERVICE: stolen,
    kinds.DESTINATION_RULE: lambda turn: {"spec": {"host": f"thief-{turn}"}},
    kinds.SERVICE: lambda turn: {"spec": {"selector": {"thief": str(turn)}}},
    kinds.DEPLOYMENT: lambda turn: {"spec": {"minReadySeconds": turn % 5 + 1}},
    kinds.NETWORK_POLICY: lambda turn: {
        "spec": {"podSelector": {"matchLabels": {"thief": str(turn)}}}
    },
    kinds.SERVICE_ACCOUNT: lambda turn: {"automountServiceAccountToken": turn % 2 == 0},
    kinds.PDB: lambda turn: {"spec": {"maxUnavailable": turn % 5 + 2}},
}
"""How somebody takes a field of ours; what a record of a revision holds nobody can change."""


@pytest.mark.nightly
@pytest.mark.parametrize("kind", sized([kinds.VIRTUAL_SERVICE], list(SPOILING)), ids=str)
async def test_13_a_writer_who_never_gives_in_does_not_make_us_write_as_fast(
    theatre: Theatre, kind: Kind
) -> None:
    """Ten times a second somebody takes a field of ours; we answer at most once a second."""
    async with theatre.broken("13 conflicting writer", STEADY, retries=999, safe=False) as stage:
        name = next(n for k, n in await stage.children() if k == kind.name)
        began, turn = time.monotonic(), 0
        ours = 0
        while time.monotonic() < began + (CONTESTED_S if ours else CONVERGE_S):
            turn += 1
            await stage.kube.merge(kind, stage.namespace, name, SPOILING[kind](turn))
            await asyncio.sleep(0.1)
            ours = updated(stage.proxy.writes)[f"{kind.plural}/{name}"]
        took = time.monotonic() - began
        await stage.rest(2)  # that the fight is over is told, too
        assert ours >= 1, "it never answered"
        assert ours <= took + 2, f"{ours} writes in {took:.0f} s"


@pytest.mark.nightly
async def test_14_what_others_add_to_the_pods_is_removed(theatre: Theatre) -> None:
    async with theatre.broken(
        "14 sidecar and hostNetwork", STEADY, counts=False, safe=False
    ) as stage:
        name = next(n for k, n in await stage.children() if k == "Deployment")
        sidecar = {"name": "miner", "image": "miner:1"}
        deployment = await stage.kube.get(kinds.DEPLOYMENT, stage.namespace, name)
        pods = deployment["spec"]["template"]["spec"]
        added = {"containers": [*pods["containers"], sidecar], "hostNetwork": True}
        await stage.kube.merge(
            kinds.DEPLOYMENT, stage.namespace, name, {"spec": {"template": {"spec": added}}}
        )
        await eventually(lambda: _without(stage, name, "miner"))


async def _without(stage: Stage, name: str, container: str) -> bool:
    deployment = await stage.kube.get(kinds.DEPLOYMENT, stage.namespace, name)
    return container not in str(deployment["spec"])


@pytest.mark.nightly
async def test_14_a_foreign_route_is_removed(theatre: Theatre) -> None:
    async with theatre.broken("14 extra route", STEADY_CANARY, safe=False) as stage:
        route = await stage.kube.get(kinds.VIRTUAL_SERVICE, stage.namespace, NAME)
        extra = {"match": [{"uri": {"exact": "/"}}], **stolen(1)["spec"]["http"][0]}
        patch = {"spec": {"http": [extra, *route["spec"]["http"]]}}
        await stage.kube.merge(kinds.VIRTUAL_SERVICE, stage.namespace, NAME, patch)


@pytest.mark.nightly
async def test_14_a_label_of_somebody_is_left_alone(theatre: Theatre) -> None:
    async with theatre.broken("14 foreign label", STEADY, retries=0) as stage:
        for label in ({"team": "vision"}, {"team": None}):
            patch = {"metadata": {"labels": label}}
            await stage.kube.merge(kinds.SERVICE, stage.namespace, NAME, patch)
            assert not await stage.written_within(1)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", sized([kinds.DEPLOYMENT], MADE), ids=str)
async def test_14_a_child_without_the_label_it_is_watched_by_is_put_right(
    theatre: Theatre, kind: Kind
) -> None:
    """To a watch by label it is deleted, and made anew when the label is back. No traffic moves."""
    async with theatre.broken("14 label of ours removed", STEADY_CANARY) as stage:
        stable = (await stage.detector())["status"]["stable"]["revision"]
        ours = [n for k, n in await stage.children() if k == kind.name]
        name = stable if stable in ours else NAME
        patch = {"metadata": {"labels": {names.MANAGED_BY_LABEL: None}}}
        await stage.kube.merge(kind, stage.namespace, name, patch)
        await eventually(lambda: _is_labelled(stage, kind, name))
        await stage.rest(AT_REST_S)
        written = {str(call) for call in stage.proxy.writes if call.kind != "events"}
        allowed = {f"patch {kind.plural}/{name}", f"patch yolodetectors/{NAME}/status"}
        assert written <= allowed, written


async def _is_labelled(stage: Stage, kind: Kind, name: str) -> bool:
    child = await stage.kube.get(kind, stage.namespace, name)
    return bool(child["metadata"]["labels"].get(names.MANAGED_BY_LABEL) == names.MANAGED_BY)


@pytest.mark.nightly
@pytest.mark.parametrize(
    "kinds_gone",
    [[kind] for kind in sized([kinds.DEPLOYMENT], MADE)] + [MADE],
    ids=lambda gone: gone[0].name if len(gone) == 1 else "all",
)
async def test_15_children_that_are_deleted_come_back(
    theatre: Theatre, kinds_gone: list[Kind]
) -> None:
    label = "15 all children deleted" if len(kinds_gone) > 1 else "15 child deleted"
    async with theatre.broken(label, STEADY_CANARY, counts=False, safe=False) as stage:
        for name, child in list(_named(await stage.children(), kinds_gone).items()):
            await stage.kube.delete(name[0], stage.namespace, child["metadata"]["name"])


@pytest.mark.nightly
@pytest.mark.parametrize("kind", sized([kinds.DEPLOYMENT], MADE), ids=str)
async def test_15_a_child_that_cannot_go_is_waited_for(theatre: Theatre, kind: Kind) -> None:
    async with theatre.broken("15 terminating child", STEADY, counts=False, safe=False) as stage:
        name = next(n for k, n in await stage.children() if k == kind.name)
        held = {"metadata": {"finalizers": ["example.com/hold"]}}
        await stage.kube.merge(kind, stage.namespace, name, held)
        await stage.kube.delete(kind, stage.namespace, name)
        await asyncio.sleep(1)
        late = [w for w in await stage.written_within(2) if f"{kind.plural}/{name}" in w]
        assert not late, late
        await stage.kube.merge(kind, stage.namespace, name, {"metadata": {"finalizers": None}})


def _named(children: dict[tuple[str, str], Manifest], chosen: list[Kind]) -> dict[Any, Manifest]:
    by_name = {kind.name: kind for kind in chosen}
    return {(by_name[k], n): child for (k, n), child in children.items() if k in by_name}


FOREIGN: dict[Kind, Manifest] = {
    kinds.SERVICE: {"ports": [{"port": 1, "protocol": "TCP"}], "selector": {"app": "mine"}},
    kinds.VIRTUAL_SERVICE: {"hosts": ["mine.example.com"], "http": []},
    kinds.PDB: {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "mine"}}},
}


@pytest.mark.nightly
@pytest.mark.parametrize("owned", [False, True], ids=["nobody", "another"])
@pytest.mark.parametrize("kind", sized([kinds.VIRTUAL_SERVICE], list(FOREIGN)), ids=str)
async def test_16_an_object_of_the_wanted_name_is_not_touched(
    theatre: Theatre, kind: Kind, owned: bool
) -> None:
    """It is told, once; when the other goes, the detector is finished."""
    async with theatre.broken("16 adoption conflict", CREATE, counts=False, safe=False) as stage:
        foreign: Manifest = {
            "apiVersion": kind.api_version,
            "kind": kind.name,
            "metadata": {"name": NAME, "namespace": stage.namespace},
            "spec": FOREIGN[kind],
        }
        if owned:
            foreign["metadata"]["ownerReferences"] = [await _another(stage)]
        before = await stage.kube.create(foreign)
        await CREATE.step(stage)
        told = await stage.says("Progressing", "ResourceConflict")
        assert f"{kind.name} {NAME} already exists" in told
        assert "delete" not in told
        await stage.rest(2)  # its pods become ready meanwhile, and that is told
        after = await stage.kube.get(kind, stage.namespace, NAME)
        assert _as_made(after) == _as_made(before)
        await stage.kube.delete(kind, stage.namespace, NAME)


def _as_made(manifest: Manifest) -> Manifest:
    """Return it without the status, which Kubernetes writes of a PodDisruptionBudget."""
    metadata = {k: v for k, v in manifest["metadata"].items() if k != "resourceVersion"}
    metadata["managedFields"] = [
        entry for entry in metadata["managedFields"] if entry.get("subresource") != "status"
    ]
    return {**manifest, "metadata": metadata, "status": None}


async def _another(stage: Stage) -> Manifest:
    """Make another detector, suspended, and return a reference to it as the controller."""
    other = stage.manifest(model={"uri": "demo://other"}, suspend=True)
    other["metadata"]["name"] = "other"
    made = await stage.kube.create(other)
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": "other",
        "uid": made["metadata"]["uid"],
        "controller": True,
    }
