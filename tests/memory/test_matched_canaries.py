"""A canary that has no weight and answers what matches, of a detector at zero replicas."""

from faults.traces import SPEC
from memory_cluster.world import NAMESPACE, World
from yolofleet.cluster import kinds
from yolofleet.routers import istio

MATCH = [{"headers": {"x-canary": {"exact": "always"}}}]


def canary(version: str) -> dict[str, object]:
    return {"model": {"uri": f"demo://shapes-{version}"}, "weight": 0, "match": MATCH}


def matched(world: World) -> str:
    """Return the revision that answers what matches: nobody, if it has no ready pod."""
    children = world.children()
    name = istio.matched(children[istio.KIND, "gate"]["spec"])
    deployment = children.get(("Deployment", name), {})
    return name if deployment.get("status", {}).get("readyReplicas") else ""


async def test_a_new_model_takes_over_what_matches_once_it_can_answer() -> None:
    world = World()
    await world.settle()
    await world.create(**SPEC | {"canary": canary("v8")})
    await world.settle()
    await world.edit(replicas=0)
    await world.settle()
    first = matched(world)
    assert first == world.status()["canary"]["revision"]

    world.broken.add("demo://shapes-v9")
    await world.edit(canary=canary("v9"))
    await world.settle()
    second = world.status()["canary"]["revision"]
    assert matched(world) == first != second, "nobody else is there to answer"

    world.broken.clear()
    for pod in world.server.all(kinds.POD):
        if pod["metadata"]["labels"]["yolofleet.io/revision"] == second:
            world.remove(kinds.POD, pod["metadata"]["name"])
    await world.settle()
    assert matched(world) == second
    await world.pass_time(60)
    await world.settle()
    stored = world.server.find(kinds.DEPLOYMENT, NAMESPACE, first)
    assert stored["spec"]["replicas"] == 0, "it has drained"
    assert not world.unsafe()
