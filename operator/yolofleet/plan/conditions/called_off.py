"""What is said of a revision that judging called off, or keeps where it is, and how to go on."""

from yolofleet.api.rollout import Despite
from yolofleet.api.typed import retrying
from yolofleet.plan.conditions.commands import approval
from yolofleet.plan.conditions.situation import Situation
from yolofleet.plan.judging import next_word
from yolofleet.plan.rollout import steps_of


def why(now: Situation, name: str) -> str | None:
    """Say what `name` failed, and what to type to go on; nothing where it was not called off."""
    failed = now.plan.called_off.get(name)
    if failed is None:
        return None
    return f"{name} was called off: {failed.check}: {failed.message}. {to_go_on(now, name)}"


def to_go_on(now: Situation, name: str, wish: str = "release it all the same") -> str:
    """Return the commands that judge it again, and that have a person's wish against that."""
    rollout = now.detector.spec.rollout
    steps = len(steps_of(rollout, rollout.strategy))
    typed = approval(now.detector, name, max(steps, 1), Despite.ANALYSIS_FAILED)
    return f"{to_judge_again(now, name)}. To {wish}: {typed}"


def to_judge_again(now: Situation, name: str) -> str:
    """Return the command that does."""
    again = next_word(now.detector, now.observed, name)
    return f"To judge it again: {retrying(now.detector.name, now.detector.namespace, again)}"
