"""The ratchet of replicas during a release: what the new revision gets, what the old one gives up.

Pods never exceed the replicas and the surge, and the old revision gives up only what ready replicas
of the new one have taken over, as the router was seen to have it.
"""

from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True, slots=True)
class Capacity:
    """full: replicas that carry the whole traffic. surge: pods that there may be beyond them."""

    full: int
    surge: int

    @property
    def kept(self) -> int:
        """Replicas that go on serving during a release: all of them, or one less without surge."""
        return self.full if self.surge else max(self.full - 1, 0)


def share_of(ready: int, full: int) -> int:
    """Return the percent of all traffic that `ready` of `full` replicas can carry."""
    return min(100, 100 * ready // max(full, 1)) if ready else 0


def share_rounded_up(ready: int, full: int) -> int:
    """Return what `share_of` leaves to `ready` replicas when the missing ones are elsewhere.

    The same, rounded up: of three replicas one carries 33 and the other two bear 67.
    """
    return 100 - share_of(max(full - ready, 0), full) if ready else 0


def parts(weight: int, full: int) -> int:
    """Return how many of `full` replicas `weight` percent of the traffic amounts to."""
    return next(n for n in range(full, -1, -1) if share_of(n, full) <= weight)


def replicas_for(weight: int, full: int) -> int:
    """Return how many of `full` replicas have to stay for `weight` percent of the traffic."""
    return next((n for n in range(full) if share_rounded_up(n, full) >= weight), full)


def due(capacity: Capacity, goal: int) -> int:
    """Return the replicas that the new revision is due for `goal` percent of the traffic."""
    return capacity.full if goal == 100 else max(1, ceil(capacity.kept * goal / 100))


def incoming(
    capacity: Capacity, goal: int, *, running: int, kept: int, others: int, stuck: bool
) -> int:
    """Return the replicas of the new revision.

    goal: the percent that it is to get. kept: of those that run, which stay although there is no
    room. others: pods that all other revisions have or need. stuck: nothing of the old one is
    ready; then one more pod than the surge allows is the way out.
    """
    allowed = max(capacity.full + capacity.surge - others, int(stuck))
    return min(max(kept, min(max(running, due(capacity, goal)), allowed)), capacity.full)


def outgoing(
    capacity: Capacity, goal: int, *, running: int, ready_new: int, weight_new: int
) -> int:
    """Return the replicas that the old revision keeps while its successor comes.

    weight_new: the percent that the router gives the successor.
    """
    taken = min(parts(weight_new, capacity.kept), ready_new) if capacity.kept else 0
    last = 1 if weight_new < 100 and capacity.kept else 0  # whoever has weight has a pod
    needed = max(capacity.kept - taken, last)
    return min(running, max(needed, capacity.full + capacity.surge - due(capacity, goal)))


def scaled_up(capacity: Capacity, *, running: int, others: int) -> int:
    """Return the replicas of a stable revision that may grow: into the room that others leave."""
    allowed = capacity.full + capacity.surge - others
    return min(capacity.full, max(running, allowed))


def remaining(full: int, *, running: int, weight: int) -> int:
    """Return the replicas of a former revision that still has `weight`: only what that needs.

    Those that are wanted have to find room to grow.
    """
    return min(running, replicas_for(weight, full))
