"""Faults 18 and 20: the cluster says no, for a while or for good, or a kind is not there."""

import asyncio
import uuid
from functools import partial
from typing import Any

import pytest

from controlplane.installation import ISTIO_CRDS, RIGHTS, ROLE, grant
from controlplane.kube import (
    CLUSTER_ROLE,
    CONFIG_MAP,
    LIMIT_RANGE,
    NAMESPACE,
    POLICY,
    POLICY_BINDING,
    REPLICA_SET,
    RESOURCE_QUOTA,
    connect,
    eventually,
)
from controlplane.plane import OTHER, OTHER_USER
from faults.size import AT_REST_S
from faults.stage import NAME, Stage
from faults.theatre import Theatre
from faults.traces import CREATE, DELETE, STEADY, UPDATE
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds
from yolofleet.runtime.client import APPLY, Request
from yolofleet.runtime.errors import Refused
from yolofleet.runtime.kind import CRD, Kind, kind_of

POD = {"containers": [{"name": "a", "image": "a", "resources": {"requests": {"cpu": "1"}}}]}


def an_object(kind: Kind, name: str, namespace: str = "", **fields: Any) -> Manifest:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, **fields}


async def refused_quietly(stage: Stage) -> None:
    """A refusal is terminal: it is told, and not tried again at once.

    Pods that become ready meanwhile make it look, and try, again.
    """

    async def all_ready() -> bool:
        for deployment in await stage.kube.list(kinds.DEPLOYMENT, stage.namespace):
            ready = deployment.get("status", {}).get("availableReplicas", 0)
            assert ready == deployment["spec"]["replicas"]
        return True

    await eventually(all_ready)
    await stage.rest(AT_REST_S)
    assert not await stage.written_within(3), "tries again at once what a person has to cure"


async def test_18_a_quota_that_is_used_up(theatre: Theatre) -> None:
    async with theatre.broken("18 quota", CREATE, retries=1) as stage:
        hard = {"count/deployments.apps": "0"}
        quota = an_object(RESOURCE_QUOTA, "tight", stage.namespace, spec={"hard": hard})
        await stage.kube.create(quota)
        status = {"status": {"hard": hard, "used": {"count/deployments.apps": "0"}}}
        await stage.kube.merge(RESOURCE_QUOTA, stage.namespace, "tight", status, "status")
        await eventually(partial(_denied, stage, a_deployment()))
        await CREATE.step(stage)
        told = await stage.says("Progressing", "WriteRefused")
        assert "exceeded quota" in told
        await refused_quietly(stage)
        await stage.kube.delete(RESOURCE_QUOTA, stage.namespace, "tight")


@pytest.mark.nightly
async def test_18_an_admission_policy_that_says_no(theatre: Theatre) -> None:
    async with theatre.broken("18 admission policy", CREATE, retries=1) as stage:
        name, namespace = f"no-{stage.namespace}", stage.namespace
        here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
        what = {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}
        rules = {"resourceRules": [{**what, "operations": ["CREATE", "UPDATE"]}]}
        spec = {
            "matchConstraints": rules,
            "validations": [{"expression": "false", "message": "not on a Sunday"}],
        }
        bound = {"policyName": name, "validationActions": ["Deny"], "matchResources": here}
        await stage.kube.create(an_object(POLICY, name, spec=spec))
        await stage.kube.create(an_object(POLICY_BINDING, name, spec=bound))
        try:
            await eventually(partial(_denied, stage, a_deployment()))
            await CREATE.step(stage)
            told = await stage.says("Progressing", "WriteRefused")
            assert "not on a Sunday" in told
            await refused_quietly(stage)
        finally:
            await stage.kube.delete(POLICY_BINDING, "", name)
            await stage.kube.delete(POLICY, "", name)


def a_deployment() -> Manifest:
    labels = {"app": "probe"}
    pods = {"metadata": {"labels": labels}, "spec": POD}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": pods}
    return an_object(kinds.DEPLOYMENT, "probe", spec=spec)


async def _denied(stage: Stage, probe: Manifest) -> bool:
    """Return whether the API server refuses `probe` here by now."""
    path = kind_of(probe).path(stage.namespace)
    try:
        await stage.kube.client.send(Request("POST", path, {"dryRun": "All"}, probe))
    except Refused:
        return True
    return False


@pytest.mark.nightly
async def test_18_pods_that_a_limit_range_refuses(theatre: Theatre) -> None:
    """No write of ours is refused, only the pods: the Deployment knows, and status must say it."""
    async with theatre.broken("18 LimitRange", CREATE, retries=1, counts=False) as stage:
        limits = [{"type": "Container", "min": {"cpu": "64"}}]
        limit = an_object(LIMIT_RANGE, "vast", stage.namespace, spec={"limits": limits})
        await stage.kube.create(limit)
        await eventually(partial(_denied, stage, an_object(kinds.POD, "probe", spec=POD)))
        await CREATE.step(stage)
        told = await stage.says("Progressing", "PodsRefused")
        assert "cpu" in told
        await stage.kube.delete(LIMIT_RANGE, stage.namespace, "vast")
        await nudge(stage)


async def nudge(stage: Stage) -> None:
    """Have the controller of ReplicaSets look again at what it would try only in minutes."""
    for deployment in await stage.kube.list(kinds.DEPLOYMENT, stage.namespace):
        name = deployment["metadata"]["name"]
        patch = {"metadata": {"annotations": {"nudge": "1"}}}
        await stage.kube.merge(kinds.DEPLOYMENT, stage.namespace, name, patch)
        await eventually(partial(_passed_on, stage))
        patch = {"metadata": {"annotations": {"nudge": None}}}
        await stage.kube.merge(kinds.DEPLOYMENT, stage.namespace, name, patch)


async def _passed_on(stage: Stage) -> bool:
    sets = await stage.kube.list(REPLICA_SET, stage.namespace)
    return any("nudge" in one["metadata"].get("annotations", {}) for one in sets)


async def test_18_a_namespace_that_is_going(theatre: Theatre) -> None:
    """Its contents are deleted while it cannot go: nothing may be made in it, nor hotly tried."""
    nothing: dict[str, Any] = {"judged": await theatre.reference(DELETE), "bystander": False}
    nothing |= {"counts": False, "safe": False}
    lease = {"NAMESPACE": "default", "NAME": f"lease-{uuid.uuid4().hex[:8]}"}  # which stays
    nothing["environment"] = {f"YOLOFLEET_LEASE_{name}": value for name, value in lease.items()}
    async with theatre.broken("18 namespace terminating", STEADY, **nothing) as stage:
        held = an_object(CONFIG_MAP, "held", stage.namespace)
        held["metadata"]["finalizers"] = ["example.com/hold"]
        await stage.kube.create(held)
        await stage.kube.delete(NAMESPACE, "", stage.namespace)
        await eventually(lambda: _gone(stage))
        assert len(stage.proxy.writes) < 60, len(stage.proxy.writes)
        free = {"metadata": {"finalizers": None}}
        await stage.kube.merge(CONFIG_MAP, stage.namespace, "held", free)


async def _gone(stage: Stage) -> bool:
    return await stage.kube.find(kinds.DETECTOR, stage.namespace, NAME) is None


async def test_20_a_right_that_is_taken_away_and_given_back(theatre: Theatre) -> None:
    """The operator is a user of its own, whose rights are nobody else's."""
    without = [
        rule | {"verbs": ["get", "list", "watch"]} if "services" in rule["resources"] else rule
        for rule in RIGHTS
    ]
    await grant(theatre.kube, OTHER_USER, OTHER_USER)
    user = {"token": OTHER}
    async with theatre.broken("20 RBAC verb revoked", UPDATE, retries=2, environment=user) as stage:
        await theatre.kube.merge(CLUSTER_ROLE, "", OTHER_USER, {"rules": without})
        await eventually(lambda: _service_denied(stage))
        await UPDATE.step(stage)
        told = await stage.says("Progressing", "WriteRefused")
        assert "services" in told
        await refused_quietly(stage)
        await theatre.kube.merge(CLUSTER_ROLE, "", OTHER_USER, {"rules": RIGHTS})


async def _service_denied(stage: Stage) -> bool:
    """Return whether the API server refuses the operator a Service by now."""
    spec = {"ports": [{"port": 80, "protocol": "TCP"}]}
    probe = an_object(kinds.SERVICE, "probe", stage.namespace, spec=spec)
    path = kinds.SERVICE.path(stage.namespace, "probe")
    query = {"dryRun": "All", "fieldManager": "yolofleet"}
    async with connect(stage.plane.kubeconfig(OTHER)) as operator:
        try:
            await operator.send(Request("PATCH", path, query, probe, APPLY))
        except Refused:
            return True
    return False


@pytest.mark.nightly
@pytest.mark.alone
async def test_20_the_right_to_watch_is_taken_away_and_given_back(theatre: Theatre) -> None:
    role = await theatre.kube.get(CLUSTER_ROLE, "", ROLE)
    without = [rule for rule in role["rules"] if "yolodetectors" not in rule["resources"]]
    async with theatre.broken("20 watch revoked", UPDATE, retries=2) as stage:
        await asyncio.sleep(1)
        await theatre.kube.merge(CLUSTER_ROLE, "", ROLE, {"rules": without})
        try:
            await asyncio.sleep(1)
            stage.proxy.cut("yolodetectors")
            await UPDATE.step(stage)
            await asyncio.sleep(4)
        finally:
            await theatre.kube.merge(CLUSTER_ROLE, "", ROLE, {"rules": role["rules"]})


async def _remove_istio(theatre: Theatre) -> None:
    istio = (kinds.VIRTUAL_SERVICE, kinds.DESTINATION_RULE)
    for kind in istio:
        await theatre.kube.delete(CRD, "", f"{kind.plural}.{kind.group}")

    async def gone() -> bool:
        return not [kind for kind in istio if await theatre.client.serves(kind)]

    await eventually(gone)


@pytest.mark.nightly
@pytest.mark.alone
async def test_20_a_kind_that_is_absent_and_then_appears(theatre: Theatre) -> None:
    # What the router decides is written up to three times: before the operator hears that the kind
    # is gone, without it, and with it.
    async with theatre.broken("20 CRD absent, appears", CREATE, retries=2) as stage:
        await _remove_istio(theatre)
        try:
            await CREATE.step(stage)
            await stage.says("TrafficRouted", "MeshAbsent")
        finally:
            await theatre.kube.install(ISTIO_CRDS)


@pytest.mark.nightly
@pytest.mark.alone
async def test_20_a_kind_that_vanishes_and_comes_back(theatre: Theatre) -> None:
    async with theatre.broken(
        "20 CRD vanishes, comes back", STEADY, counts=False, safe=False
    ) as stage:
        await _remove_istio(theatre)
        try:
            await stage.says("TrafficRouted", "MeshAbsent")
        finally:
            await theatre.kube.install(ISTIO_CRDS)
