"""An election whose API server does not answer; who wins one is tests/operator/test_leader.py."""

from typing import Any, cast

import pytest

from yolofleet.runtime import errors, leader
from yolofleet.runtime.client import Client
from yolofleet.runtime.leader import Leader

HELD = {
    "metadata": {"resourceVersion": "7"},
    "spec": {"holderIdentity": "another", "leaseDurationSeconds": 10**9},
}


class World:
    """A standby, one look at the Lease a second, and what each of them is answered."""

    def __init__(self, *answers: errors.ClusterError | dict[str, Any]) -> None:
        self.now, self.answers = 1000.0, list(answers)
        self.leader = Leader(
            cast("Client", self),
            namespace="shop",
            name="lease",
            identity="one",
            manager="ours",
            clock=lambda: self.now,
        )

    async def find(self, *_: object, **__: object) -> dict[str, Any]:
        self.now += 1
        answer = self.answers.pop(0)
        if isinstance(answer, errors.ClusterError):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader, "LOOK_S", 0.0)


async def test_a_standby_that_cannot_prove_the_server_for_a_minute_ends() -> None:
    """The authorities were read at the start; nobody would lead after they were replaced."""
    world = World(*[errors.Untrusted("unable to get local issuer certificate")] * 100)
    with pytest.raises(errors.Untrusted):
        await world.leader.run()
    assert len(world.answers) == 100 - 61


@pytest.mark.parametrize(
    "between", [HELD, errors.Unanswered("gone"), errors.Unauthenticated("no"), errors.Forbidden("")]
)
async def test_what_only_the_server_can_mend_is_waited_for(between: Any) -> None:
    unproved = [errors.Untrusted("expired")] * 59
    world = World(*unproved, between, *unproved, *[between] * 600)
    with pytest.raises(IndexError):
        await world.leader.run()
    assert not world.answers


async def test_a_server_that_does_not_answer_is_told_since_when() -> None:
    world = World(HELD)
    assert not await world.leader._try()
    world.answers = [errors.Unanswered("no connection")] * 9
    while world.answers:
        await world.leader._try()
        assert not world.leader.unheard()
    world.answers = [errors.Unanswered("no connection")] * 2
    await world.leader._try()
    told = world.leader.unheard()
    assert told.startswith("the API server has not answered since 20")
    await world.leader._try()
    assert world.leader.unheard() == told
    world.answers = [errors.Forbidden("who are you?")]
    await world.leader._try()
    assert not world.leader.unheard()
