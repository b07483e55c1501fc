"""One `YoloDetector` as a user works with it: edits by kubectl, waiting by its status."""

import time
from dataclasses import dataclass
from typing import Any, Final

from demo_cluster.errors import NotYet
from demo_cluster.kube import DETECTORS, Kubectl, Manifest
from demo_cluster.waiting import eventually

READY_S: Final = 300.0
CHANGE_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Detector:
    """A detector by name."""

    kubectl: Kubectl
    name: str

    def exists(self) -> bool:
        """Return whether there is such a resource."""
        return self.kubectl.find(DETECTORS, self.name) is not None

    def raw(self) -> Manifest:
        """Return it as the API server has it. Raises NotYet where it is not there."""
        found = self.kubectl.find(DETECTORS, self.name)
        if found is None:
            raise NotYet(f"there is no YoloDetector {self.name}")
        return found

    def acted_on(self) -> Manifest:
        """Return it once its status speaks of the spec it has now."""
        raw = self.raw()
        generation = raw["metadata"]["generation"]
        if raw.get("status", {}).get("observedGeneration", 0) < generation:
            raise NotYet(f"generation {generation} is not in status yet; is the operator running?")
        return raw

    def patch(self, spec: Manifest) -> None:
        """Merge into the spec."""
        self.kubectl.patch(DETECTORS, self.name, {"spec": spec})

    def leave(self) -> None:
        """Delete it, if it is there; its pods drain and go meanwhile."""
        self.kubectl.run("delete", DETECTORS, self.name, "--ignore-not-found", "--wait=false")

    def delete(self) -> None:
        """Delete it, if it is there, and wait until its pods are gone."""
        self.leave()
        eventually(
            f"the pods of {self.name} to go", self._no_pods, within_s=CHANGE_S, hint=self.hint()
        )

    def _no_pods(self) -> None:
        if left := [pod["metadata"]["name"] for pod in self.pods()]:
            raise NotYet(", ".join(left))

    def pods(self, revision: str = "") -> list[Manifest]:
        """Return its pods, or those of one revision."""
        chosen = f"yolofleet.io/detector={self.name}"
        if revision:
            chosen += f",yolofleet.io/revision={revision}"
        return self.kubectl.list("pods", chosen)

    def restarts(self, revision: str = "") -> int:
        """Count the restarts of the containers of its pods, or of those of one revision."""
        return sum(
            container["restartCount"]
            for pod in self.pods(revision)
            for container in pod["status"].get("containerStatuses", [])
        )

    def wait_for(self, kind: str, status: str = "True", *, within_s: float = CHANGE_S) -> Manifest:
        """Wait until a condition has this status; return the condition."""

        def look() -> Manifest:
            found = condition(self.acted_on(), kind)
            if found.get("status") != status:
                raise NotYet(told(found))
            return found

        return eventually(
            f"{kind}={status} of {self.name}", look, within_s=within_s, hint=self.hint()
        )

    def wait_ready(self) -> float:
        """Wait until it serves with all its replicas; return the seconds that took."""
        started = time.monotonic()
        self.wait_for("Ready", within_s=READY_S)

        def whole() -> None:
            raw = self.acted_on()
            stable = raw["status"]["stable"]
            if stable["ready"] < stable["desired"]:
                raise NotYet(told(condition(raw, "Progressing")))

        eventually(f"all replicas of {self.name}", whole, within_s=READY_S, hint=self.hint())
        return time.monotonic() - started

    def wait_weight(self, weight: int, *, within_s: float = CHANGE_S) -> Manifest:
        """Wait until the router gives the canary this share; return the canary's status."""

        def look() -> Manifest:
            raw = self.acted_on()
            canary: Manifest = raw["status"].get("canary") or {}
            if canary.get("weight") != weight:
                seen = f"the canary has {canary.get('weight', 'nothing yet')}"
                raise NotYet(f"{seen}; {told(condition(raw, 'TrafficRouted'))}")
            return canary

        return eventually(
            f"{weight} % for the canary of {self.name}", look, within_s=within_s, hint=self.hint()
        )

    def wait_released(self, model: str, *, within_s: float = CHANGE_S) -> Manifest:
        """Wait until the revision with this model is stable and has all traffic."""

        def look() -> Manifest:
            raw = self.acted_on()
            stable: Manifest = raw["status"].get("stable") or {}
            if (stable.get("model"), stable.get("weight")) != (model, 100):
                seen = f"{stable.get('model')} has {stable.get('weight')} %"
                raise NotYet(f"{seen}; {told(condition(raw, 'Progressing'))}")
            return stable

        return eventually(
            f"{model} to be the stable model of {self.name}",
            look,
            within_s=within_s,
            hint=self.hint(),
        )

    def wait_stable(self, revision: str, *, within_s: float = CHANGE_S) -> None:
        """Wait until this revision is the stable one and has all traffic."""

        def look() -> None:
            raw = self.acted_on()
            stable: Manifest = raw["status"].get("stable") or {}
            if (stable.get("revision"), stable.get("weight")) != (revision, 100):
                seen = f"{stable.get('revision')} has {stable.get('weight')} %"
                raise NotYet(f"{seen}; {told(condition(raw, 'Progressing'))}")

        eventually(f"all traffic for {revision}", look, within_s=within_s, hint=self.hint())

    def wait_settled(self, *, within_s: float = CHANGE_S) -> None:
        """Wait until nothing is on its way any more: former revisions have drained."""

        def look() -> None:
            found = condition(self.acted_on(), "Progressing")
            if found.get("reason") != "Settled":
                raise NotYet(told(found))

        eventually(f"{self.name} to settle", look, within_s=within_s, hint=self.hint())

    def hint(self) -> str:
        """Return what to type to find out more."""
        return (
            f"See: kubectl -n {self.kubectl.namespace} describe yd {self.name}; kubectl -n"
            f" {self.kubectl.namespace} get pods -l yolofleet.io/detector={self.name}"
        )


def condition(raw: Manifest, kind: str) -> Manifest:
    """Return one condition of a resource, or an empty one."""
    conditions: list[dict[str, Any]] = raw.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == kind), {"type": kind})


def told(found: Manifest) -> str:
    """Return a condition as a person reads it."""
    if "status" not in found:
        return f"{found['type']} is not told"
    return f"{found['type']}={found['status']} {found['reason']}: {found['message']}"
