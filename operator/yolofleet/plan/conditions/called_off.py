"""What is said of a revision that judging called off, or keeps where it is, and how to go on."""

from yolofleet.api.names import RETRY_ANNOTATION
from yolofleet.api.rollout import Despite
from yolofleet.plan.conditions.commands import approval
from yolofleet.plan.conditions.situation import Situation


def why(now: Situation, name: str) -> str | None:
    """Say what `name` failed, and what to type to go on; nothing where it was not called off."""
    failed = now.plan.called_off.get(name)
    if failed is None:
        return None
    return f"{name} was called off: {failed.check}: {failed.message}. {to_go_on(now, name)}"


def to_go_on(now: Situation, name: str) -> str:
    """Return the commands that judge it again, and that release it all the same."""
    detector = now.detector
    where = f"{detector.name} -n {detector.namespace}"
    steps = len(detector.spec.rollout.steps)
    release = approval(detector, name, max(steps, 1), Despite.ANALYSIS_FAILED)
    again = f"{name}:{detector.generation}"
    return (
        f"To judge it again: kubectl annotate yd {where} --overwrite {RETRY_ANNOTATION}={again}."
        f" To release it all the same: {release}"
    )
