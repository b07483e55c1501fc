"""`kubectl yd` as people run it: with the real kubectl, against a real API server."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import assets
from controlplane.kube import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, Kube
from controlplane.plane import ControlPlane
from yolofleet.api.names import API_VERSION, KIND, Manifest
from yolofleet.cluster import kinds

OPERATOR = Path(__file__).parents[2] / "operator"
Yd = Callable[..., Any]
V2 = {"uri": "demo://shapes-v2"}
HOSTS = {"hosts": ["gate.example.com"], "gateways": ["istio-system/public"]}
APPROVAL = {"strategy": "Canary", "steps": [{"weight": 50, "hold": "Approval"}]}


class Said:
    """What one run printed."""

    def __init__(self, done: "subprocess.CompletedProcess[str]") -> None:
        self.status, self.out, self.err = done.returncode, done.stdout, done.stderr

    def ok(self) -> str:
        assert self.status == 0, self.err
        assert not self.err
        return self.out

    def no(self) -> str:
        assert self.status == 1, self.out
        assert "Traceback" not in self.err
        return self.err


@pytest.fixture
def environment(plane: ControlPlane, tmp_path: Path) -> dict[str, str]:
    kubectl = str(assets.directory() / "kubectl")
    known = {"KUBECONFIG": str(plane.kubeconfig()), "KUBECTL": kubectl, "HOME": str(tmp_path)}
    return os.environ | known | {"PYTHONPATH": str(OPERATOR), "PYTHONUTF8": "1"}


@pytest.fixture
def yd(environment: dict[str, str], namespace: str) -> Yd:
    """`await yd("get", "gate")` runs it in the test's namespace; keywords are variables."""

    async def run(*arguments: str, **variables: str) -> Said:
        return Said(
            await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-m", "yolofleet.cli", *arguments, "-n", namespace],
                env=environment | variables,
                capture_output=True,
                text=True,
            )
        )

    return run


@pytest.fixture
async def onlooker(kube: Kube, namespace: str) -> AsyncIterator[str]:
    """Somebody who may see detectors, and nothing else."""
    rule = {"apiGroups": ["yolofleet.io"], "resources": ["yolodetectors"], "verbs": ["get", "list"]}
    name, api = f"onlooker-{namespace}", CLUSTER_ROLE.group
    for kind, content in (
        (CLUSTER_ROLE, {"rules": [rule]}),
        (
            CLUSTER_ROLE_BINDING,
            {
                "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": name},
                "subjects": [{"apiGroup": api, "kind": "User", "name": name}],
            },
        ),
    ):
        head = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {"name": name}}
        await kube.create(head | content)
    yield name
    for kind in (CLUSTER_ROLE_BINDING, CLUSTER_ROLE):
        await kube.delete(kind, "", name)


async def spec_of(kube: Kube, namespace: str) -> Manifest:
    spec: Manifest = (await kube.get(kinds.DETECTOR, namespace, "gate"))["spec"]
    return spec


async def test_a_release_from_its_approval_to_its_roll_back(
    istio: None,
    operator: Any,
    fake_kubelet: Any,
    make_detector: Any,
    kube: Kube,
    namespace: str,
    eventually: Any,
    yd: Yd,
) -> None:
    async def shown(*words: str) -> str:
        out = (await yd("get", "gate")).ok()
        assert all(word in out for word in words), out
        return out

    await make_detector(traffic=HOSTS, rollout=APPROVAL)
    first = (await eventually(lambda: shown("Released", " yes "))).split("└─ ")[1].split()[0]
    await kube.merge(kinds.DETECTOR, namespace, "gate", {"spec": {"model": V2}})
    await eventually(lambda: shown("AwaitingApproval", "Target", "step 1 of 1", "50 %"))
    assert "kubectl yd approve gate" in (await yd("explain", "gate")).ok()
    typed = (await yd("approve", "gate")).ok().splitlines()[0]
    assert typed.startswith(f"kubectl patch yd gate -n {namespace} --type merge -p '")
    sent = json.loads(typed.split("'")[1])["spec"]["rollout"]["approved"]
    said = (await spec_of(kube, namespace))["rollout"]["approved"]
    assert sent == {**said, "despite": None, "failed": None}
    await eventually(lambda: shown("Released", "demo://shapes-v2"))
    unknown = (await yd("rollback", "gate", "gate-00000000")).no()
    assert f"there are, oldest first: {first}, gate-" in unknown
    (await yd("rollback", "gate", first)).ok()
    assert (await spec_of(kube, namespace))["model"]["uri"] == "demo://shapes"

    async def back() -> bool:
        status = (await kube.get(kinds.DETECTOR, namespace, "gate"))["status"]
        return bool(status["stable"]["revision"] == first)

    await eventually(back)
    assert "asks for" in (await yd("rollback", "gate", first)).no()
    assert "nothing to approve" in (await yd("approve", "gate")).no()


async def test_a_dry_run_has_the_api_server_try_it_and_changes_nothing(
    make_detector: Any, kube: Kube, namespace: str, yd: Yd
) -> None:
    await make_detector(canary={"model": V2, "weight": 5})
    before = await kube.get(kinds.DETECTOR, namespace, "gate")
    assert "Nothing was changed." in (await yd("promote", "gate", "--dry-run")).ok()
    assert await kube.get(kinds.DETECTOR, namespace, "gate") == before
    assert "Done: promotes the canary" in (await yd("promote", "gate")).ok()
    after = await spec_of(kube, namespace)
    assert (after["model"]["uri"], "canary" in after) == (V2["uri"], False)


async def test_what_the_api_server_refuses_is_told_in_its_words(
    make_detector: Any, kube: Kube, namespace: str, yd: Yd
) -> None:
    resources = {"requests": {"cpu": "1"}}
    await make_detector(autoscaling={"maxReplicas": 3}, resources=resources)
    canary = {"model": V2, "resources": {"limits": {"memory": "1Gi"}}}
    await kube.merge(kinds.DETECTOR, namespace, "gate", {"spec": {"canary": canary}})
    for flags in ([], ["--dry-run"]):
        assert "set spec.resources.requests.cpu" in (await yd("promote", "gate", *flags)).no()


async def test_what_changed_since_it_was_read_is_not_overwritten(
    make_detector: Any,
    kube: Kube,
    namespace: str,
    yd: Yd,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    await make_detector(canary={"model": V2})
    real, racing = environment["KUBECTL"], tmp_path / "kubectl"
    racing.write_text(  # somebody is faster by one edit
        f'#!/bin/sh\n[ "$1" = patch ] && {real} scale yolodetectors.yolofleet.io gate'
        f' -n {namespace} --replicas=3 >/dev/null\nexec {real} "$@"\n'
    )
    racing.chmod(0o755)
    told = (await yd("promote", "gate", KUBECTL=str(racing))).no()
    assert "nothing was overwritten: look at it, and type the command again" in told
    assert "canary" in await spec_of(kube, namespace)


async def test_where_a_gitops_tool_owns_the_field_the_yaml_to_commit_is_printed(
    kube: Kube, namespace: str, yd: Yd
) -> None:
    spec = {"model": {"uri": "demo://shapes"}, "canary": {"model": V2}}
    await kube.acting_as("argocd-controller").apply(
        {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": "gate", "namespace": namespace},
            "spec": spec,
        }
    )
    said = await yd("promote", "gate")
    assert "spec.model.uri is set by argocd-controller (Argo CD)" in said.no()
    committed = yaml.safe_load(said.out)
    assert (committed["kind"], committed["spec"]) == (KIND, {"model": V2})
    assert "# remove spec.canary\n" in said.out
    assert "canary" in await spec_of(kube, namespace)
    (await yd("pause", "gate")).ok()  # Git says nothing of it
    (await yd("promote", "gate", "--force")).ok()
    assert "canary" not in await spec_of(kube, namespace)


async def test_who_may_not_and_what_is_not_there_is_told_with_the_fix(
    make_detector: Any, onlooker: str, yd: Yd
) -> None:
    assert "There is no detector here" in (await yd("get")).err
    await make_detector()
    for command in (["get", "other"], ["explain", "other"], ["pause", "other"]):
        assert "kubectl yd get -A lists all" in (await yd(*command)).no(), command
    assert "`edit` changes" in (await yd("pause", "gate", "--as", onlooker)).no()
    seen = await yd("get", "gate", "--as", onlooker)
    assert seen.status == 0
    assert "not seen by the operator yet" in seen.out
    assert "Pods are not shown" in seen.err
    assert "`view` sees detectors" in (await yd("get", "--as", "nobody")).no()
    with socket.socket() as nobody:  # the port is taken, and nobody listens
        nobody.bind(("127.0.0.1", 0))
        server = f"https://127.0.0.1:{nobody.getsockname()[1]}"
        assert "cannot be reached" in (await yd("get", "--server", server)).no()
    assert "does not exist" in (await yd("get", "--context", "other")).no()
    assert "install kubectl" in (await yd("get", KUBECTL="/none/kubectl")).no()


async def test_a_watch_shows_each_change(
    make_detector: Any, kube: Kube, namespace: str, environment: dict[str, str], yd: Yd
) -> None:
    await make_detector()
    watch = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "yolofleet.cli", "get", "-w", "-n", namespace),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    assert watch.stdout is not None

    async def until(words: bytes) -> None:
        assert watch.stdout is not None
        while words not in await watch.stdout.readline():
            assert not watch.stdout.at_eof()

    try:
        await until(b"not seen by the operator yet")
        told = {"type": "Ready", "status": "False", "reason": "Odd", "message": "m"}
        condition = told | {"lastTransitionTime": "2030-01-01T00:00:00Z"}
        status = {"status": {"conditions": [condition]}}
        await kube.merge(kinds.DETECTOR, namespace, "gate", status, "status")
        await until(b"Odd")
    finally:
        watch.terminate()
        await watch.wait()
