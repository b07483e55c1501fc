"""One cluster in memory with an operator, a user and a clock that only this moves."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from faults import safety
from faults.history import Seen
from faults.stage import NAME
from faults.traces import SPEC
from memory_cluster.controllers import Controllers, address_of
from memory_cluster.faults import Crashed, Fault
from memory_cluster.operator import DEFAULTS, MemoryClient, Operator, nobody_answers
from memory_cluster.server import KINDS, MERGE, Server
from yolofleet.api import names
from yolofleet.api.names import Manifest
from yolofleet.cluster import kinds
from yolofleet.cluster.prometheus import Query, not_configured
from yolofleet.runtime import objects
from yolofleet.runtime.client import Request
from yolofleet.runtime.kind import Kind

LOOK_S: Final = 10.0  # the interval of judging, by default
NAMESPACE: Final = "shop"
QUIET_S: Final = 400.0
"""Longer than whatever is looked at again: a back-off is at most 300 s."""

MANY: Final = 100


@dataclass
class Clock:
    """A clock that is told the time."""

    seconds: float = 0.0

    def __call__(self) -> float:  # noqa: D102
        return self.seconds


class World:
    """What a test plays with. broken: models whose pods never get ready."""

    def __init__(
        self,
        absent: Sequence[Kind] = (
            kinds.HTTP_ROUTE,
            kinds.GATEWAY,
            kinds.POD_MONITOR,
            kinds.SCALED_OBJECT,
            kinds.CLAIM_TEMPLATE,
            kinds.RAY_SERVICE,
        ),
    ) -> None:
        self._time = Clock()
        self.server = Server(self._time, absent=set(absent))
        self.broken: set[str] = set()
        self.defaults = DEFAULTS
        self.tells: Callable[[str], bytes] = nobody_answers
        """What pods answer to whom reads their counters, by URL."""
        self.prometheus: Query = not_configured
        """What Prometheus answers."""
        self._begin()
        for kind in set(kinds.GATEWAYS.values()) - set(absent):
            self.send("POST", kind.path(_GATEWAYS), _gateway(kind))

    def _begin(self) -> None:
        self.controllers = Controllers(self.server, self._gets_ready)
        self._rested: tuple[int, set[str]] = (0, set())
        self.client = MemoryClient(self.server)
        self.operator: Operator | None = None
        self.crashes = 0
        self.failures: list[str] = []
        self.restless: list[str] = []
        """Writes that changed nothing, once it had come to rest."""
        self.since = len(self.server.history)

    def fork(self) -> World:
        """Return a copy of this world that goes its own way, with an operator yet to be started."""
        other = copy.copy(self)
        other._time = Clock(self._time.seconds)
        other.server = self.server.fork(other._time)
        other.broken = set(self.broken)
        other._begin()
        return other

    def copy(self) -> World:
        """Return a copy of this world with the operator in the middle of its life.

        Nobody may be in the middle of anything. What is never changed is shared.
        """
        calls = (call for call, _ in self.client.calls)
        shared = (*KINDS, *self.server.history, *self.server.objects.values(), *calls)
        return copy.deepcopy(self, {id(one): one for one in shared})

    # what goes wrong

    def suffer(self, *faults: Fault) -> None:
        """Let these happen to the requests from now on, whose writes are numbered from 1."""
        self.client.faults = list(faults)
        self.client.calls = []
        self.since = len(self.server.history)

    def heal(self) -> None:
        """Let nothing go wrong any more."""
        self.client.faults = []

    async def go_on_a_little(self) -> None:
        """Let the cluster move, and the operator hear of it, in the middle of its work."""
        self.controllers.step()
        self._time.seconds += 1.0
        if self.operator:
            self.operator.hear()

    def lasts(self, seconds: float) -> Callable[[], None]:
        """Return what lets so much time pass in the middle of a request."""

        def wait() -> None:
            self._time.seconds += seconds

        return wait

    def forget(self, lines: int) -> Callable[[Any], None]:
        """Return what makes the operator deaf to the next lines of its watches."""

        def lose(_call: Any) -> None:
            if self.operator:
                self.operator.deaf = lines

        return lose

    # time

    async def settle(
        self, quiet_s: float = QUIET_S, between: Callable[[], None] = lambda: None
    ) -> None:
        """Let everybody work until nothing changed for so long; what watches lost is listed then.

        between: called whenever nobody is in the middle of anything.
        """
        version, quiet_since, resynced, calls = -1, self._time.seconds, False, 0
        for _ in range(3000):
            between()
            self._let_controllers_work()
            worked = await self._work()
            if self.server.version != version:
                version, quiet_since, resynced = self.server.version, self._time.seconds, False
                calls = len(self.client.calls)
            if worked:
                continue
            assert self.operator is not None
            look = self.operator.next_look_s()
            left = quiet_since + quiet_s - self._time.seconds
            if look is None or look > left:
                if resynced or not self.operator.missed:
                    self.restless = [str(call) for call, _ in self.client.calls[calls:]]
                    return
                resynced, self.operator.missed = True, 0
                self._time.seconds += max(left, 0.0)
                await self._safely(self.operator.resync)
                continue
            self._time.seconds += max(look, 0.001)
        raise AssertionError(f"it never comes to rest; {self.status()}")

    def _let_controllers_work(self) -> None:
        """Let the controllers work, unless nothing is as it was not when they came to rest."""
        if self._rested != (self.server.version, self.broken):
            self.controllers.settle()
            self._rested = (self.server.version, set(self.broken))

    async def _work(self) -> bool:
        """Let the operator work; return whether anything came of it."""
        crashes, done = self.crashes, 0
        if self.operator is None:
            await self._safely(self._start)

        async def work() -> None:
            nonlocal done
            assert self.operator is not None
            done = await self.operator.work()

        await self._safely(work)
        return bool(done) or self.crashes > crashes

    async def _start(self) -> None:
        self.client.crashed = False
        self.operator = Operator(self.server, self.client, self.defaults)
        self.operator.tells = self.tells
        self.operator.prometheus = self.prometheus
        await self.operator.start()

    async def _safely(self, work: Callable[[], Any]) -> None:
        """Do `work`; if the operator dies of it, the next one starts."""
        operator = self.operator
        try:
            await work()
        except Crashed:
            self.crashes += 1
            assert self.crashes < MANY, "it crashes for ever"
            self._time.seconds += 1.0
            await self._safely(self._start)
        if operator:
            self.failures += operator.failures
            operator.failures = []

    async def pass_time(self, seconds: float) -> None:
        """Let so much time pass, and everybody work."""
        self._time.seconds += seconds
        await self._work()

    async def pass_looks(self, looks: int, *, first: Callable[[], None] = lambda: None) -> None:
        """Let the sampler look so often, with what comes of it. first: what pods do before each."""
        for _ in range(looks):
            self.controllers.settle()
            first()
            await self.pass_time(LOOK_S)
            self.controllers.settle()
            await self.pass_time(0.5)  # what was written is read back

    # what a user does

    async def create(self, **spec: Any) -> Manifest:
        """Create the detector."""
        return self.send(
            "POST", kinds.DETECTOR.path(NAMESPACE), detector(**spec), manager="kubectl-create"
        )

    async def edit(self, **spec: Any) -> Manifest:
        """Change the detector; None removes a field."""
        return self.merge(kinds.DETECTOR, NAME, {"spec": spec})

    async def delete(self) -> None:
        """Delete the detector."""
        self.remove(kinds.DETECTOR, NAME)

    def remove(self, kind: Kind, name: str, policy: str = "Background") -> None:
        """Delete an object."""
        self.send("DELETE", kind.path(NAMESPACE, name), {"propagationPolicy": policy})

    def merge(
        self, kind: Kind, name: str, patch: Manifest, manager: str = "kubectl-edit"
    ) -> Manifest:
        """Change fields of an object, as `kubectl patch --type=merge` does."""
        return self.send("PATCH", kind.path(NAMESPACE, name), patch, MERGE, manager)

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        content_type: str = "application/json",
        manager: str = "kubectl-edit",
    ) -> Manifest:
        """Ask the API server for something, past every fault."""
        query = {"fieldManager": manager}
        answer = self.server.answer(Request(method, path, query, body, content_type))
        assert answer.code < 300, answer.body
        return answer.body

    # what is

    def detector(self) -> Manifest | None:
        """Return the detector as it is stored."""
        return self.server.find(kinds.DETECTOR, NAMESPACE, NAME)

    def status(self) -> Manifest:
        """Return the detector's status."""
        status: Manifest = (self.detector() or {}).get("status", {})
        return status

    def stable(self) -> str:
        """Return the revision that is released."""
        return str(self.status()["stable"]["revision"])

    def pod_at(self, url: str) -> Manifest:
        """Return the pod that a URL leads to."""
        by_address = {address_of(pod): pod for pod in self.server.all(kinds.POD)}
        return by_address[url.split("/")[2].partition(":")[0]]

    def condition(self, type: str) -> Manifest:
        """Return one condition; empty when it is not there."""
        conditions = self.status().get("conditions", ())
        return next((c for c in conditions if c["type"] == type), {})

    def children(self) -> dict[tuple[str, str], Manifest]:
        """Return all that can be a detector's child, by kind and name."""
        return {
            objects.identity(one): one
            for kind in kinds.CHILDREN
            for one in self.server.all(kind)
            if one["metadata"].get("namespace") == NAMESPACE
        }

    def writes(self) -> list[str]:
        """Return the writes since faults were last set."""
        return [str(call) for call, _ in self.client.calls]

    def happened(self) -> list[Seen]:
        """Return what happened since then."""
        return self.server.history[self.since :]

    def unsafe(self) -> list[str]:
        """Return what was unsafe at any moment since then."""
        return safety.problems(self.happened(), before=self.server.history[: self.since])

    def state(self) -> Manifest:
        """Return all that a detector is and owns, without what differs from run to run."""
        found: dict[str, Any] = {
            f"{kind} {name}": _normal(child) for (kind, name), child in self.children().items()
        }
        if (raw := self.detector()) is not None:
            status = dict(raw.get("status", {}))
            seen = status.pop("observedGeneration", None)
            status["ofThisSpec"] = seen == raw["metadata"]["generation"]
            status["conditions"] = [
                {k: v for k, v in c.items() if k != "observedGeneration"}
                for c in status.get("conditions", ())
                if c["type"] != "Drifted"  # it tells what was, too
            ]
            found["YoloDetector"] = {"spec": raw["spec"], "status": status}
        text = _TIME.sub("TIME", _UUID.sub("UID", json.dumps(found, sort_keys=True)))
        normal: Manifest = json.loads(text)
        return normal

    def _gets_ready(self, pod: Manifest) -> bool:
        return not any(uri in json.dumps(pod["spec"]) for uri in self.broken)


_GATEWAYS, _GATEWAY = SPEC["traffic"]["gateways"][0].split("/")


def _gateway(kind: Kind) -> Manifest:
    """Return the gateway that the traces route by."""
    metadata = {"name": _GATEWAY, "namespace": _GATEWAYS}
    return {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, "spec": {}}


def detector(**spec: Any) -> Manifest:
    """Return the detector as a user writes it."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": spec,
    }


_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_BOOKKEEPING: Final = ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields")


def _normal(child: Manifest) -> Manifest:
    metadata = {k: v for k, v in child["metadata"].items() if k not in _BOOKKEEPING}
    annotations = metadata.get("annotations", {})
    metadata["annotations"] = {
        k: v for k, v in annotations.items() if k != names.LAST_APPLIED_ANNOTATION
    }
    fields = {k: v for k, v in child.items() if k not in ("metadata", "status")}
    spec = {k: v for k, v in child.get("spec", {}).items() if k != "clusterIP"}
    ready = child.get("status", {}).get("readyReplicas", 0) if "replicas" in spec else None
    return fields | {"metadata": metadata, "spec": spec, "ready": ready}
