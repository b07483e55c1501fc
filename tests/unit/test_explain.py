"""What the operator says it believes: enough to understand it, and no secret."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest

from yolofleet.cluster.cache import Entry, entry_of
from yolofleet.explain import Seen, explain
from yolofleet.plan.powers import Power
from yolofleet.runtime.compare import Difference, How
from yolofleet.runtime.errors import Unavailable
from yolofleet.runtime.kind import kind_of
from yolofleet.runtime.queue import Priority, Workers, WorkQueue


def explained(world: Any, differing: Callable[..., Any] = lambda *_: ()) -> dict[str, Any]:
    def entry(manifest: dict[str, Any]) -> Entry:
        metadata = manifest["metadata"] | {"uid": str(id(manifest)), "resourceVersion": "7"}
        return entry_of(kind_of(manifest), manifest | {"metadata": metadata})

    seen = Seen(
        snapshot=world.seen(),
        cached=[entry(child) for child in world.children.values()],
        defaults=world.defaults,
        differing=differing,
    )
    facts = explain(world.raw, seen, now=world.now)
    told: dict[str, Any] = json.loads(orjson.dumps(facts))  # JSON can hold it
    return told


def test_a_settled_detector_is_told_with_reasons_and_without_differences(world: Any) -> None:
    world.settle()
    told = explained(world)
    [name] = told["observed"]["revisions"]
    assert told["observed"]["revisions"][name]["ready"] == 2
    assert told["observed"]["weights"] == {name: 100}
    assert told["plan"]["stable"] == name
    assert told["plan"]["revisions"][0]["revision"]["model"] == "demo://shapes"
    assert told["says"]["Ready"].startswith("True (Serving)")
    assert told["says"] == told["wouldSay"]
    assert told["differences"] == []
    assert {"kind": "Deployment", "name": name} in [
        {k: child[k] for k in ("kind", "name")} for child in told["cached"]
    ]


def test_before_the_first_reconcile_all_is_missing(world: Any) -> None:
    told = explained(world)
    assert told["says"] == {}
    assert "Service gate: is not there" in told["differences"]
    assert told["wouldSay"]["Progressing"].startswith("True (Starting)")


def test_what_differs_is_told_with_its_field_and_what_is_too_much_too(world: Any) -> None:
    world.settle()
    stranger = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "gate-old", "namespace": "shop"},
        "spec": {},
    }
    world.children["Service", "gate-old"] = stranger

    def differing(manifest: dict[str, Any], _: Entry) -> list[Difference]:
        found = [Difference(How.TAKEN, ("spec", "replicas"))]
        return found if manifest["kind"] == "Deployment" else []

    told = explained(world, differing)["differences"]
    [name] = world.replicas()
    assert told == [
        f"Deployment {name}: spec.replicas (taken)",
        "Service gate-old: is not wanted",
    ]


def test_an_invalid_spec_is_told_as_such(world: Any) -> None:
    world.raw["spec"]["model"] = {"uri": 7}
    told = explained(world)
    assert "spec.model.uri" in told["invalid"]
    assert "plan" not in told


def test_a_spec_that_takes_what_is_forbidden_is_told_as_invalid(world: Any) -> None:
    """No reconcile acts on it, so that nothing which would follow from it is to be told."""
    world.settle()
    world.edit(podTemplate={"spec": {"serviceAccountName": "admin"}})
    world.defaults = replace(world.defaults, forbidden=frozenset({Power.SERVICE_ACCOUNT}))
    told = explained(world)
    assert told["invalid"].startswith("spec.podTemplate.spec.serviceAccountName: ")
    assert "wouldSay" not in told


def test_a_fault_of_the_operator_is_told_with_its_place(world: Any, monkeypatch: Any) -> None:
    def fails(*_args: Any, **_kwargs: Any) -> None:
        raise KeyError("odd")

    monkeypatch.setattr("yolofleet.explain.think", fails)
    told = explained(world)
    assert told["failed"] == ["KeyError: 'odd'\n"]
    assert told["at"][-1].startswith("test_explain.py:")
    assert told["resource"]["generation"] == 1


def test_no_secret_is_told(world: Any) -> None:
    world.edit(
        model={"uri": "https://me:hunter2@models.example.com/gate.onnx?signature=hunter2"},
        podTemplate={
            "spec": {
                "containers": [
                    {"name": "yoloserve", "env": [{"name": "TOKEN", "value": "hunter2"}]}
                ]
            }
        },
    )
    world.edit(canary={"model": {"uri": "demo://shapes-v2"}, "shadow": 10})
    world.settle()
    token = world.decide().shadow.token
    told = explained(world)
    assert token not in json.dumps(told)
    assert "hunter2" not in json.dumps(told["plan"]) + json.dumps(told["observed"])
    assert "https://models.example.com/gate.onnx" in json.dumps(told["plan"])


async def test_the_queue_tells_why_a_key_waits_and_what_came_of_it_last() -> None:
    now = 100.0
    queue = WorkQueue(clock=lambda: now)
    assert queue.describe("a") == {"lastReconcile": None}
    queue.add("a", Priority.USER)
    now += 2
    assert queue.describe("a") == {
        "waitsForSeconds": 2.0,
        "because": "user",
        "lastReconcile": None,
    }
    queue.take()
    now += 1
    assert queue.describe("a")["workedOnForSeconds"] == 1.0
    queue.done("a")


class Silent:
    def started(self) -> None: ...
    def ended(self, outcome: str, seconds: float) -> None: ...
    def failed(self, error: BaseException, *, terminal: bool, expected: bool) -> None: ...


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (timedelta(seconds=30), {"result": "requeue_after", "error": ""}),
        (Unavailable("away"), {"result": "error", "error": "Unavailable: away"}),
    ],
)
async def test_the_last_reconcile_is_remembered(result: Any, told: dict[str, str]) -> None:
    queue = WorkQueue(clock=lambda: 0.0)  # it stands: the back-off is milliseconds

    async def reconcile(_: str) -> timedelta | None:
        if isinstance(result, Exception):
            raise result
        kept: timedelta = result
        return kept

    await Workers(queue, reconcile, Silent()).work_on("a")
    last = queue.describe("a")["lastReconcile"]
    assert told.items() <= last.items()
    assert len(last["id"]) == 8
    assert queue.describe("a")["nextLookInSeconds"] > 0
