"""Users, strangers and a failing API server in any order: nothing unapproved, unsafe or untrue."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from faults.oracles import differences
from faults.size import WHOLE, sized
from faults.stage import NAME
from faults.traces import SPEC
from memory_cluster.faults import (
    ALWAYS,
    CrashAfter,
    CrashBefore,
    FailedAfter,
    Fault,
    LostAfter,
    LostBefore,
    Refused,
    Then,
    writes_of,
)
from memory_cluster.faults import write as numbered
from memory_cluster.world import NAMESPACE, World
from yolofleet.cluster import kinds

MODELS = [{"uri": f"demo://shapes{version}"} for version in ("", "-v2", "-v3")]
APPROVAL = [{"weight": 10, "hold": "Approval"}]
WALKS = (APPROVAL, [*APPROVAL, {"weight": 50, "hold": "10s"}])
FAULTS: dict[str, Callable[[Callable[..., bool]], Fault]] = {
    "forbidden": lambda which: Refused(which),
    "conflict": lambda which: Refused(which, code=409),
    "failed": lambda which: Refused(which, code=500),
    "failed after": FailedAfter,
    "lost before": LostBefore,
    "lost after": LostAfter,
    "crash before": CrashBefore,
    "crash after": CrashAfter,
}
CHILDREN = {kind.name: kind for kind in kinds.CHILDREN}
BY_HAND = {
    "Deployment": {"spec": {"replicas": 7}},
    "NetworkPolicy": {"spec": {"ingress": [{}]}},
    "VirtualService": {"spec": {"hosts": ["elsewhere.example.com"]}},
    "Service": {"spec": {"selector": {"app": "another"}}},
}


class AnyStory(RuleBasedStateMachine):
    """One detector's life, with a release that waits for a person."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.world = World()
        self.released = {""}
        self.approved = ""

    def do(self, what: Awaitable[Any]) -> None:
        async def done() -> None:
            await what

        self.runner.run(done())

    @initialize(replicas=st.integers(1, 3), steps=st.sampled_from(WALKS))
    def begin(self, replicas: int, steps: list[dict[str, Any]]) -> None:
        rollout = {"strategy": "Canary", "steps": steps}
        self.do(self.world.settle())
        self.do(self.world.create(**SPEC | {"replicas": replicas, "rollout": rollout}))
        self.do(self.world.settle())
        self.released |= {self.pointer()}
        assert len(self.released) == 2
        self.world.suffer()

    def pointer(self) -> str:
        return str((self.world.status().get("stable") or {}).get("revision", ""))

    # a user

    @rule(model=st.sampled_from(MODELS))
    def update(self, model: dict[str, str]) -> None:
        self.do(self.world.edit(model=model))

    @rule(model=st.sampled_from(MODELS), weight=st.sampled_from([0, 5, 10]))
    def try_a_canary(self, model: dict[str, str], weight: int) -> None:
        self.do(self.world.edit(canary={"model": model, "weight": weight}))

    @rule(promoted=st.booleans())
    def end_the_canary(self, promoted: bool) -> None:
        spec = (self.world.detector() or {})["spec"]
        model = spec["canary"]["model"] if promoted and "canary" in spec else spec["model"]
        self.do(self.world.edit(model=model, canary=None))

    @rule()
    def approve(self) -> None:
        """Let pass what waits, as the message of the condition says to do."""
        status = self.world.status()
        waiting = (status.get("rollout") or {}).get("revision") or ""
        if waiting:
            self.approved = waiting
            approved = {"revision": waiting, "step": 1}
            self.do(self.world.edit(rollout={"approved": approved}))

    @rule(models=st.permutations(MODELS))
    def another_follows_one_that_was_approved(self, models: list[dict[str, str]]) -> None:
        """Chance seldom lets both come to rest."""
        self.all_is_well_again()
        self.world.broken = set()
        approved, following, _ = models
        self.update(approved)
        self.settle(400.0)
        self.approve()
        self.settle(400.0)
        self.nothing_unapproved_is_stable()
        self.update(following)
        self.settle(400.0)

    @rule(replicas=st.integers(0, 3))
    def scale(self, replicas: int) -> None:
        self.do(self.world.edit(replicas=replicas))

    # what goes wrong

    @rule(kind=st.sampled_from(sorted(FAULTS)), number=st.integers(1, 8))
    def a_write_goes_wrong(self, kind: str, number: int) -> None:
        number += len(self.world.client.calls)
        self.world.client.faults.append(FAULTS[kind](numbered(number)))

    @rule(kind=st.sampled_from(sorted(CHILDREN)), code=st.sampled_from([403, 500]))
    def a_kind_is_refused(self, kind: str, code: int) -> None:
        which = writes_of(CHILDREN[kind].plural)
        self.world.client.faults.append(Refused(which, times=ALWAYS, code=code))

    @rule(lines=st.integers(1, 8), number=st.integers(1, 8))
    def lines_of_watches_are_lost(self, lines: int, number: int) -> None:
        number += len(self.world.client.calls)
        forget = self.world.forget(lines)
        self.world.client.faults.append(Then(numbered(number), act=forget))

    @rule()
    def all_is_well_again(self) -> None:
        self.world.heal()

    @rule(model=st.sampled_from(MODELS))
    def break_or_mend(self, model: dict[str, str]) -> None:
        self.world.broken ^= {f'"{model["uri"]}"'}

    @rule()
    def the_operator_is_killed(self) -> None:
        self.world.operator = None

    # others

    @rule(kind=st.sampled_from(sorted(CHILDREN)), number=st.integers(0, 3))
    def a_child_is_deleted(self, kind: str, number: int) -> None:
        if names := self.named(kind):
            self.world.remove(CHILDREN[kind], names[number % len(names)])
            self.meddled()

    @rule(kind=st.sampled_from(sorted(BY_HAND)), number=st.integers(0, 3))
    def a_child_is_edited(self, kind: str, number: int) -> None:
        if names := self.named(kind):
            self.world.merge(CHILDREN[kind], names[number % len(names)], BY_HAND[kind])
            self.meddled()

    @rule()
    def the_detector_is_restored_over_what_it_left(self) -> None:
        spec = (self.world.detector() or {})["spec"]
        self.world.remove(kinds.DETECTOR, NAME, policy="Orphan")
        self.do(self.world.create(**spec))
        self.meddled()

    def named(self, kind: str) -> list[str]:
        return sorted(name for k, name in self.world.children() if k == kind)

    def meddled(self) -> None:
        """Others did what is unsafe: what follows is judged once all has come to rest."""
        self.judged = False

    judged = True

    # time

    @rule()
    def work(self) -> None:
        self.do(self.world.pass_time(1.0))

    @rule(seconds=st.sampled_from([15.0, 400.0]))
    def settle(self, seconds: float) -> None:
        self.do(self.world.settle(seconds))
        if not self.judged and not self.world.client.faults:
            self.world.since = len(self.world.server.history)
            self.judged = True

    # what holds

    @invariant()
    def nobody_was_surprised(self) -> None:
        assert not self.world.failures

    @invariant()
    def nothing_unapproved_is_stable(self) -> None:
        """What all traffic has been to before needs no other approval."""
        now = self.pointer()
        assert now in self.released | {self.approved}, f"{now} took over"
        self.released |= {now}

    @precondition(lambda self: self.judged)
    @invariant()
    def nothing_was_unsafe(self) -> None:
        assert not self.world.unsafe()

    def teardown(self) -> None:
        """Once everything is well, it ends as if nothing had ever been wrong."""
        with self.runner:
            if len(self.released) > 1:
                self.ends_well()

    def ends_well(self) -> None:
        world = self.world
        world.heal()
        world.broken = set()
        self.do(world.edit(canary=None, replicas=2))
        self.do(world.settle())
        self.approve()
        self.do(world.settle())
        assert not world.restless
        assert not world.failures
        self.says_what_is()
        fresh = World()
        self.do(fresh.settle())
        self.do(fresh.create(**(world.detector() or {})["spec"]))
        self.do(fresh.settle())
        expected = _of_no_age(fresh)
        found = {name: one for name, one in _of_no_age(world).items() if name in expected}
        assert differences(expected, found) == []

    def says_what_is(self) -> None:
        world = self.world
        raw, status = world.detector() or {}, world.status()
        assert status["observedGeneration"] == raw["metadata"]["generation"]
        conditions = {c["type"]: c["status"] for c in status["conditions"]}
        assert conditions["Ready"] == conditions["Released"] == "True", status["conditions"]
        for serving in status["revisions"]:
            deployment = world.server.find(kinds.DEPLOYMENT, NAMESPACE, serving["name"]) or {}
            available = deployment.get("status", {}).get("availableReplicas", 0)
            assert serving["ready"] == available


def _of_no_age(world: World) -> dict[str, Any]:
    """Return a world's objects without the count of the revisions that came before each."""
    return {
        name: {k: v for k, v in one.items() if k != "revision"}
        for name, one in world.state().items()
    }


AnyStory.TestCase.settings = settings(
    max_examples=sized(60, 2000),
    stateful_step_count=25,
    deadline=None,
    derandomize=not WHOLE,
    phases=set(Phase) - {Phase.shrink},
)
TestAnyStory = AnyStory.TestCase
