"""The API server refuses all objects of one kind: who waits for it does, and status says so."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from faults.traces import CREATE, PROMOTE, UPDATE, Trace
from memory_cluster.faults import ALWAYS, Refused, writes_of
from memory_cluster.world import NAMESPACE, World
from yolofleet.api.names import REVISION_LABEL
from yolofleet.cluster import kinds
from yolofleet.runtime.kind import Kind

KINDS = (
    kinds.SERVICE_ACCOUNT,
    kinds.NETWORK_POLICY,
    kinds.RECORD,
    kinds.DEPLOYMENT,
    kinds.SERVICE,
    kinds.DESTINATION_RULE,
    kinds.VIRTUAL_SERVICE,
    kinds.PDB,
)
WAITING = {
    kinds.SERVICE: ("VirtualService",),
    kinds.DESTINATION_RULE: ("VirtualService",),
    kinds.NETWORK_POLICY: ("Deployment",),
}
"""A route never points at what is not there, and no pod is made that is open to everybody."""
SAID = "not on a Sunday"


def told(world: World) -> str:
    return " ".join(c["message"] for c in world.status().get("conditions", ()))


@pytest.mark.parametrize("code", [403, 500])
@pytest.mark.parametrize("kind", KINDS, ids=str)
async def test_a_kind_that_is_refused_holds_up_only_who_waits_for_it(
    kind: Kind, code: int, reference_of: Callable[[Trace], Any]
) -> None:
    expected = await reference_of(CREATE)
    world = expected.world()
    await world.settle()
    world.suffer(Refused(writes_of(kind.plural), times=ALWAYS, code=code))
    await CREATE.step(world)
    await world.settle(60)
    made = {made_kind for made_kind, _ in world.children()}
    usual = {name.split()[0] for name in expected.state} - {"YoloDetector"}
    assert usual - made <= {kind.name, *WAITING.get(kind, ())}
    assert SAID in told(world)
    assert kind.name in told(world)


@pytest.mark.parametrize("trace", [UPDATE, PROMOTE], ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=str)
async def test_a_refusal_that_ends_leaves_nothing_behind(
    kind: Kind, trace: Trace, reference_of: Callable[[Trace], Any]
) -> None:
    expected = await reference_of(trace)
    world = expected.world()
    await world.settle()
    world.suffer(Refused(writes_of(kind.plural), times=ALWAYS))
    await trace.step(world)
    await world.settle(60)
    assert not world.unsafe()
    raw = world.detector() or {}
    assert raw["status"]["observedGeneration"] == raw["metadata"]["generation"]
    world.heal()
    await world.settle()
    assert not expected.judge(world, counts=False)


@pytest.mark.parametrize("kind", [kinds.SERVICE, kinds.DESTINATION_RULE], ids=str)
async def test_an_operator_that_starts_anew_does_not_release_what_no_route_can_name(
    kind: Kind, reference_of: Callable[[Trace], Any]
) -> None:
    """What was refused to the one before was forgotten, and pods that blinked never came back."""
    world = (await reference_of(UPDATE)).world()
    await world.settle()
    stable = world.status()["stable"]["revision"]
    kept = ("gate", stable)
    world.suffer(
        Refused(lambda call: writes_of(kind.plural)(call) and call.name not in kept, times=ALWAYS)
    )
    await UPDATE.step(world)
    await world.settle(60)
    world.operator = None
    await world.settle(60)
    assert world.status()["stable"]["revision"] == stable
    for pod in list(world.server.all(kinds.POD)):
        if pod["metadata"]["labels"][REVISION_LABEL] == stable:
            world.remove(kinds.POD, pod["metadata"]["name"])
    await world.settle(60)
    assert not world.unsafe()
    route = world.server.find(kinds.VIRTUAL_SERVICE, NAMESPACE, "gate")
    [goal] = route["spec"]["http"][-1]["route"]
    assert goal["destination"]["host"].partition(".")[0] == stable
    assert world.server.find(kinds.DEPLOYMENT, NAMESPACE, stable)["spec"]["replicas"] == 2


def lines_about(caplog: pytest.LogCaptureFixture, kind: Kind) -> list[tuple[str, str]]:
    """Return level and words of what was logged of objects of `kind`."""
    fields = [(record, getattr(record, "fields", {})) for record in caplog.records]
    return [
        (record.levelname, f"{record.getMessage()} {of.get('error', '')}".strip())
        for record, of in fields
        if of.get("kind") == kind.name and of.get("detector") == "shop/gate"
    ]


async def test_a_refusal_is_counted_at_each_look_and_logged_when_it_begins_changes_and_ends(
    caplog: pytest.LogCaptureFixture, reference_of: Callable[[Trace], Any]
) -> None:
    """All writes were refused for an hour; metrics told of no error, and the log of nothing."""
    caplog.set_level(logging.INFO)
    world = (await reference_of(UPDATE)).world()
    await world.settle()
    assert world.operator
    failures, queue = world.operator.counts.failures, world.operator.queue
    assert not failures
    refused = Refused(writes_of(kinds.DEPLOYMENT.plural), times=ALWAYS)
    world.suffer(refused)
    caplog.clear()
    await world.edit(replicas=3)
    for _ in range(20):
        await world.pass_time(30)
    assert lines_about(caplog, kinds.DEPLOYMENT) == [("WARNING", f"refused {refused.message}")]
    assert len(failures) >= 20
    assert set(failures) == {("Forbidden", True)}
    told = queue.describe("shop/gate")
    assert told["nextLookInSeconds"] <= 30
    assert told["lastReconcile"]["result"] == "error"
    assert SAID in told["lastReconcile"]["error"]
    assert "failuresInARow" not in told
    refused.message = "not at night: https://me:secret@hub.test/gate.onnx"
    for _ in range(2):
        await world.pass_time(30)
    world.heal()
    await world.settle()
    rest = lines_about(caplog, kinds.DEPLOYMENT)[1:]
    assert rest == [
        ("WARNING", "refused not at night: https://hub.test/gate.onnx"),
        ("INFO", "applied"),
        ("INFO", "not refused any more"),
    ]
    failures.clear()
    await world.edit(replicas=2)
    await world.settle()
    assert not failures


def deletion_is_refused(world: World) -> None:
    world.suffer(
        Refused(
            lambda call: (call.request.method, call.kind) == ("DELETE", "virtualservices"),
            times=ALWAYS,
        )
    )


def somebody_finishes_it_later(world: World) -> None:
    world.merge(kinds.VIRTUAL_SERVICE, "gate", {"metadata": {"finalizers": ["example.com/x"]}})


def ends(world: World) -> None:
    world.heal()
    world.merge(kinds.VIRTUAL_SERVICE, "gate", {"metadata": {"finalizers": None}})


@pytest.mark.parametrize("stays", [deletion_is_refused, somebody_finishes_it_later])
async def test_a_route_that_stays_keeps_who_it_leads_to(
    stays: Callable[[World], None], reference_of: Callable[[Trace], Any]
) -> None:
    """It was for another router, and went on leading to pods that the next release removed."""
    world = (await reference_of(UPDATE)).world()
    await world.settle()
    old = world.stable()
    stays(world)
    await world.edit(traffic={"provider": "service", "hosts": None, "gateways": None})
    await world.settle(60)
    await UPDATE.step(world)
    await world.settle(60)
    assert not world.unsafe()
    assert ("VirtualService", "gate") in world.children()
    for kind in (kinds.SERVICE, kinds.DESTINATION_RULE):
        assert (kind.name, old) in world.children()
    assert world.children()["Deployment", old]["spec"]["replicas"] == 2
    assert world.condition("Stalled")["status"] == "True"
    assert "VirtualService gate" in world.condition("Released")["message"]
    second = world.stable()
    await world.edit(model={"uri": "demo://shapes-v3"})  # and holds up no release
    await world.settle(120)
    assert world.stable() not in (old, second)
    assert world.children()["Deployment", old]["spec"]["replicas"] == 2
    assert world.children()["Deployment", second]["spec"]["replicas"] == 0
    assert not world.unsafe()
    ends(world)
    await world.settle(120)
    assert ("VirtualService", "gate") not in world.children()
    assert world.stable() != old
    assert world.children()["Deployment", old]["spec"]["replicas"] == 0
    assert not world.unsafe()


async def test_pods_are_isolated_before_they_are_made(
    reference_of: Callable[[Trace], Any],
) -> None:
    kinds_written = [
        write.split()[1].split("/")[0] for write in (await reference_of(CREATE)).writes
    ]
    assert kinds_written.index("networkpolicies") < kinds_written.index("deployments")
