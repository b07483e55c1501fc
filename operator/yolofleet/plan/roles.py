"""The parts that revisions play at a time: what is decided first, and all else goes by."""

from collections.abc import Mapping
from dataclasses import dataclass

from yolofleet.api.analysis import Failed
from yolofleet.plan.capacity import Capacity
from yolofleet.plan.observed import Observed
from yolofleet.plan.rollout import Progress
from yolofleet.workloads.revision import Revision


@dataclass(frozen=True, slots=True)
class Release:
    """Who is who. `wanted` have to run; `former` are kept, with pods until they have drained."""

    stable: str
    target: Revision
    canary: Revision | None
    wanted: tuple[Revision, ...]
    former: tuple[Revision, ...]
    capacity: Capacity
    serving: int  # replicas that carry all requests, whoever has them; 0: nobody is to answer
    progress: Progress | None  # how far the spec's revision is on its way to be the stable one
    failed: Mapping[str, Failed]  # whoever failed, asked for or not
    called_off: Mapping[str, Failed]  # what the spec asks for, and failed: it gets nothing
    instead: tuple[str, ...] = ()  # former ones that answer in the place of a stable one that died
    awaited: tuple[str, ...] = ()  # those that did, while nobody at all is ready: for a moment?
    answering: str | None = None  # whose pods the detector's Service selects; None: those of all

    def staying(self, observed: Observed) -> int:
        """Return the ready replicas of the stable revision, but those that are to go at once."""
        return observed.ready(self.stable) if self.capacity.full else 0
