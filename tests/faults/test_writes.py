"""Faults 1, 2 and 3: at every write of every trace, something goes wrong with that write."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from faults.faults import CrashAfter, CrashBefore, LostAnswer, Strike, write
from faults.oracles import Reference, judge
from faults.size import nightly, sample, sized
from faults.stage import Stage
from faults.theatre import Theatre, each
from faults.traces import CREATE, DELETE, PROMOTE, ROLL_BACK, UPDATE, Trace

KILLED = -9

Make = Callable[[int, Stage], Strike]


def crash_after(number: int, stage: Stage) -> Strike:
    return CrashAfter(write(number), kill=stage.operator.kill)


def crash_before(number: int, stage: Stage) -> Strike:
    return CrashBefore(write(number), kill=stage.operator.kill)


def lost_answer(number: int, _stage: Stage) -> Strike:
    return LostAnswer(write(number), status=504 if number % 2 else 0)


TRACES = (CREATE, UPDATE, PROMOTE, ROLL_BACK)
WRITES_TRIED = sized(1, 1000)
"""`tests/memory` tries all of them in seconds; here is shown that a real server does the same."""


SENTINELS = ((crash_after, PROMOTE), (crash_before, UPDATE), (lost_answer, UPDATE))
ALL = [(f, t) for f in (crash_after, crash_before, lost_answer) for t in TRACES]


@pytest.mark.parametrize(
    ("fault", "trace"),
    [(f, t) if (f, t) in SENTINELS else nightly(f, t) for f, t in ALL],
    ids=lambda one: str(one) if isinstance(one, Trace) else one.__name__,
)
async def test_a_fault_at_each_write_changes_nothing_in_the_end(
    theatre: Theatre, fault: Make, trace: Trace
) -> None:
    expected = await theatre.reference(trace)
    numbers = sample(range(1, len(expected.writes) + 1), WRITES_TRIED)
    plays: dict[str, Any] = {
        f"{number} ({expected.writes[number - 1]})": partial(play, theatre, expected, fault, number)
        for number in numbers
    }
    told = await each(plays)
    theatre.results[fault.__name__.replace("_", " "), trace.name].update(
        result if result in PASSED else "failed" for result in told.values()
    )
    wrong = {name: result for name, result in told.items() if result not in PASSED}
    assert not wrong, "\n\n".join(f"write {name}: {result}" for name, result in wrong.items())
    reached = [result for result in told.values() if result == "passed"]
    assert len(reached) * 2 >= len(numbers), told


@pytest.mark.nightly
async def test_a_crash_while_a_detector_goes_leaves_nothing(theatre: Theatre) -> None:
    """Deleting takes no write of ours: there is nothing to be lost, only a process."""
    expected = await theatre.reference(DELETE)
    assert set(expected.writes) <= {"create events"}  # of what was before
    # A child that is heard to go before the detector is is made once more, and goes as well.
    async with theatre.broken("crash while it goes", DELETE, exits=(KILLED,), net=("",)) as stage:
        await stage.delete()
        stage.operator.kill()


PASSED = ("passed", "not reached")
"""A run may need fewer writes than the fault-free one: then there was nothing to go wrong."""


async def play(theatre: Theatre, expected: Reference, make: Make, number: int) -> str:
    async with theatre.stage() as stage:
        await expected.trace.prepare(stage)
        fault = make(number, stage)
        await stage.begin()
        with stage.proxy.suffering(fault):
            await expected.trace.step(stage)
            await judge(stage, expected, exits=(KILLED,))
        return "passed" if fault.struck else "not reached"
