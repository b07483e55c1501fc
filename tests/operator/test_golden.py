"""What a person sees with kubectl, in each situation; word for word, in golden/*.txt.

`YOLOFLEET_GOLDEN=write pytest tests/operator/test_golden.py` writes them anew. Read the difference
as a user would: does it say what is wrong, and what to do?
"""

import asyncio
import difflib
import os
import re
import subprocess
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cluster import assets
from controlplane import kubelet
from controlplane.installation import ISTIO_CRDS
from controlplane.kube import NAMESPACE, PATIENCE_S, Kube, connect, eventually
from controlplane.kubelet import FakeKubelet, Fate
from controlplane.plane import ADMIN, OPERATOR, ControlPlane
from controlplane.process import OperatorProcess
from yolofleet.api import names
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds

GOLDEN = Path(__file__).with_name("golden")
WRITE = os.environ.get("YOLOFLEET_GOLDEN") == "write"
SHOP = "shop"
AGAIN = 20
"""An Event that waits for an API server that gets no processor comes after silence, too."""

V1, V2 = {"uri": "demo://shapes"}, {"uri": "demo://shapes-v2"}
GPU = {"requests": {"cpu": "1"}, "limits": {"memory": "2Gi", "nvidia.com/gpu": 1}}


def hosts(stage: "Stage") -> dict[str, Any]:
    """Return a host of its own for each situation: a host has one detector."""
    return {"hosts": [f"{stage.name}.example.com"], "gateways": ["istio-system/public"]}


def long_ago() -> datetime:
    """Return a time since when nothing is only on its way any more."""
    return datetime.now(UTC) - timedelta(minutes=2)


MISMATCH = (
    f'{{"reason": "DigestMismatch", "message": "model https://models.example.com/gate-v7.onnx has'
    f" the digest {'9f' * 32}, but {'5d' * 32} was asked for: put the file back, or give its digest"
    ' (spec.model.sha256)"}'
)


@dataclass
class Stage:
    """The cluster while one detector is brought into its situation."""

    kube: Kube
    operator: OperatorProcess
    name: str
    fates: dict[str, Fate]  # by detector; of revisions that the kubelet has no word for

    async def make(self, **spec: Any) -> None:
        await self.kube.create(
            {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "metadata": {"name": self.name, "namespace": SHOP},
                "spec": {"model": V1, **spec},
            }
        )

    async def edit(self, **spec: Any) -> None:
        await self.kube.merge(kinds.DETECTOR, SHOP, self.name, {"spec": spec})

    async def says(self, type: str, reason: str, status: str = "") -> Manifest:
        """Wait until a condition has this reason; return the whole status."""

        async def said() -> Manifest | None:
            found = await self.kube.get(kinds.DETECTOR, SHOP, self.name)
            condition = {c["type"]: c for c in found["status"]["conditions"]}[type]
            right = condition["reason"] == reason and status in ("", condition["status"])
            current = found["status"]["observedGeneration"] == found["metadata"]["generation"]
            return found["status"] if right and current else None

        told: Manifest = await eventually(said)
        return told

    async def settled(self) -> Manifest:
        await self.says("TrafficRouted", "Routed")
        return await self.says("Progressing", "Settled")

    async def quiet(self) -> None:
        """Wait until nothing has been written for three seconds: the last Event is there, too.

        Events of all detectors are posted one after the other, this one's after many, perhaps.
        """

        async def written() -> tuple[str, float]:
            found = await self.kube.get(kinds.DETECTOR, SHOP, self.name)
            posted = await asyncio.to_thread(
                self.operator.metric, "rest_client_requests_total", method="POST"
            )
            return found["metadata"]["resourceVersion"], posted

        await self.operator.silent(written, 3)

    async def seen(self, plane: ControlPlane) -> str:
        """Return what a person sees once all is said: what is known, or else whatever stays."""
        file = GOLDEN / f"{self.name}.txt"
        known = "" if WRITE or not file.exists() else file.read_text()
        for _ in range(1 if WRITE else AGAIN):
            await self.quiet()
            shown = await asyncio.to_thread(picture, self.name, plane)
            if shown == known:
                break
        return shown

    async def patience_ends(self) -> None:
        """Do what a minute does: what is told now has been so for longer."""
        found = await self.kube.get(kinds.DETECTOR, SHOP, self.name)
        since = {"lastTransitionTime": kubelet.stamp(long_ago())}
        told = {"conditions": [told | since for told in found["status"]["conditions"]]}
        await self.kube.merge(kinds.DETECTOR, SHOP, self.name, {"status": told}, "status")

    def pods_to_come(self, fate: Fate) -> None:
        self.fates[self.name] = fate


Act = Callable[[Stage], Awaitable[Any]]


async def starting(stage: Stage) -> None:
    stage.pods_to_come(kubelet.starting)
    await stage.make(replicas=2)
    await stage.says("Progressing", "Starting")


async def serving(stage: Stage) -> None:
    await stage.make(replicas=2)
    await stage.settled()


async def image_not_found(stage: Stage) -> None:
    image = "registry.example.com/yoloserve:v7"
    told = f'Back-off pulling image "{image}": not found'
    stage.pods_to_come(kubelet.waiting("ImagePullBackOff", told))
    await stage.make(runtime={"image": image})
    await stage.says("Progressing", "ImagePullFailed")


async def crashed(stage: Stage) -> None:
    stage.pods_to_come(kubelet.crashing(139, "Segmentation fault in libvendor.so\n"))
    await stage.make()
    await stage.says("Progressing", "Crashed")


async def out_of_memory(stage: Stage) -> None:
    stage.pods_to_come(kubelet.crashing(137, reason="OOMKilled"))
    await stage.make()
    await stage.says("Progressing", "OutOfMemory")


async def digest_mismatch(stage: Stage) -> None:
    stage.pods_to_come(kubelet.crashing(78, MISMATCH))
    await stage.make(model={"uri": "https://models.example.com/gate-v7.onnx", "sha256": "5d" * 32})
    await stage.says("Progressing", "DigestMismatch")


async def unschedulable(stage: Stage) -> None:
    told = "0/3 nodes are available: 3 Insufficient cpu."
    stage.pods_to_come(kubelet.unschedulable(told, long_ago()))
    await stage.make(resources={"requests": {"cpu": "64"}})
    await stage.says("Stalled", "Unschedulable")  # only after a minute: a node may be on its way


async def no_gpu(stage: Stage) -> None:
    await stage.make(resources=GPU)
    await stage.says("Progressing", "Missing")
    await stage.patience_ends()
    await stage.says("Stalled", "Missing")


async def invalid_spec(stage: Stage) -> None:
    await serving(stage)
    container = {"name": "yoloserve", "image": "mine:1"}
    await stage.edit(podTemplate={"spec": {"containers": [container]}})
    await stage.says("Progressing", "InvalidSpec")


async def resource_conflict(stage: Stage) -> None:
    await stage.kube.create(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": stage.name, "namespace": SHOP},
            "spec": {"ports": [{"port": 80, "protocol": "TCP"}]},
        }
    )
    await stage.make()
    await stage.says("Progressing", "ResourceConflict")
    await stage.says("Ready", "Serving")


async def suspended(stage: Stage) -> None:
    await serving(stage)
    await stage.edit(suspend=True)
    await stage.says("Progressing", "Suspended")


async def scaled_to_zero(stage: Stage) -> None:
    await serving(stage)
    await stage.edit(replicas=0)
    await stage.says("Ready", "ScaledToZero")


async def draining(stage: Stage) -> None:
    await serving(stage)
    await stage.edit(model=V2)
    await stage.says("Progressing", "Draining")
    await stage.says("TrafficRouted", "Routed")


async def new_model_fails(stage: Stage) -> None:
    await serving(stage)
    stage.pods_to_come(kubelet.crashing(137, reason="OOMKilled"))
    await stage.edit(model=V2)
    await stage.says("Progressing", "OutOfMemory")


async def rolled_back(stage: Stage) -> None:
    await new_model_fails(stage)
    await stage.edit(model=V1)
    await stage.settled()


async def istio_absent(stage: Stage) -> None:
    await stage.make(traffic=hosts(stage))
    await stage.says("TrafficRouted", "MeshAbsent")
    await stage.says("Progressing", "Settled")


async def canary(stage: Stage) -> None:
    await stage.make(replicas=3, traffic=hosts(stage))
    await stage.settled()
    await stage.edit(canary={"model": V2, "weight": 10})
    await stage.says("CanaryHealthy", "CanaryReady")

    async def routed() -> bool:
        status = await stage.says("TrafficRouted", "Routed", "True")
        return bool(status["canary"]["weight"] == 10)

    await eventually(routed)


async def promotion_waits(stage: Stage) -> None:
    await canary(stage)
    stage.pods_to_come(kubelet.starting)
    await stage.edit(model=V2, canary=None)
    await stage.says("Progressing", "RollingOut")


async def canary_fails(stage: Stage) -> None:
    await stage.make(replicas=3, traffic=hosts(stage))
    await stage.settled()
    stage.pods_to_come(kubelet.crashing(1, "ValueError: the model has 80 classes\n"))
    await stage.edit(canary={"model": V2, "weight": 10})
    await stage.says("CanaryHealthy", "Crashed")


async def step_held(stage: Stage) -> None:
    steps = [{"weight": 25, "hold": "10m"}, {"weight": 50, "hold": "Approval"}]
    await stage.make(
        replicas=4, traffic=hosts(stage), rollout={"strategy": "Canary", "steps": steps}, model=V1
    )
    await stage.settled()
    await stage.edit(model=V2)

    async def at_its_weight() -> bool:
        status = await stage.says("TrafficRouted", "Routed", "True")
        return bool((status.get("canary") or {}).get("weight") == 25)

    await eventually(at_its_weight)


async def paused(stage: Stage) -> None:
    await step_held(stage)
    await stage.edit(rollout={"paused": True})
    await stage.says("Progressing", "Paused")


async def drift_left(stage: Stage) -> None:
    await stage.make(driftPolicy="Report")
    await stage.settled()
    gardener = stage.kube.acting_as("gardener")
    await gardener.merge(kinds.SERVICE, SHOP, stage.name, {"spec": {"type": "NodePort"}})
    await stage.says("Drifted", "DriftLeft")


BARE = (
    starting, serving, image_not_found, crashed, out_of_memory, digest_mismatch, unschedulable,
    no_gpu, invalid_spec, resource_conflict, suspended, scaled_to_zero, draining, new_model_fails,
    rolled_back, istio_absent, drift_left,
)  # fmt: skip
MESHED = canary, promotion_waits, canary_fails, step_held, paused
SITUATIONS = {act.__name__.replace("_", "-"): act for act in (*BARE, *MESHED)}


@pytest.fixture(scope="module")
def seen(
    plane: ControlPlane, bare_kinds: Any, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """What kubectl prints in each situation; all are played at once, those with Istio last."""
    return asyncio.run(play(plane, bare_kinds, tmp_path_factory.mktemp("golden")))


async def play(plane: ControlPlane, optional_kinds: Any, folder: Path) -> dict[str, str]:
    environment = {"YOLOFLEET_LEASE_NAMESPACE": SHOP, "YOLOFLEET_DRAIN_SECONDS": "600"}
    operator = OperatorProcess(plane.kubeconfig(OPERATOR), folder / "operator.log", environment)
    async with connect(plane.kubeconfig(ADMIN)) as client:
        kube, pods = Kube(client), FakeKubelet(client, SHOP)
        await optional_kinds.take_away(kube)
        await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SHOP}})
        operator.start()
        looked_after = asyncio.create_task(pods.run())
        try:
            await operator.ready()
            seen = await play_all(BARE, kube, operator, pods, plane)
            await optional_kinds.install(kube, ISTIO_CRDS)
            awaited = {kinds.VIRTUAL_SERVICE.name, kinds.DESTINATION_RULE.name}
            await eventually(
                lambda: awaited <= {each["kind"] for each in operator.log(message="API appeared")}
            )
            return seen | await play_all(MESHED, kube, operator, pods, plane)
        finally:
            operator.kill()
            looked_after.cancel()
            for detector in await kube.list(kinds.DETECTOR, SHOP):
                await kube.delete(kinds.DETECTOR, SHOP, detector["metadata"]["name"])
            await kube.delete(NAMESPACE, "", SHOP)


async def play_all(
    acts: Iterable[Act],
    kube: Kube,
    operator: OperatorProcess,
    pods: FakeKubelet,
    plane: ControlPlane,
) -> dict[str, str]:
    fates: dict[str, Fate] = {}

    def by_detector(pod: Manifest) -> Manifest:
        return fates.get(pod["metadata"]["labels"][names.DETECTOR_LABEL], kubelet.ready)(pod)

    async def one(act: Act) -> tuple[str, str]:
        stage = Stage(kube, operator, act.__name__.replace("_", "-"), fates)
        await act(stage)
        return stage.name, await stage.seen(plane)

    pods.otherwise = by_detector
    return dict(await asyncio.gather(*map(one, acts)))


def picture(name: str, plane: ControlPlane) -> str:
    """Return what a person types and reads."""
    texts = []
    for command in (f"get yd {name}", f"get yd {name} -o wide", f"describe yd {name}"):
        kubectl = [assets.directory() / "kubectl", "--kubeconfig", plane.kubeconfig()]
        done = subprocess.run(
            [*kubectl, "-n", SHOP, *command.split()],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
        )
        texts.append(f"$ kubectl {command}\n{normal(done.stdout)}")
    return "\n".join(texts)


def normal(text: str) -> str:
    """Replace what differs from run to run, and put Events, which have one second, in order.

    The spec is left out: it is what the user wrote, and every default that the API learns.
    """
    text = re.sub(r"(?ms)^Spec:\n.*?(?=^Status:)", "Spec:\n  …\n", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "2030-01-01T00:00:00Z", text)
    text = re.sub(r"(?m)^(  (?:UID|Resource Version): +).*$", r"\1…", text)
    text = re.sub(r"\b(\d+m)?\d+s( \(x\d+ over \w+\))?(?= |$)( *)", _age, text, flags=re.M)
    text = re.sub(r"yolofleet, \S+", "yolofleet", text)
    head, events, rest = text.partition("Events:\n")
    rest = re.sub(r"\d+ (of \d+ replicas)", r"… \1", rest)  # as many as were ready just then
    lines = sorted({" ".join(line.split()) for line in rest.splitlines()[2:]})
    told = "".join(f"  {line}\n" for line in lines)
    return "".join(line.rstrip() + "\n" for line in head.splitlines()) + events + told


def _age(found: re.Match[str]) -> str:
    return "5s".ljust(len(found[0])) if found[3] else "5s"


@pytest.mark.parametrize("situation", SITUATIONS)
def test_kubectl_shows(seen: dict[str, str], situation: str) -> None:
    file = GOLDEN / f"{situation}.txt"
    if WRITE:
        file.write_text(seen[situation])
    told, known = seen[situation].splitlines(), file.read_text().splitlines()
    changes = "\n".join(difflib.unified_diff(known, told, file.name, "now", lineterm=""))
    assert not changes, f"{changes}\nYOLOFLEET_GOLDEN=write pytest {__file__} writes it anew"


def test_every_golden_file_is_of_a_situation() -> None:
    assert {file.stem for file in GOLDEN.glob("*.txt")} == set(SITUATIONS)
