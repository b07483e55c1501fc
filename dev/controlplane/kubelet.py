"""Stands in for kubelets and scheduler: says of each pod that it runs, or why it does not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from yolofleet.api.names import REVISION_LABEL, Manifest
from yolofleet.cluster import kinds
from yolofleet.runtime.client import Client, Request, apply
from yolofleet.runtime.errors import ClusterError

Fate = Callable[[Manifest], Manifest]
"""What becomes of a pod: its status."""


def ready(pod: Manifest) -> Manifest:
    """Give `pod` the status of one that serves."""
    return {
        "phase": "Running",
        "podIP": "10.0.0.1",
        "podIPs": [{"ip": "10.0.0.1"}],
        "conditions": _conditions("True"),
        "containerStatuses": [
            _container(one, ready=True, state={"running": {"startedAt": _now()}})
            for one in pod["spec"]["containers"]
        ],
    }


def ready_again(exit_code: int) -> Fate:
    """Return the fate of pods that serve, after their containers ended once with `exit_code`."""

    def fate(pod: Manifest) -> Manifest:
        ended = {"terminated": {"exitCode": exit_code, "startedAt": _now(), "finishedAt": _now()}}
        served = ready(pod)
        again = {"lastState": ended, "restartCount": 1}
        return served | {"containerStatuses": [one | again for one in served["containerStatuses"]]}

    return fate


def placed(pod: Manifest) -> Manifest:
    """Give `pod` the status of one that serves once a scheduler has found it a node."""
    return ready(pod) if pod["spec"].get("nodeName") else {}


def starting(pod: Manifest) -> Manifest:
    """Give `pod` the status of one that runs and does not serve yet."""
    return {
        "phase": "Running",
        "conditions": _conditions("False"),
        "containerStatuses": [
            _container(one, ready=False, state={"running": {"startedAt": _now()}})
            for one in pod["spec"]["containers"]
        ],
    }


def waiting(reason: str, message: str = "") -> Fate:
    """Return the fate of pods that cannot start: ImagePullBackOff and the like."""

    def fate(pod: Manifest) -> Manifest:
        state = {"waiting": {"reason": reason, "message": message}}
        return {
            "phase": "Pending",
            "conditions": _conditions("False"),
            "containerStatuses": [
                _container(one, ready=False, state=state) for one in pod["spec"]["containers"]
            ],
        }

    return fate


def crashing(exit_code: int, message: str = "", reason: str = "Error") -> Fate:
    """Return the fate of pods whose containers end with `exit_code` again and again."""

    def fate(pod: Manifest) -> Manifest:
        ended = {
            "terminated": {
                "exitCode": exit_code,
                "reason": reason,
                "message": message,
                "startedAt": _now(),
                "finishedAt": _now(),
            }
        }
        state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
        return {
            "phase": "Running",
            "conditions": _conditions("False"),
            "containerStatuses": [
                _container(one, ready=False, state=state) | {"lastState": ended, "restartCount": 3}
                for one in pod["spec"]["containers"]
            ],
        }

    return fate


def unschedulable(message: str, since: datetime | None = None) -> Fate:
    """Return the fate of pods that fit no node, since a time of which the scheduler may tell."""
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    condition["message"] = message
    if since:
        condition["lastTransitionTime"] = stamp(since)

    def fate(_: Manifest) -> Manifest:
        return {"phase": "Pending", "conditions": [condition]}

    return fate


def pending(_: Manifest) -> Manifest:
    """Leave the pod as it is."""
    return {}


class FakeKubelet:
    """Gives pods their fate: by revision where one is set, else `otherwise`."""

    def __init__(self, client: Client, namespace: str = "", period_s: float = 0.1) -> None:
        self._client = client
        self._namespace = namespace
        self._period_s = period_s
        self._given: dict[str, Fate] = {}
        self.fates: dict[str, Fate] = {}
        self.otherwise: Fate = ready

    def decide(self, revision: str, fate: Fate) -> None:
        """From now on the pods of `revision` get this fate, those that run already too."""
        self.fates[revision] = fate

    async def run(self) -> None:
        """Look after the pods until cancelled."""
        while True:
            # What was said is never said again: its times would be new, and the pods not ready long
            # enough. A pod of which nothing could be said is looked at again.
            with contextlib.suppress(ClusterError):
                await self.look()
            await asyncio.sleep(self._period_s)

    async def look(self) -> None:
        """Give each pod its fate that does not have it."""
        listing = await self._client.list(kinds.POD, lambda pod: pod, namespace=self._namespace)
        for pod in listing.items:
            if "deletionTimestamp" in pod["metadata"]:
                await self._end(pod)
                continue
            uid = pod["metadata"]["uid"]
            revision = (pod["metadata"].get("labels") or {}).get(REVISION_LABEL, "")
            fate = self.fates.get(revision, self.otherwise)
            if self._given.get(uid) is fate:
                continue
            if status := fate(pod):
                await self._say(pod, status)
                self._given[uid] = fate

    async def _end(self, pod: Manifest) -> None:
        """Let a pod go that is on its way out; one without a node needs nobody's leave."""
        if pod["spec"].get("nodeName"):
            metadata = pod["metadata"]
            path = kinds.POD.path(metadata["namespace"], metadata["name"])
            body = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
            body["preconditions"] = {"uid": metadata["uid"]}
            await self._client.send(Request("DELETE", path, body=body))

    async def _say(self, pod: Manifest, status: Manifest) -> None:
        metadata = {name: pod["metadata"][name] for name in ("name", "namespace", "uid")}
        patch = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status}
        await self._client.send(apply(patch, "fake-kubelet", force=True, subresource="status"))


def _conditions(serves: str) -> list[dict[str, str]]:
    values = {"PodScheduled": "True", "Initialized": "True"}
    values |= {"ContainersReady": serves, "Ready": serves}
    return [{"type": t, "status": s, "lastTransitionTime": _now()} for t, s in values.items()]


def _container(container: Manifest, *, ready: bool, state: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": ready,
        "started": ready,
        "restartCount": 0,
        "state": state,
    }


def _now() -> str:
    return stamp(datetime.now(UTC))


def stamp(time: datetime) -> str:
    """Return `time` as Kubernetes writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
