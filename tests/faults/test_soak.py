"""Fault 24: all of it, in an order that nobody chose. The seed is in the table at the end."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from faults.faults import (
    CrashAfter,
    CrashBefore,
    Held,
    HeldLines,
    LostAnswer,
    Refused,
    Strike,
    any_call,
    any_write,
    of,
)
from faults.proxy import Fault, event_line, status_object
from faults.size import SEED, nightly, sized
from faults.stage import LEASE, NAME, Stage
from faults.theatre import Theatre
from faults.traces import SPEC, A, B, Trace, create, nothing
from yolofleet.cluster import kinds
from yolofleet.runtime import kind as api

Dice = random.Random
Mishap = Callable[[Stage, Dice], Awaitable[None]]

STEPS = sized(6, 150)
SOAKS = sized(1, 4)
C = {"uri": "https://models.example.com/c.onnx"}
LAST = {"revisionHistory": 0, "canary": None, **SPEC}
AT_LAST = Trace("soak", (create(revisionHistory=0),), nothing)
ABSENT = (
    "nodes",
    "httproutes",
    "podmonitors",
    "scaledobjects",
    "resourceclaimtemplates",
    "rayservices",
)
WATCHED = [kind.plural for kind in kinds.CACHED if kind.plural not in ABSENT]


async def suffer(stage: Stage, fault: Fault, seconds: float) -> None:
    with stage.proxy.suffering(fault):
        await asyncio.sleep(seconds)


async def strike(stage: Stage, fault: Strike) -> None:
    """Wait for a write to go wrong, if there is one."""
    with stage.proxy.suffering(fault):
        for _ in range(40):
            if fault.struck:
                break
            await asyncio.sleep(0.05)


async def crash_after(stage: Stage, _dice: Dice) -> None:
    await strike(stage, CrashAfter(any_write, kill=stage.operator.kill))


async def crash_before(stage: Stage, _dice: Dice) -> None:
    await strike(stage, CrashBefore(any_write, kill=stage.operator.kill))


async def lose_answer(stage: Stage, dice: Dice) -> None:
    await strike(stage, LostAnswer(any_write, status=dice.choice([0, 504])))


async def storm(stage: Stage, dice: Dice) -> None:
    status = dice.choice([429, 500, 503])
    of_its_own = random.Random(dice.random())  # how many requests there are is chance
    await suffer(stage, Refused(any_call, status=status, share=0.4, dice=of_its_own), 2)


async def deafen(stage: Stage, dice: Dice) -> None:
    kind = dice.choice(WATCHED)
    held = Held(of(kind, "watch", "list"), times=1_000_000)
    stage.proxy.cut(kind)
    await suffer(stage, held, 2)
    held.release()


async def delay(stage: Stage, dice: Dice) -> None:
    held = HeldLines(of(dice.choice(WATCHED)))
    await suffer(stage, held, 2)
    held.release()


async def cut(stage: Stage, _dice: Dice) -> None:
    stage.proxy.cut()


async def expire(stage: Stage, dice: Dice) -> None:
    code = dice.choice([410, 500])
    await stage.proxy.tell(dice.choice(WATCHED), event_line("ERROR", status_object(code, "X")))


async def freeze(stage: Stage, _dice: Dice) -> None:
    stage.operator.signal(signal.SIGSTOP)
    await asyncio.sleep(2)
    stage.operator.signal(signal.SIGCONT)


async def restart(stage: Stage, _dice: Dice) -> None:
    stage.operator.signal(signal.SIGTERM)


async def lose_lease(stage: Stage, _dice: Dice) -> None:
    await stage.kube.delete(api.LEASE, stage.namespace, LEASE)


async def delete_a_child(stage: Stage, dice: Dice) -> None:
    children = list((await stage.children()).values())
    if children:
        child = dice.choice(children)
        await stage.kube.delete(api.kind_of(child), stage.namespace, child["metadata"]["name"])


async def steal_the_route(stage: Stage, _dice: Dice) -> None:
    if await stage.kube.find(kinds.VIRTUAL_SERVICE, stage.namespace, NAME):
        stolen = [{"route": [{"destination": {"host": "thief"}, "weight": 100}]}]
        patch = {"spec": {"http": stolen}}
        await stage.kube.merge(kinds.VIRTUAL_SERVICE, stage.namespace, NAME, patch)


MISHAPS: list[Mishap] = [
    crash_after, crash_before, lose_answer, storm, deafen, delay, cut, expire, freeze, restart,
    lose_lease,
]  # fmt: skip
MEDDLING: list[Mishap] = [delete_a_child, steal_the_route]


async def edit(stage: Stage, dice: Dice) -> None:
    """Do what a user may do at any time: another model, more replicas, a canary, none."""
    model, other = dice.sample([A, B, C], 2)
    canary: Any = dice.choice([None, {"model": other, "weight": dice.randint(0, 100)}])
    await stage.edit(canary=None)
    await stage.edit(model=model, replicas=dice.randint(1, 3), canary=canary)


@pytest.mark.parametrize("number", range(SOAKS))
@pytest.mark.parametrize("meddling", [False, nightly(True)], ids=["faults", "faults-and-meddling"])
async def test_24_a_random_schedule(theatre: Theatre, meddling: bool, number: int) -> None:
    """Whatever happened, the last edit wins; without others' writes nothing is ever unsafe."""
    dice = random.Random(f"{SEED} {number} {meddling}")
    mishaps = MISHAPS + (2 * MEDDLING if meddling else [])
    label = f"24 soak of {STEPS}, seed {SEED}{', meddling' if meddling else ''}"
    history: list[str] = []
    ends = (0, 1, -9, -15)  # -15: asked to go before it could hear that
    judging = {"counts": False, "safe": not meddling, "exits": ends}
    try:
        async with theatre.broken(label, AT_LAST, **judging) as stage:
            for step in range(STEPS):
                mishap = dice.choice(mishaps)
                history.append(mishap.__name__)
                await asyncio.gather(mishap(stage, dice), edit(stage, dice))
                await asyncio.sleep(dice.random() * 2)
                if step % 5 == 4:
                    await stage.settled()
            await stage.edit(**LAST)
    except AssertionError as error:
        raise AssertionError(f"seed {SEED}, after {history}:\n{error}") from None
