"""What looks add: the same sums in whatever order, whoever restarts, and nothing counted twice."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from played_pods import CANARY, STABLE, Server
from yolofleet.analysis.increments import Look, Memory, look


def looked(memory, *servers):
    return look(memory, [each.as_pod() for each in servers], canary=CANARY, stable=STABLE)


def pair():
    return Server("s1", STABLE), Server("c1", CANARY)


def counted(found: Look):
    pairs = found.pairs
    return (
        sum(map(sum, pairs.expected.values())),
        sum(map(sum, pairs.kept.values())),
        pairs.seen,
        found.canary.good,
        found.canary.bad,
        sum(found.canary.latency),
    )


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 50), st.booleans(), st.booleans()), max_size=20
    ),
    st.randoms(use_true_random=False),
)
def test_sums_are_what_happened_whoever_restarts_and_in_whatever_order(events, dice):
    """A restart is just after a look: what a process counts until it dies, nobody can know."""
    servers = [Server("s1", STABLE), Server("s2", STABLE), Server("c1", CANARY)]
    memory, _ = looked(Memory(), *servers)
    happened, found = [0] * 6, [0] * 6
    for which, amount, restarts, back in events:
        server = servers[which % 3]
        if restarts:  # the clock of its node may have been set back
            server.restart(server.started - 5 if back else server.started + 5)
        if server.revision == STABLE:
            server.pair("circle", amount, amount // 2)
            server.frame(amount)
            added = (amount, amount // 2, amount, 0, 0, 0)
        else:
            server.requests["ok"] += amount
            server.requests["overloaded"] += 1
            server.requests["bad_image"] += 7  # the caller's
            server.times[40] += amount
            added = (0, 0, 0, amount, 1, amount)
        happened = [a + b for a, b in zip(happened, added, strict=True)]
        dice.shuffle(servers)
        memory, seen = looked(memory, *servers)
        servers.sort(key=lambda each: each.uid)
        found = [a + b for a, b in zip(found, counted(seen), strict=True)]
    assert found == happened


def test_a_pod_seen_for_the_first_time_shows_only_where_its_counters_stand():
    stable, canary = pair()
    stable.pair("circle", 500, 500)
    memory, found = looked(Memory(), stable, canary)
    assert counted(found)[0] == 0
    stable.pair("circle", 3, 2)
    assert counted(looked(memory, stable, canary)[1])[:2] == (3, 2)


def test_counters_that_go_back_without_a_restart_begin_anew():
    stable, canary = pair()
    stable.pair("circle", 500, 400)
    memory, _ = looked(Memory(), stable, canary)
    stable.expected, stable.kept = {"circle": [0, 5, 0]}, {"circle": [0, 4, 0]}
    assert counted(looked(memory, stable, canary)[1])[:2] == (5, 4)


def test_what_a_pod_answered_while_nobody_read_it_is_not_compared_with_another_time():
    stable, canary = pair()
    other = Server("c2", CANARY)
    memory, _ = looked(Memory(), stable, canary, other)
    other.answer = "timed out"
    canary.requests["ok"] += 1
    memory, found = looked(memory, stable, canary, other)
    assert (found.unreadable, found.canary.good) == ("", 1)
    other.answer = None
    other.requests["ok"] += 100
    memory, found = looked(memory, stable, canary, other)
    assert found.canary.good == 0
    other.requests["ok"] += 10
    assert looked(memory, stable, canary, other)[1].canary.good == 10


def test_pairs_that_were_counted_while_nobody_could_read_them_are_not_lost():
    stable, canary = pair()
    memory, _ = looked(Memory(), stable, canary)
    canary.answer = "timed out"
    stable.pair("circle", 8, 7)
    memory, found = looked(memory, stable, canary)
    assert found.unreadable == f"0 of 1 ready pods of {CANARY} could be read: one timed out"
    canary.answer = "says\x1b[2J kubectl delete\n"
    memory, found = looked(memory, stable, canary)
    assert found.unreadable.endswith("could be read: one says[2J kube ctl delete")
    assert counted(found)[0] == 0
    canary.answer = None
    assert counted(looked(memory, stable, canary)[1])[:2] == (8, 7)


@pytest.mark.parametrize(("silent", "unreadable"), [(1, False), (2, False), (3, True)])
def test_half_of_the_ready_pods_are_enough(silent, unreadable):
    stable, canary = pair()
    more = [Server(f"s{i}", STABLE) for i in range(2, 5)]
    for server in [stable, *more][:silent]:
        server.answer = "timed out"
    found = looked(Memory(), stable, canary, *more)[1]
    assert bool(found.unreadable) is unreadable


def test_pods_that_are_not_ready_are_waited_for():
    stable, canary = pair()
    canary.ready = False
    found = looked(Memory(), stable, canary)[1]
    assert (found.waiting, found.unreadable) == (f"no pod of {CANARY} is ready", "")
    assert looked(Memory())[1].waiting == f"no pod of {CANARY} is ready"


def test_kubelets_restarts_of_pods_that_are_not_ready_count():
    stable, canary = pair()
    memory, _ = looked(Memory(), stable, canary)
    canary.ready, canary.restarts = False, 2
    memory, found = looked(memory, stable, canary)
    assert found.restarts == {canary.uid: 2}
    assert looked(memory, stable, canary)[1].restarts == {}


def test_a_restart_counts_once_however_many_looks_it_takes_the_pod_to_come_back():
    """Kubelet counts it at once, and its new process tells so only when it is ready again."""
    stable, canary = pair()
    memory, _ = looked(Memory(), stable, canary)
    canary.restart(canary.started + 5)
    canary.ready = False
    memory, first = looked(memory, stable, canary)
    memory, second = looked(memory, stable, canary)
    canary.ready = True
    memory, third = looked(memory, stable, canary)
    assert [sum(seen.restarts.values()) for seen in (first, second, third)] == [1, 0, 0]


def test_a_pod_of_neither_revision_counts_for_nothing_and_one_listed_twice_counts_once():
    stable, canary = pair()
    stranger = Server("x", "gate-00000000")
    memory, _ = looked(Memory(), stable, canary, stranger)
    stable.pair("circle", 3, 2)
    memory, found = looked(memory, stable, stable, canary, stranger)
    assert counted(found)[:2] == (3, 2)
    assert set(memory.pods) == {"s1", "c1"}


def test_pods_that_went_are_forgotten():
    servers = [Server(f"c{i}", CANARY) for i in range(40)]
    memory = Memory()
    for number in range(39):
        memory, _ = looked(memory, Server("s1", STABLE), *servers[number : number + 2])
    assert len(memory.pods) == 3


def test_the_worst_of_several_runs_over_known_pictures_counts():
    stable, canary = pair()
    canary.golden = {"state": "done", "map50": 0.9, "set_sha256": "a"}
    other = replace(canary, uid="c2", golden=canary.golden | {"map50": 0.8})
    assert looked(Memory(), stable, canary, other)[1].golden.map50 == 0.8
