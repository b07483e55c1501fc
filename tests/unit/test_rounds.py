"""Who is looked at when: each in its interval, beside all others, whatever one of them does."""

import asyncio
from collections import Counter

import pytest

from yolofleet.cluster.rounds import Rounds

EVERY_S = {"gate": 10.0, "yard": 30.0}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_each_is_looked_at_in_its_interval(clock: Clock) -> None:
    looks: Counter[str] = Counter()

    async def look(key: str, _whom: str) -> None:
        looks[key] += 1

    rounds = Rounds(look, EVERY_S.__getitem__, clock=clock)
    for key in EVERY_S:
        rounds.begin(key, key)
    while clock.now < 60:
        await rounds.look_at_due()
        wait = rounds.next_look_s()
        assert wait
        clock.now += wait
    assert looks == {"gate": 6, "yard": 2}


async def test_a_look_that_raises_ends_no_other_and_comes_again(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    looks: list[str] = []

    async def look(key: str, _whom: str) -> None:
        looks.append(key)
        if key == "gate":
            raise ZeroDivisionError

    rounds = Rounds(look, lambda _: 10.0, clock=clock)
    rounds.begin("gate", "gate")
    rounds.begin("yard", "yard")
    await rounds.look_at_due()
    clock.now = 10.0
    await rounds.look_at_due()
    assert sorted(looks) == ["gate", "gate", "yard", "yard"]
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == (
        [ZeroDivisionError] * 2
    )


async def test_one_that_takes_longer_than_its_interval_has_no_second_look_beside(
    clock: Clock,
) -> None:
    began, goes_on, looks = asyncio.Event(), asyncio.Event(), 0

    async def look(_key: str, _whom: str) -> None:
        nonlocal looks
        looks += 1
        began.set()
        await goes_on.wait()

    rounds = Rounds(look, lambda _: 10.0, clock=clock)
    rounds.begin("gate", "gate")
    first = asyncio.create_task(rounds.look_at_due())
    await began.wait()
    clock.now = 25.0
    assert rounds.next_look_s() is None
    await rounds.look_at_due()
    assert looks == 1
    goes_on.set()
    await first
    assert rounds.next_look_s() == 0.0


async def test_who_begins_anew_is_due_at_once_and_who_ended_never(clock: Clock) -> None:
    async def look(_key: str, _whom: str) -> None:
        return None

    rounds = Rounds(look, lambda _: 10.0, clock=clock)
    rounds.begin("gate", "one")
    await rounds.look_at_due()
    rounds.begin("gate", "two")
    assert (rounds.get("gate"), rounds.next_look_s()) == ("two", 0.0)
    rounds.end("gate")
    assert (rounds.get("gate"), rounds.next_look_s()) == (None, None)
