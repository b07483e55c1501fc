"""At every write of every trace something goes wrong; in the end nothing is wrong."""

from collections.abc import Callable
from typing import Any

import pytest

from faults.traces import CREATE, DELETE, PROMOTE, ROLL_BACK, UPDATE, Trace
from memory_cluster.at_a_write import AT_A_WRITE, CRASH_BEFORE, Make
from memory_cluster.faults import (
    FailedAfter,
    LostBefore,
    Refused,
    Slow,
    SlowAnswer,
    Then,
    write,
)

FAULTS: dict[str, Make] = AT_A_WRITE | {
    "conflict": lambda number, _: Refused(write(number), code=409),
    "slow": lambda number, world: Slow(write(number), meanwhile=world.go_on_a_little),
    "slow answer": lambda number, world: SlowAnswer(write(number), meanwhile=world.go_on_a_little),
    "forgotten line": lambda number, world: Then(write(number), act=world.forget(1)),
}
RELATED: dict[str, Make] = {
    "invalid": lambda number, _: Refused(write(number), code=422),
    "unknown": lambda number, _: Refused(write(number), code=401),
    "throttled": lambda number, _: Refused(write(number), code=429),
    "lost before": lambda number, _: LostBefore(write(number)),
    "failed after": lambda number, _: FailedAfter(write(number)),
}
"""Told apart by one line of `errors`: one trace shows that they end as their kind does."""

EVENT = "create events"  # one of them is like all others
TRACES = (CREATE, UPDATE, PROMOTE, ROLL_BACK, DELETE)


@pytest.mark.parametrize(
    ("fault", "trace"),
    [
        *((fault, trace) for fault in FAULTS for trace in TRACES),
        *(
            pytest.param(fault, trace, marks=[pytest.mark.nightly] if trace != UPDATE else [])
            for fault in RELATED
            for trace in TRACES
        ),
    ],
    ids=str,
)
async def test_a_fault_at_any_write_changes_nothing_in_the_end(
    fault: str, trace: Trace, reference_of: Callable[[Trace], Any]
) -> None:
    expected = await reference_of(trace)
    wrong: dict[str, list[str]] = {}
    events = [n for n, usual in enumerate(expected.writes, 1) if EVENT in usual][:1]
    for number, usual in enumerate(expected.writes, start=1):
        if EVENT in usual and number not in events:
            continue
        # Only where a pass begins; elsewhere it is the crash after the write before.
        if fault == CRASH_BEFORE and not expected.begins(number):
            continue
        world = expected.before(number)
        made = (FAULTS | RELATED)[fault](number, world)
        world.client.faults = [made]
        await world.settle()
        assert made.struck, f"write {number} was never reached"
        if told := expected.judge(world):
            wrong[f"{number} ({usual})"] = told
    assert not wrong, "\n".join(f"write {name}: {told}" for name, told in wrong.items())
