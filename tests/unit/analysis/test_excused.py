"""What the errors of the stable revision excuse, and what one caller alone may bring about."""

import pytest

from played_pods import Played
from yolofleet.api.analysis import Check, Stage, Verdict

CHOSEN = "it answers the requests that match spec.canary.match, which may be unlike the others"
N = 200  # pictures a look


def errors(
    looks: int = 60,
    *,
    stable: dict[str, int] | None = None,
    canary: dict[str, int] | None = None,
    copies: dict[str, int] | None = None,
    incomparable: str = "",
    at_first: dict[str, int] | None = None,
) -> Check:
    """Look until the check says something; of the pictures of a look so many end otherwise.

    at_first: how all of the canary's requests end at the first look.
    """
    played = Played(stored=True)
    played.look()
    played.arguments = {"stage": Stage.LIVE, "weight": 50, "incomparable": incomparable}
    [ours], [its] = played.stable, played.canary
    for outcome, n in (at_first or {}).items():
        its.outcome(outcome, n)
        ours.answers(N)
        played.look()
    for _ in range(looks):
        for server, ends in ((ours, stable or {}), (its, canary or {})):
            server.answers(N - sum(ends.values()))
            for outcome, n in ends.items():
                server.outcome(outcome, n)
        ours.frame(N - sum((copies or {}).values()))
        for outcome, n in (copies or {}).items():
            ours.frames[outcome] += n
        checks = {check.name: check for check in played.look().checks}
        if checks["errors"].verdict is not Verdict.INCONCLUSIVE:
            break
    return checks["errors"]


@pytest.mark.parametrize("load", ["overloaded", "deadline_exceeded"])
@pytest.mark.parametrize("whose", ["copies", "canary"])
def test_that_stable_is_busy_excuses_no_fault(load: str, whose: str) -> None:
    failing = {"copies": {"failed": 60}, "canary": {"internal": 60}}[whose]
    found = errors(stable={load: 40}, **{whose: failing})
    assert found.verdict is Verdict.FAIL
    assert "limit 0.010" in found.message


@pytest.mark.parametrize("outcome", ["overloaded", "keys_unavailable"])
def test_what_no_copy_can_end_in_excuses_no_copy_that_is_late(outcome: str) -> None:
    assert errors(stable={outcome: 40}, copies={"late": 30}).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    "outcome", ["overloaded", "deadline_exceeded", "internal", "blind", "keys_unavailable"]
)
def test_as_many_of_the_same_kind_fail_nothing_and_where_they_are_many_pass_nothing(
    outcome: str,
) -> None:
    few, many = ({outcome: n} for n in (4, 40))
    assert errors(stable=few, canary=few).verdict is Verdict.PASS
    held = errors(stable=many, canary=many)
    assert held.verdict is Verdict.INCONCLUSIVE
    assert held.message.endswith("(limit 0.400; 2,400 of 12,000 requests), and to pass 0.100")


@pytest.mark.parametrize("load", ["overloaded", "deadline_exceeded"])
def test_one_caller_who_has_the_canary_for_itself_calls_nothing_off_by_its_load(load: str) -> None:
    assert errors(canary={load: 60}).verdict is Verdict.FAIL
    assert errors(canary={load: 60}, incomparable=CHOSEN).verdict is Verdict.PASS


@pytest.mark.parametrize("fault", ["internal", "blind", "keys_unavailable"])
def test_what_no_caller_can_bring_about_does_whoever_asks(fault: str) -> None:
    """However many others it turns away meanwhile."""
    flood = {fault: 6, "overloaded": 150}
    assert errors(canary=flood, incomparable=CHOSEN).verdict is Verdict.FAIL


@pytest.mark.parametrize("load", ["overloaded", "deadline_exceeded"])
def test_load_is_no_fault_afterwards_where_there_was_nothing_else_at_first(load: str) -> None:
    flooded = {"at_first": {load: 60}, "incomparable": CHOSEN}
    assert errors(**flooded).verdict is Verdict.PASS
    assert errors(**flooded, canary={"internal": 30}).verdict is Verdict.FAIL
