"""The parts of a process: who notices the end of one, and how they are stopped."""

from __future__ import annotations

import asyncio

from yolofleet.runtime.parts import Parts


async def forever() -> None:
    await asyncio.Event().wait()


async def test_a_part_that_fails_is_noticed_and_named() -> None:
    parts, broken = Parts(), asyncio.Event()

    async def breaks() -> None:
        await broken.wait()
        raise RuntimeError("no more")

    parts.start("steady", forever())
    parts.start("broken", breaks())
    ends = asyncio.create_task(parts.one_ends())
    await asyncio.sleep(0)
    assert (parts.ended(), ends.done()) == ({}, False)
    broken.set()
    await ends
    [(name, error)] = parts.ended().items()
    assert (name, str(error)) == ("broken", "no more")
    await parts.stop_all()


async def test_a_part_that_simply_returns_has_ended_too() -> None:
    parts = Parts()
    parts.start("short", asyncio.sleep(0))
    parts.start("steady", forever())
    await parts.one_ends()
    assert parts.ended() == {"short": None}
    await parts.stop_all()


async def test_only_those_that_are_named_are_stopped_and_their_last_acts_are_waited_for() -> None:
    parts, acts = Parts(), list[str]()

    async def tidies_up() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            acts.append("tidied up")
            raise RuntimeError("even so")

    parts.start("writer", tidies_up())
    parts.start("server", forever())
    await asyncio.sleep(0)
    await parts.stop("writer")
    assert acts == ["tidied up"]
    assert parts.ended().keys() == {"writer"}
    await parts.stop_all()
    assert parts.ended().keys() == {"writer", "server"}
    await parts.stop_all()  # again: nothing is left to stop
