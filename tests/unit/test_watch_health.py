"""Whether watches hear, on a clock that the test moves."""

import pytest

from yolofleet.cluster import kinds
from yolofleet.runtime.kind import Kind
from yolofleet.runtime.watch_health import WatchHealth

SERVICES, PODS = kinds.SERVICE.path(), kinds.POD.path()


class World:
    """A WatchHealth of two watches, its clock, and what comes through the streams."""

    def __init__(self) -> None:
        self.now, self.total_bytes = 1000.0, 0
        self.watches = WatchHealth(silence_s=100.0, clock=lambda: self.now)
        self.watches.expect(kinds.SERVICE, SERVICES)
        self.watches.opened(kinds.SERVICE, SERVICES, self)

    def list(self, *missed: str, version: int = 7, there: str = "abc") -> None:
        self.watches.missed(kinds.SERVICE, dict.fromkeys(missed, version))
        self.watches.listed(kinds.SERVICE, there)

    def after(self, seconds: float) -> str:
        self.now += seconds
        self.watches.look()
        return self.watches.failing()


@pytest.fixture
def world() -> World:
    return World()


def test_a_quiet_cluster_is_healthy_and_is_listed_once_a_while(world: World) -> None:
    for _ in range(5):
        assert world.watches.silent() == set()
        assert not world.after(101)
        assert world.watches.silent() == {kinds.SERVICE}
        world.list()


def test_a_byte_ends_the_silence(world: World) -> None:
    world.after(99)
    world.total_bytes += 1
    world.after(1)
    assert world.watches.silent() == set()
    world.after(99)
    assert world.watches.silent() == set()


def test_a_new_stream_is_no_sign_of_life(world: World) -> None:
    world.after(99)
    world.watches.opened(kinds.SERVICE, SERVICES, world)
    world.after(2)
    assert world.watches.silent() == {kinds.SERVICE}


def test_what_came_before_a_new_stream_is_not_lost(world: World) -> None:
    world.after(99)
    world.total_bytes += 1
    world.watches.opened(kinds.SERVICE, SERVICES, world)
    world.after(2)
    assert world.watches.silent() == set()


def test_a_watch_that_does_not_tell_what_a_list_found_is_deaf(world: World) -> None:
    world.list("a", "b")
    assert not world.after(40)
    assert "the watch of Service is deaf: it has not told 2 changes" in world.after(1)


def test_a_deaf_watch_is_logged_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.list("a")
    for _ in range(5):
        world.after(41)
    world.watches.reported(kinds.SERVICE, "a", 7)
    world.after(1)
    world.list("b", version=8)
    world.after(41)
    heads = [(r.levelname, r.message.split(":")[0], r.fields) for r in caplog.records]  # type: ignore[attr-defined]
    assert heads == [("WARNING", "the watch of Service is deaf", {"kind": "Service"})] * 2


@pytest.mark.parametrize("version", [7, 8])
def test_a_watch_that_tells_it_in_time_hears(world: World, version: int) -> None:
    world.list("a")
    world.watches.reported(kinds.SERVICE, "a", version)
    assert not world.after(1000)


@pytest.mark.parametrize(("kind", "uid", "version"), [
    (kinds.SERVICE, "a", 6), (kinds.SERVICE, "b", 9), (kinds.POD, "a", 9),
])  # fmt: skip
def test_other_news_are_no_excuse(world: World, kind: Kind, uid: str, version: int) -> None:
    world.list("a")
    world.watches.reported(kind, uid, version)
    assert world.after(41)


def test_listing_again_does_not_begin_the_wait_anew(world: World) -> None:
    world.list("a")
    world.after(30)
    world.list("a", version=9)
    assert world.after(11)


def test_a_watch_that_hears_again_is_well(world: World) -> None:
    world.list("a")
    assert world.after(41)
    world.watches.reported(kinds.SERVICE, "a", 9)
    assert not world.watches.failing()


def test_what_is_told_while_other_namespaces_are_listed_counts(world: World) -> None:
    world.watches.missed(kinds.SERVICE, {"a": 7})
    world.watches.reported(kinds.SERVICE, "a", 7)
    world.watches.listed(kinds.SERVICE, "ab")
    assert not world.after(1000)


def test_what_is_gone_need_not_be_told(world: World) -> None:
    world.list("a")
    world.list(there="b")
    assert not world.after(1000)


def test_what_nobody_watches_cannot_be_deaf(world: World) -> None:
    world.watches.missed(kinds.POD, {"p": 7})
    assert not world.after(1000)


def test_an_api_that_went_takes_its_watches_along(world: World) -> None:
    world.list("a")
    world.watches.forget(kinds.SERVICE)
    assert not world.after(1000)
    assert world.watches.silent() == set()


def test_a_watch_that_never_began_is_named_and_its_kind_listed(world: World) -> None:
    assert not world.watches.unopened()
    world.watches.expect(kinds.POD, PODS)
    assert world.watches.unopened() == "not watched yet: Pod"
    world.after(101)
    assert kinds.POD in world.watches.silent()
    world.watches.missed(kinds.POD, {"p": 7})
    assert "Pod is deaf" in world.after(41)
