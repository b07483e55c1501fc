"""Whole releases on played pods, with a clock that is moved: who fails, by what, and how soon."""

import random
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from played_pods import CANARY, STABLE, START, Played, Server, bucket_of
from yolofleet.analysis.increments import Memory
from yolofleet.analysis.judge import consequence
from yolofleet.api.analysis import (
    Analysis,
    AnalysisStatus,
    Check,
    Golden,
    OnFailure,
    Stage,
    Verdict,
)

Play = Callable[[Played, random.Random], None]


WHY_NOT = {
    "skipped_options": "options of their own",
    "unreachable": "the shadow's key",
    "skipped_size": "larger than 8 MiB",
    "skipped_busy": "busy",
    "skipped_rate": "no more a second",
    "skipped_repeated": "came before",
}


@pytest.mark.parametrize("why", WHY_NOT)
def test_why_no_pictures_are_compared_is_told(why: str) -> None:
    played = Played()
    played.look()
    played.stable[0].frames[why] += 4000
    status = played.look()
    message = next(check.message for check in status.checks if check.name == "kept")
    assert message.startswith("0 of 150 objects; 4,000 pictures were not compared: ")
    assert WHY_NOT[why] in message
    played.stable[0].frame(5000)
    status = played.look()
    assert "not compared" not in next(c.message for c in status.checks if c.name == "kept")


def test_that_pictures_repeat_is_told_by_each_check_that_waits_for_others() -> None:
    """Sixty of them, for ever: objects enough, and copies too few."""
    played = Played()
    played.look()
    [stable] = played.stable
    stable.frame(60)
    stable.pair("circle", 400, 396)
    for arm in stable.compute.values():
        arm[bucket_of(0.02)] += 60
    for _ in range(9):
        stable.frames["skipped_repeated"] += 200
        status = played.look()
    told = {check.name: check.message for check in status.checks}
    for name in ("kept", "seesNothing", "added", "errors", "latency"):
        assert "1,800 pictures were not compared: they came before, byte for byte" in told[name]


def test_that_stable_is_sure_of_next_to_nothing_in_what_is_compared_is_told() -> None:
    played = Played()

    def kept(compared: int, seen: int = 0) -> str:
        played.stable[0].frames["compared"] += compared
        played.stable[0].seen += seen
        return next(check.message for check in played.look().checks if check.name == "kept")

    played.look()
    assert kept(99) == "0 of 150 objects"
    assert kept(3901, 3) == (
        f"0 of 150 objects; {STABLE} is sure of something in 3 of 4,000 pictures: either little"
        " comes by, or what does scores too near to its inference.confidence"
    )
    assert kept(0, 397) == "0 of 150 objects"  # a tenth: they come slowly, but they come
    played.stable[0].frames["skipped_options"] += 90_000
    assert "options of their own" in kept(4000)  # what most requests do comes first


def seen(
    played: Played,
    dice: random.Random,
    *,
    keeps: float = 0.97,
    keeps_of: dict[str, float] | None = None,
    slower: float = 1.0,
    fails: float = 0.0,
    added: int = 0,
    called: str = "",
) -> None:
    """Let 200 pictures with 3 objects each go to both: 20 a second, for one look."""
    for _ in range(200):
        stable = dice.choice(played.stable)
        if dice.random() < fails:
            stable.frame(1, failed=1)
            continue
        found = 0
        for _ in range(3):
            name = dice.choices(["circle", "square", "cross"], [0.55, 0.4, 0.05])[0]
            kept = int(dice.random() < (keeps_of or {}).get(name, keeps))
            found += kept
            stable.pair(
                name, 1, kept, size=dice.choices([0, 1, 2], [2, 5, 3])[0],
                added=added,
            )  # fmt: skip
            if called and not kept:
                confused = stable.confused.setdefault(name, {})
                confused[called] = confused.get(called, 0) + 1
        stable.frame(1, blind=int(not found))
        took = dice.lognormvariate(-3.5, 0.35)
        stable.compute["stable"][bucket_of(took)] += 1
        stable.compute["canary"][bucket_of(took * slower * dice.lognormvariate(0, 0.05))] += 1


def answered(played: Played, dice: random.Random, *, weight: int, fails: float = 0.0) -> None:
    """Let 200 requests be answered by both, as they are weighted."""
    for _ in range(200):
        canary = dice.random() * 100 < weight
        server = dice.choice(played.canary if canary else played.stable)
        bad = canary and dice.random() < fails
        server.requests["internal" if bad else "ok"] += 1
        server.times[bucket_of(dice.lognormvariate(-3.2, 0.35))] += not bad


def until(played: Played, play: Play, verdict: Verdict, most: int = 120) -> int:
    """Play until the verdict is reached; return after how many looks."""
    dice = random.Random(12)
    played.look()  # shows where the counters stand
    for number in range(1, most + 1):
        play(played, dice)
        if played.look().verdict is verdict:
            return number
    raise AssertionError(f"never {verdict}: {played.status}")


def test_a_good_revision_passes_all_checks():
    played = Played()
    looks = until(played, lambda p, d: seen(p, d), Verdict.PASS)
    assert looks <= 60
    assert played.status.said == "Passed 8/8 at 0 %"
    assert played.verdicts()["golden"] == "NotJudged"
    assert played.status.failed == []


BAD = [
    ("blind", {"keeps": 0.0005}, "kept", 2),
    ("swapped", {"keeps_of": {"circle": 0.02, "square": 0.03}, "called": "square"}, "kept", 2),
    ("a rare class swapped", {"keeps_of": {"cross": 0.02}, "called": "circle"}, "keptByClass", 30),
    ("slow x2", {"slower": 2.0}, "latency", 12),
    ("errors", {"fails": 0.06}, "errors", 20),
    ("finds a third less", {"keeps": 0.66}, "kept", 32),
    ("sees ghosts", {"added": 3}, "added", 4),
]


@pytest.mark.parametrize(("what", "plays", "check", "looks"), BAD, ids=[row[0] for row in BAD])
def test_a_bad_revision_fails_the_check_that_names_its_fault(what, plays, check, looks):
    played = Played()
    took = until(played, lambda p, d: seen(p, d, **plays), Verdict.FAIL)
    failed = [name for name, verdict in played.verdicts().items() if verdict == "Fail"]
    assert check in failed
    assert took <= looks
    if check != "added":
        assert [(each.revision, each.check) for each in played.status.failed] == [
            (CANARY, failed[0])
        ]


def test_what_adds_too_much_is_rolled_back_only_where_its_field_says_so():
    told = str(Analysis.model_fields["max_added"].description)
    [wild] = map(float, re.findall(r"more than (\S+) of", told))
    known = Analysis(golden=Golden(volume="set"))
    for asked, value, follows in (
        (Analysis(), wild, OnFailure.PAUSE),
        (Analysis(), wild + 0.01, OnFailure.ROLLBACK),
        (known, wild + 0.01, OnFailure.PAUSE),
    ):
        check = Check(name="added", verdict=Verdict.FAIL, since=START, value=value)
        assert consequence(asked, AnalysisStatus(checks=[check])) is follows


def test_what_was_called_off_is_told_with_its_numbers_and_what_it_takes_for_what():
    played = Played()
    until(played, lambda p, d: seen(p, d, keeps=0.3, called="square"), Verdict.FAIL)
    [failed] = played.status.failed
    assert failed.message.startswith("keeps 0.30 of what gate-05bb7f85 is sure of (limit 0.80;")
    assert re.search(r"; circle is called square \d+ times$", failed.message)
    assert played.status.said.startswith("Failed: kept")


def test_what_is_blind_takes_nothing_for_anything():
    played = Played()
    until(played, lambda p, d: seen(p, d, keeps=0.0005), Verdict.FAIL)
    assert "called" not in played.status.failed[0].message


def without_class(played: Played, dice: random.Random) -> None:
    """Let the canary have no class `cross`: a twentieth of all that is there."""
    seen(played, dice, keeps_of={"cross": 1.0})
    stable = played.stable[0]
    lost = stable.expected.pop("cross", [0, 0, 0])
    stable.kept.pop("cross", None)
    stable.sure.pop("cross", None)
    stable.only_stable["cross"] += sum(lost)


def test_what_lost_a_class_altogether_lost_its_objects():
    """The pods count them apart, as no counterpart is looked for: none of them is found."""
    played = Played()
    until(played, without_class, Verdict.FAIL)
    told = {check.name: check.message for check in played.status.checks}
    share = "keeps 0.00 of cross, a class that it does not have (limit 0.70; 0 of "
    assert told["keptByClass"].startswith(share)
    assert "; it has no class cross (" in told["kept"]
    assert played.status.failed[0].check == "keptByClass"


def test_classes_that_all_have_other_names_are_told_and_not_waited_for():
    played = Played()
    played.look()
    stable = played.stable[0]
    for _ in range(2):
        for name, n in (("person", 300), ("forklift", 200)):
            stable.only_stable[name] += n
            stable.only_canary[name.upper()] += n
        status = played.look()
    assert status.verdict is Verdict.FAIL
    told = {check.name: check.message for check in status.checks if check.verdict is Verdict.FAIL}
    assert told["kept"] == (
        f"keeps 0.00 of what {STABLE} is sure of (limit 0.80; 0 of 1,000 objects);"
        " it has no class person, forklift (1,000)"
    )
    assert told["added"].startswith(f"1.00 of what it is sure of, {STABLE} does not see")


def test_what_turns_blind_after_two_hours_fails_as_soon():
    """Sums over all that was good would take a quarter of an hour to notice."""
    played = Played()
    until(played, lambda p, d: seen(p, d), Verdict.PASS)
    dice = random.Random(3)
    for _ in range(400):
        seen(played, dice)
        assert played.look().verdict is Verdict.PASS
    for _ in range(2):
        assert played.status.verdict is not Verdict.FAIL
        seen(played, dice, keeps=0.0005)
        played.look()
    assert played.status.verdict is Verdict.FAIL
    told = played.status.failed[0].message
    assert re.search(r"keeps 0\.9\d .*objects\), and worse in the last [23] looks", told), told


def test_a_fault_of_real_requests_alone_fails_where_it_shows():
    played = Played()
    until(played, lambda p, d: seen(p, d), Verdict.PASS)
    played.arguments = {"stage": Stage.LIVE, "weight": 1, "following": 5}
    dice = random.Random(5)
    looks = 0
    while played.status.verdict is not Verdict.FAIL:
        seen(played, dice)
        answered(played, dice, weight=1, fails=0.9)
        played.look()
        looks += 1
    assert played.verdicts()["errors"] == "Fail"
    assert looks <= 15  # some 20 requests


def test_a_live_step_goes_on_once_the_next_one_cannot_do_harm():
    played = Played()
    until(played, lambda p, d: seen(p, d), Verdict.PASS)
    played.arguments = {"stage": Stage.LIVE, "weight": 5, "following": 25}
    dice, needed = random.Random(6), 0
    seen(played, dice)
    assert played.look().verdict is Verdict.INCONCLUSIVE  # it answered nothing yet
    while played.status.verdict is not Verdict.PASS:
        seen(played, dice)
        answered(played, dice, weight=5)
        played.look()
        needed += 1
    assert 20 <= needed <= 90
    assert played.status.said == "Passed 8/8 at 5 %"


def test_of_copies_and_own_requests_that_is_told_which_is_nearer_to_its_limit():
    played = Played(arguments={"stage": Stage.LIVE, "weight": 1, "following": 5})
    played.look()
    for _ in range(60):
        played.stable[0].answers(200)
        played.stable[0].frame(200)
        played.canary[0].answers(48)
        played.canary[0].requests["internal"] += played.memory.looks % 2
        played.look()
    [told] = [check for check in played.status.checks if check.name == "errors"]
    assert told.verdict is Verdict.PASS
    assert told.message == (
        "0.010 of its requests failed (limit 0.010; 30 of 2,910 requests), and up to 0.200 at this"
        " step"
    )


def test_a_rare_class_below_its_limit_that_holds_nothing_is_told_as_such():
    played = Played()
    until(played, lambda p, d: seen(p, d, keeps_of={"cross": 0.0}), Verdict.INCONCLUSIVE, 1)
    for _ in range(30):
        played.stable[0].pair("circle", 900, 890)
        played.stable[0].frame(200)
        played.look()
    [told] = [check for check in played.status.checks if check.name == "keptByClass"]
    assert told.verdict is Verdict.PASS
    assert "; too rare to hold a release" in told.message


def test_known_pictures_are_asked_before_all_else():
    golden = {"set_sha256": "a" * 64, "state": "running", "images": 40}
    played = Played(Analysis(golden=Golden(config_map="known", min_map50=0.8)))
    played.canary[0].golden = dict(golden)
    until(played, lambda p, d: seen(p, d), Verdict.INCONCLUSIVE)
    played.canary[0].golden |= {"state": "done", "map50": 0.79}
    assert played.look().verdict is Verdict.FAIL
    assert played.status.checks[0].message == "mAP50 is 0.790 on 40 known pictures (at least 0.800)"


@pytest.mark.parametrize(
    ("stable", "mine", "same", "verdict"),
    [
        (0.95, 0.93, True, "Pass"), (0.95, 0.91, True, "Fail"), (0.95, 0.91, False, "NotJudged"),
        (None, 0.91, True, "NotJudged"),
    ],
)  # fmt: skip
def test_known_pictures_are_compared_with_those_of_the_same_set(stable, mine, same, verdict):
    played = Played(Analysis(golden=Golden(config_map="known")))
    done = {"set_sha256": "a" * 64, "state": "done", "images": 40}
    played.canary[0].golden = done | {"map50": mine}
    if stable is not None:
        other = {} if same else {"set_sha256": "b" * 64}
        played.stable[0].golden = done | {"map50": stable} | other
    played.look()
    assert played.verdicts()["golden"] == verdict


def test_a_set_that_nobody_can_read_holds_and_rolls_nothing_back():
    played = Played(Analysis(golden=Golden(config_map="known", min_map50=0.8)))
    played.canary[0].golden = {"state": "failed", "message": "no labels"}
    until(played, lambda p, d: seen(p, d), Verdict.ERROR)
    assert played.status.said == "Unreadable: golden"


def test_a_first_revision_is_judged_by_itself():
    played = Played(arguments={"against": ""})
    played.stable = []
    verdicts = [str(played.look().verdict) for _ in range(6)]
    assert verdicts == ["Inconclusive"] * 5 + ["Pass"]
    assert not played.status.sums
    assert played.verdicts()["kept"] == "NotJudged"
    played.canary[0].blind_in_a_row = 3
    assert played.look().verdict is Verdict.FAIL


def test_what_restarts_twice_in_ten_minutes_fails():
    played = Played()
    played.look()
    played.canary[0].restart(2000.0)
    assert played.look().verdict is Verdict.INCONCLUSIVE
    played.now += timedelta(minutes=11)
    played.canary[0].restart(3000.0)
    assert played.look().verdict is Verdict.INCONCLUSIVE
    played.canary[0].restart(4000.0)
    played.look()
    assert played.verdicts()["probe"] == "Fail"


def test_that_pods_restart_once_each_is_no_fault_and_one_that_does_twice_is():
    """A node is drained or reboots, one is out of memory: a good release of many goes on."""
    played = Played(canary=[Server(f"c{n:07}-1", CANARY) for n in range(20)], stored=True)
    played.look()
    for server in played.canary:
        server.restart(2000.0)
    played.look()
    assert played.verdicts()["probe"] == "Pass"
    played.memory = Memory()  # a new leader: kubelet's counts are where they are
    played.look()
    assert played.verdicts()["probe"] == "Pass"
    played.canary[-1].restart(3000.0)
    played.look()
    assert played.verdicts()["probe"] == "Fail"
    told = {check.name: check.message for check in played.status.checks}["probe"]
    assert told == "one pod of it restarted 2 times in 10 minutes"


def test_what_an_older_operator_remembered_of_restarts_is_read_and_counts_for_no_pod():
    played = Played()
    told = played.look().model_dump(mode="json", by_alias=True)
    told["restarts"] = ["2030-01-01T00:00:05Z"]
    played.status = AnalysisStatus.model_validate(told)
    played.canary[0].restart(2000.0)
    assert played.look().verdict is Verdict.INCONCLUSIVE


def test_callers_that_want_it_in_a_millisecond_make_no_revision_a_bad_one():
    """As one with cameras of its own would have: on the other revision nobody asks for that."""
    played = Played(arguments={"stage": Stage.LIVE, "weight": 50})
    played.look()
    for _ in range(60):
        played.stable[0].answers(50)
        played.canary[0].answers(50)
        played.canary[0].requests["hurried"] += 50
        played.look()
    assert played.verdicts()["errors"] != "Fail"
    assert played.status.arms[1].errors == 0


def test_without_copies_only_known_pictures_let_it_pass():
    why = "no key for copies: name a Secret in spec.access.shadowKey"
    played = Played(arguments={"unpaired": why})
    assert played.look().verdict is Verdict.NOT_JUDGED
    assert played.status.checks[2].message == why
    played = Played(
        Analysis(golden=Golden(config_map="known", min_map50=0.8)), arguments={"unpaired": why}
    )
    played.canary[0].golden = {"set_sha256": "a", "state": "done", "map50": 0.9, "images": 40}
    assert played.look().verdict is Verdict.PASS


def test_nothing_is_proved_without_pictures():
    played = Played()
    for _ in range(1000):
        assert played.look().verdict is Verdict.INCONCLUSIVE
    assert played.status.said == "Waiting: 0 of 150 objects"
    played.canary[0].ready = False
    assert played.look().said == f"Waiting: no pod of {CANARY} is ready"


@pytest.mark.parametrize(
    "answer", ["refused the connection", b"", b"{}", b"\x00" * 9, b"[" * 5000, b"x" * 600_000]
)
def test_what_cannot_be_read_holds_and_never_fails(answer):
    played = Played()
    until(played, lambda p, d: seen(p, d, keeps=0.2), Verdict.INCONCLUSIVE)
    for _ in range(29):
        played.canary[0].answer = answer
        seen(played, random.Random(1), keeps=0.2)
        assert played.look().verdict is Verdict.ERROR
    assert played.status.said == "Unreadable: 29 looks"
    assert played.status.failed == []
    played.canary[0].answer = None
    played.look()
    assert played.status.unreadable == 0


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ([None, None], [None, None]),
        ([41.23, None], [41, 41]),  # it restarted, or was not read: what it could, it can
        ([40.0, 59.0, 27.0, 59.0], [40, 40, 40, 40]),
        ([40.0, 61.0, 44.0, 40.0], [40, 61, 61, 40]),
        ([0.0, 1e300], [None, 1e6]),
    ],
)
def test_what_a_pod_can_carry_is_remembered_until_it_is_clearly_another(told, kept):
    """It is measured with each batch: a file of it would be written at each look."""
    played = Played()
    found = []
    for capacity in told:
        played.canary[0].capacity = capacity
        found.append(played.look().capacity)
    assert found == kept


def test_the_pod_that_carries_least_counts_and_those_of_the_stable_revision_do_not():
    played = Played(canary=[Server("c1", CANARY), Server("c2", CANARY)])
    for server, capacity in zip((*played.canary, *played.stable), (90.0, 30.0, 5.0), strict=True):
        server.capacity = capacity
    assert played.look().capacity == 30


def test_a_dry_run_tells_and_does_nothing():
    played = Played(Analysis(mode="DryRun"))
    until(played, lambda p, d: seen(p, d, keeps=0.2), Verdict.FAIL)
    assert played.status.said.startswith("Would fail: kept")
    assert played.status.failed == []


def test_other_limits_and_a_persons_word_begin_anew():
    played = Played()
    until(played, lambda p, d: seen(p, d, keeps=0.2), Verdict.FAIL)
    failed = played.status.failed
    for change in ({"min_kept": 0.5}, {}):
        played.analysis = Analysis(**change)
        played.arguments = {"retried": "" if change else f"{CANARY}:2"}
        assert played.look().verdict is Verdict.INCONCLUSIVE
        assert played.status.failed == failed  # remembered, by which limits and for which word
    assert (failed[0].margins_hash, failed[0].retried) != (
        played.status.margins_hash,
        f"{CANARY}:2",
    )


def test_what_failed_stays_failed_though_it_gets_better():
    played = Played()
    until(played, lambda p, d: seen(p, d, keeps=0.2), Verdict.FAIL)
    for _ in range(100):
        seen(played, random.Random(1), keeps=0.99)
        assert played.look().verdict is Verdict.FAIL
    assert len(played.status.failed) == 1


def script(played: Played, dice: random.Random, look: int) -> None:
    """Play a day that is hard to count: restarts, pods that come and go, some unreadable."""
    seen(played, dice, keeps=0.95)
    for server in (*played.stable, *played.canary):
        server.answer = "timed out" if dice.random() < 0.1 else None
    if look % 7 == 3:
        played.stable[look % 2].restart(1000.0 - look)  # and the clock of its node was set back
    if look % 11 == 5:
        played.stable.append(Server(f"s{look}", played.stable[0].revision))
    if look % 13 == 8:
        del played.stable[0]


def played_day(
    *, stored: bool = False, back: bool = False, backwards: bool = False
) -> list[tuple[Any, ...]]:
    """Return what was found at each look of such a day."""
    dice = random.Random(21)
    played = Played(stable=[Server("s1", "gate-05bb7f85"), Server("s2", "gate-05bb7f85")])
    told = []
    for number in range(60):
        script(played, dice, number)
        played.stored, played.backwards = stored, backwards and number % 3 > 0
        if back and number == 20:
            played.now -= timedelta(days=3)
        status = played.look()
        told.append((status.verdict, status.said, played.verdicts(), status.sums))
    return told


def test_a_day_of_restarts_ends_as_it_would_have_whoever_counted():
    usual = played_day()
    assert "Error" in {verdict for verdict, *_ in usual}
    assert usual[-1][2]["kept"] == "Pass"
    assert played_day(stored=True) == usual
    assert played_day(back=True) == usual
    assert played_day(backwards=True) == usual


def test_a_new_leader_never_counts_twice():
    """It knows the sums, and not where the counters stood."""
    played = Played()
    until(played, lambda p, d: seen(p, d), Verdict.PASS)
    before = played.status.sums
    played.memory = Memory()
    played.look()
    assert played.status.sums == before
    assert played.status.started_at == START + timedelta(seconds=10)


def test_a_probe_that_never_looks_passes_nothing_and_holds_nothing():
    """YOLOSERVE_PROBE_INTERVAL_SECONDS may be 0."""
    played = Played()
    played.canary[0].sees = 0
    played.look()
    assert played.verdicts()["probe"] == "NotJudged"
    assert played.look().verdict is Verdict.INCONCLUSIVE
    played.canary[0].sees = 1
    played.look()
    assert played.verdicts()["probe"] == "Pass"


def test_what_its_pods_have_not_is_not_judged_by_another_set_that_they_have():
    played = Played(analysis=Analysis(golden=Golden(config_map="known", min_map50=0.9)))
    played.canary[0].golden = {"state": "done", "set_sha256": "old", "images": 9, "map50": 0.1}
    played.arguments = {"untried": "its pods were made before"}
    played.look()
    assert played.verdicts()["golden"] == "NotJudged"
    played.arguments = {}
    played.look()
    assert played.verdicts()["golden"] == "Fail"
