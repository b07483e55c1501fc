"""What a world may suffer at one of its writes: a table of faults for the tests that try each."""

from collections.abc import Callable
from typing import Final

from memory_cluster.faults import CrashAfter, CrashBefore, Fault, LostAfter, Refused, Then, write
from memory_cluster.world import World

Make = Callable[[int, World], Fault]
"""Makes the fault that a world suffers at the write of that number."""

CRASH_BEFORE: Final = "crash before"
AT_A_WRITE: Final[dict[str, Make]] = {
    "refused": lambda number, _: Refused(write(number)),
    "failed before": lambda number, _: Refused(write(number), code=500),
    "lost after": lambda number, _: LostAfter(write(number)),
    CRASH_BEFORE: lambda number, _: CrashBefore(write(number)),
    "crash after": lambda number, _: CrashAfter(write(number)),
    "forgotten lines": lambda number, world: Then(write(number), act=world.forget(8)),
}
