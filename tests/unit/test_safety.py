"""The oracle of faults: a write is judged by what its author could know, however late it comes."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from faults import heard, safety
from faults.heard import Heard
from faults.history import Seen
from faults.stage import NAME
from yolofleet.api.names import KIND, REVISION_LABEL, Manifest
from yolofleet.cluster import kinds
from yolofleet.runtime.kind import Kind

OLD, NEW = "gate-old", "gate-new"
LONG_S = 60.0
"""A machine that does many things at once brings a write so late."""


@dataclass
class Story:
    """What happened, and what the author of each write had heard of."""

    seen: list[Seen] = field(default_factory=list)
    heard: dict[int, Heard] = field(default_factory=dict)
    at: float = 0.0

    def happens(self, kind: Kind, name: str, spec: Any, **more: Any) -> int:
        version = len(self.seen) + 1
        metadata = {"name": name, "uid": name, "resourceVersion": str(version)}
        manifest: Manifest = {"kind": kind.name, "metadata": metadata, "spec": spec, **more}
        known = {(one.kind, one.name) for one in self.seen}
        type_ = "MODIFIED" if (kind, name) in known else "ADDED"
        self.seen.append(Seen(version, self.at, type_, kind, manifest))
        return version

    def asks(self, replicas: int) -> int:
        return self.happens(kinds.DETECTOR, NAME, {"replicas": replicas})

    def ready(self, revision: str, replicas: int) -> int:
        status = {"availableReplicas": replicas}
        spec = {"replicas": 2, "template": {}}
        return self.happens(kinds.DEPLOYMENT, revision, spec, status=status)

    def routes(self, **weights: int) -> int:
        to = [
            {"destination": {"host": name.replace("_", "-")}, "weight": weight}
            for name, weight in weights.items()
        ]
        return self.happens(kinds.VIRTUAL_SERVICE, NAME, {"http": [{"route": to}]})

    def selects(self, revision: str) -> int:
        return self.happens(kinds.SERVICE, NAME, {"selector": {REVISION_LABEL: revision}})

    def now(self) -> Heard:
        latest = {(one.kind, one.name): one.manifest for one in self.seen}
        return heard.read(heard.written(latest.values()))

    def problems(self) -> list[str]:
        return safety.problems(self.seen, heard=self.heard)


@pytest.fixture
def story() -> Story:
    """Return one where OLD serves with two replicas, NEW is ready too, and nothing leads there."""
    one = Story()
    one.asks(2)
    for name in (OLD, NEW):
        one.ready(name, 2)
        one.happens(kinds.SERVICE, name, {})
        one.happens(kinds.DESTINATION_RULE, name, {})
    one.selects(OLD)
    one.routes(gate_old=100, gate_new=0)
    return one


def test_what_is_written_down_of_versions_is_read_back(story: Story) -> None:
    assert story.now() == {
        f"{KIND}/{NAME}": 1,
        f"Deployment/{OLD}": 2,
        f"Deployment/{NEW}": 5,
    }
    assert heard.read("") == {}


def test_a_write_that_comes_late_is_judged_by_what_its_author_had_heard(story: Story) -> None:
    known = story.now()
    story.ready(NEW, 0)
    story.at += LONG_S
    story.heard[story.routes(gate_old=50, gate_new=50)] = known
    story.heard[story.selects(NEW)] = known
    assert story.problems() == []


def test_who_had_heard_that_nothing_is_ready_may_not_lead_there(story: Story) -> None:
    story.ready(NEW, 0)
    story.heard[story.routes(gate_old=50, gate_new=50)] = story.now()
    story.heard[story.selects(NEW)] = story.now()
    assert [told.split(",")[0] for told in story.problems()] == [
        f"I1 50 % to {NEW}",
        f"I5 the Service moved from {OLD} to {NEW}",
    ]


def test_so_for_fewer_that_are_ready_and_more_that_are_asked_for(story: Story) -> None:
    known = story.now()
    story.asks(4)
    story.ready(OLD, 4)
    story.at += LONG_S
    late = story.routes(gate_old=10, gate_new=90)
    story.heard[late] = known
    assert story.problems() == []
    story.heard[late] = story.now()
    [told] = story.problems()
    assert told.startswith(f"I1 90 % to {NEW}, whose ready replicas carry 50 %")


def test_what_is_there_by_now_was_not_too_early(story: Story) -> None:
    story.ready(NEW, 0)
    known = story.now()
    story.ready(NEW, 2)
    story.heard[story.routes(gate_old=50, gate_new=50)] = known
    assert story.problems() == []


def test_where_it_is_not_known_a_moment_is_excused_and_no_more(story: Story) -> None:
    story.ready(NEW, 0)
    story.at += safety.STALE_S / 2
    story.routes(gate_old=50, gate_new=50)
    assert story.problems() == []
    story.routes(gate_old=100, gate_new=0)
    story.at += LONG_S
    story.routes(gate_old=50, gate_new=50)
    assert len(story.problems()) == 1
