"""NameClash: whether this detector could be a revision of another by its name, or that of it."""

from yolofleet.api.status import ConditionType, Reason
from yolofleet.plan.admission import could_be_one
from yolofleet.plan.conditions.situation import Situation
from yolofleet.plan.conditions.statement import Statement


def name_clash(now: Situation) -> Statement | None:
    """Say so to the younger of the two: nothing is wrong until such a revision is made."""
    if not (other := now.observed.namesake):
        return None
    message = could_be_one(now.detector.name, other)
    return Statement(ConditionType.NAME_CLASH, True, Reason.NAME_CLASH, message)
