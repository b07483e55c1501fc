"""etcd is restored from a backup below a running operator: versions begin again from an older."""

import pytest

from faults.traces import SPEC, B
from memory_cluster.world import World
from yolofleet.runtime.errors import WentBack


async def restored(writes_since: int) -> World:
    """Return a world whose store went back over an edit, and what others have written since."""
    world = World()
    await world.settle()
    await world.create(**SPEC)
    await world.settle()
    objects, version = dict(world.server.objects), world.server.version
    await world.edit(model=B)
    await world.settle()
    assert world.operator
    world.server.objects, world.server.version = objects, version + writes_since
    world.operator._heard = len(world.server.history)
    return world


@pytest.mark.parametrize("writes_since", [0, 10_000])
async def test_the_operator_begins_anew_and_is_deaf_to_nothing(writes_since: int) -> None:
    world = await restored(writes_since)
    assert world.operator
    with pytest.raises(WentBack, match="list of"):
        await world.operator.resync()
    world.operator = None  # its process has ended
    await world.edit(replicas=3)
    await world.settle()
    assert world.condition("Released")["status"] == "True"
    assert world.status()["observedGeneration"] == 2
