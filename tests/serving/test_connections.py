"""Who has a place, and who makes room: without a socket."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from starlette.requests import HTTPConnection

from yoloserve.errors import Overloaded
from yoloserve.http.dependencies import named
from yoloserve.scheduling.admission import Places
from yoloserve.scheduling.connections import (
    AT_THE_DOOR,
    READ_WITHIN_S,
    Connections,
    Cut,
    network_of,
)


@dataclass(eq=False)
class Caller:
    cuts: int = 0

    def cut(self) -> None:
        self.cuts += 1


@dataclass
class Crowd:
    places: Connections = field(init=False)
    cuts: list[Cut] = field(default_factory=list)
    now: float = 0
    pace: float = READ_WITHIN_S  # between one and the next

    def __post_init__(self) -> None:
        self.places = Connections(16, self.cuts.append, lambda: self.now)

    def come(self, client: str, *, asks: bool = False, rests: bool = False) -> Caller:
        caller = Caller()
        self.places.enter(caller, client)
        if asks or rests:
            self.places.asks(caller)
        if rests:
            self.places.rests(caller)
        self.now += self.pace
        return caller

    def has_place(self, caller: Caller) -> bool:
        return caller in self.places._client_of


@pytest.fixture
def crowd() -> Crowd:
    return Crowd()


def test_while_there_are_places_nobody_makes_room(crowd: Crowd) -> None:
    callers = [crowd.come(f"client-{n}") for n in range(16)]
    assert all(crowd.has_place(caller) for caller in callers)
    assert crowd.cuts == []


def test_one_gateway_in_front_of_all_clients_has_nearly_all_places(crowd: Crowd) -> None:
    busy = [crowd.come("gateway", asks=True) for _ in range(14)]
    assert all(crowd.has_place(caller) for caller in busy)
    late = crowd.come("gateway")
    assert not crowd.has_place(late)  # the last two are for others
    assert late.cuts == 0  # it is heard, as a probe might be
    others = [crowd.come("kubelet", asks=True), crowd.come("prometheus", asks=True)]
    assert all(crowd.has_place(caller) for caller in others)
    assert crowd.cuts == []


def test_a_gateway_makes_room_for_itself_by_what_it_left_idle_for_longest(crowd: Crowd) -> None:
    busy = [crowd.come("gateway", asks=True) for _ in range(12)]
    first, second = (crowd.come("gateway", rests=True) for _ in range(2))
    assert crowd.has_place(crowd.come("gateway", asks=True))
    assert (first.cuts, second.cuts) == (1, 0)
    assert not any(caller.cuts for caller in busy)


def test_a_stranger_with_all_places_idle_keeps_nobody_out(crowd: Crowd) -> None:
    for _ in range(40):
        crowd.come("stranger", rests=True)
    camera = [crowd.come("camera", asks=True) for _ in range(14)]
    assert all(crowd.has_place(caller) for caller in camera)
    assert set(crowd.cuts) == {Cut.MADE_ROOM}
    assert not crowd.has_place(crowd.come("camera", asks=True))
    assert crowd.has_place(crowd.come("another", asks=True))


def test_who_never_asked_anything_makes_room_before_who_was_answered(crowd: Crowd) -> None:
    idle = [crowd.come("gateway", rests=True) for _ in range(13)]
    silent = [crowd.come("stranger") for _ in range(3)]
    for caller in silent:
        assert crowd.has_place(crowd.come("another", asks=True))
        assert caller.cuts == 1
    assert not any(caller.cuts for caller in idle)


def test_nobody_of_a_burst_is_ended_before_it_could_be_read(crowd: Crowd) -> None:
    crowd.pace = 0  # all of it is accepted before any of it is read
    burst = [crowd.come("gateway") for _ in range(14 + AT_THE_DOOR)]
    assert not any(caller.cuts for caller in burst)
    assert [crowd.has_place(caller) for caller in burst] == [True] * 14 + [False] * AT_THE_DOOR
    crowd.now += READ_WITHIN_S
    assert crowd.has_place(crowd.come("gateway"))  # they had their time, and said nothing
    assert burst[0].cuts == 1


def test_a_burst_displaces_no_more_idle_ones_than_it_leaves(crowd: Crowd) -> None:
    idle = [crowd.come("gateway", rests=True) for _ in range(16)]
    crowd.pace = 0
    for _ in range(40):
        crowd.come("stranger")
    assert sum(caller.cuts for caller in idle) == 8


def test_all_that_wait_at_the_door_leave_a_file_for_each_place(crowd: Crowd) -> None:
    crowd.pace = 0
    for _ in range(14 + 2 + AT_THE_DOOR):  # the last two places are not for the gateway
        crowd.come("gateway")
    assert crowd.cuts == []
    others = [crowd.come("kubelet"), crowd.come("prometheus")]
    assert all(crowd.has_place(caller) for caller in others)
    assert crowd.cuts == [Cut.FULL] * 2


def test_who_asks_again_is_idle_no_more(crowd: Crowd) -> None:
    first, second, *_ = (crowd.come(f"client-{n}", rests=True) for n in range(16))
    crowd.places.asks(first)
    crowd.come("late")
    assert (first.cuts, second.cuts) == (0, 1)


def test_strangers_at_the_door_keep_no_probe_from_being_heard(crowd: Crowd) -> None:
    for n in range(16):
        crowd.come(f"busy-{n}", asks=True)
    strangers = [crowd.come("stranger") for _ in range(3 * AT_THE_DOOR)]
    probe = crowd.come("kubelet", asks=True)
    assert probe.cuts == 0
    assert sum(caller.cuts for caller in strangers) >= 2 * AT_THE_DOOR
    assert len(crowd.places._door) + len(crowd.places._heard) <= AT_THE_DOOR


def test_who_has_left_is_forgotten_however_often_it_leaves(crowd: Crowd) -> None:
    callers = [crowd.come(f"client-{n % 3}", asks=n % 2 == 0, rests=n % 4 == 0) for n in range(60)]
    for caller in callers * 2:
        crowd.places.leave(caller)
    places = crowd.places
    assert places.open == 0
    for left in (places._held, places._door, places._heard, places._silent, places._idle):
        assert not left
    assert not places._line_of


@pytest.mark.parametrize(
    ("address", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:2", True),  # one host has as many as it likes
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("fe80::1%eth0", "fe80::2", True),
        ("no:address", "no:other", False),
        ("", "10.0.0.1", False),
    ],
)
def test_a_client_is_an_address_or_a_network_of_one(address: str, other: str, same: bool) -> None:
    assert (network_of(address) == network_of(other)) is same


async def test_who_has_no_name_is_the_network_it_comes_from() -> None:
    settings = SimpleNamespace(trust_request_start=False)
    serving = SimpleNamespace(detector=SimpleNamespace(clock=lambda: 0.0), settings=settings)
    app = SimpleNamespace(state=SimpleNamespace(serving=serving))
    callers = [
        await named(HTTPConnection({"type": "http", "app": app, "client": (address, 1)}), None, "")
        for address in ("2001:db8::1", "2001:db8::2")
    ]
    assert callers[0] == callers[1]


def test_places_held_for_long_are_shared_when_nearly_all_are_taken() -> None:
    places = Places(16, "streams")
    held = [places.hold("gateway") for _ in range(14)]
    for each in held:
        each.__enter__()
    with pytest.raises(Overloaded, match="gateway has 14 streams open, and the 2 places left"):
        places.hold("gateway").__enter__()
    held += [places.hold("camera"), places.hold("camera")]
    for each in held[14:]:
        each.__enter__()
    with pytest.raises(Overloaded, match="16 streams are open, 16 are allowed"):
        places.hold("another").__enter__()
    for each in held:
        each.__exit__(None, None, None)
    assert places.taken == 0
