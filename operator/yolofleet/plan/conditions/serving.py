"""All revisions that have pods or requests, or are to have some: who they are, and how they do."""

from yolofleet.api.status import Role, Serving
from yolofleet.plan.conditions.situation import Situation


def revisions(now: Situation) -> list[Serving]:
    """Return them by what they are there for; the former ones by age, the youngest first."""
    plan, seen = now.plan, now.observed.revisions
    # One revision may be in several roles: what is on its way is on trial no more, and what the
    # detector is released on is not on its way.
    named = {plan.canary: Role.CANARY} if plan.canary else {}
    named |= {plan.target: Role.TARGET} | {plan.stable: Role.STABLE}
    former = sorted(
        (each for each in seen.values() if each.name not in named),
        key=lambda each: (each.created, each.name),
        reverse=True,
    )
    busy = {r.name: Role.FORMER for r in former if r.replicas or r.ready or _gets(now, r.name)}
    order = list(Role)
    by_role = sorted(named.items(), key=lambda each: order.index(each[1]))
    return [_serving(now, name, role) for name, role in (*by_role, *busy.items())]


def _gets(now: Situation, name: str) -> bool:
    return now.revision(name).weight > 0


def _serving(now: Situation, name: str, role: Role) -> Serving:
    status = now.revision(name)
    pinned = next(
        (p.revision.model.sha256 for p in now.plan.revisions if p.revision.name == name), ""
    )
    return Serving(
        name=name,
        role=role,
        model=status.model,
        # The server loads no other file than the pinned one, and is not ready before it did.
        digest=(pinned or None) if status.ready else None,
        ready=status.ready,
        desired=status.desired,
        weight=status.weight,
    )
