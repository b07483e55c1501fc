"""Worlds prepared once for each trace, and what the trace does where nothing goes wrong."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from faults.oracles import counted, differences
from faults.traces import Trace
from memory_cluster.world import World
from yolofleet.cluster import kinds
from yolofleet.runtime.kind import EVENT


@dataclass(frozen=True)
class Reference:
    """A world where a trace's step comes next, and what that does without a fault.

    moments: the world each time that nobody was in the middle of anything, from the step on.
    """

    prepared: World
    moments: tuple[World, ...]
    state: dict[str, Any]
    writes: tuple[str, ...]
    made: Counter[str]
    gone: Counter[str]

    def world(self) -> World:
        """Return a copy of the world before the step; its operator is about to start."""
        return self.prepared.fork()

    def before(self, number: int) -> World:
        """Return a copy of the last moment before the write `number` of the step."""
        return next(w for w in reversed(self.moments) if len(w.writes()) < number).copy()

    def begins(self, number: int) -> bool:
        """Return whether the write `number` is the first one after a moment."""
        return any(len(world.writes()) == number - 1 for world in self.moments)

    def judge(self, world: World, *, counts: bool = True) -> list[str]:
        """Return what is wrong with what happened in `world` since its faults were set."""
        wrong = [f"end: {told}" for told in differences(self.state, world.state())]
        if counts:
            for type, usual in (("ADDED", self.made), ("DELETED", self.gone)):
                found = _counted(world, type)
                names = sorted(found.keys() | usual.keys())
                wrong += [
                    f"{type} {name} {found[name]} times, not {usual[name]}"
                    for name in names
                    if found[name] != usual[name]
                ]
        wrong += [f"at rest: {told}" for told in world.restless]
        wrong += [f"unsafe: {told}" for told in world.unsafe()]
        wrong += [f"unexpected: {told}" for told in world.failures]
        return wrong


_UNCOUNTED = (EVENT, kinds.PDB)
"""Who looks at the right moment has a budget for a revision that is about to be stable."""


def _counted(world: World, type: str) -> Counter[str]:
    return counted((seen for seen in world.happened() if seen.kind not in _UNCOUNTED), type)


_references: dict[str, Reference] = {}


async def reference(trace: Trace) -> Reference:
    """Play `trace` without a fault, once."""
    if trace.name not in _references:
        world = World()
        await world.settle()
        for step in trace.before:
            await step(world)
            await world.settle()
        prepared = world.fork()
        world = prepared.fork()
        await world.settle()  # the new operator finds nothing to do
        assert not world.writes()
        world.suffer()
        await trace.step(world)
        moments: list[World] = []
        await world.settle(between=lambda: moments.append(world.copy()))
        found = Reference(
            prepared,
            tuple(moments),
            world.state(),
            tuple(world.writes()),
            _counted(world, "ADDED"),
            _counted(world, "DELETED"),
        )
        assert not (wrong := found.judge(world)), wrong
        _references[trace.name] = found
    return _references[trace.name]


@pytest.fixture
def reference_of() -> Callable[[Trace], Any]:
    """`await reference_of(trace)`."""
    return reference
