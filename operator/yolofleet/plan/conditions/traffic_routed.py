"""TrafficRouted: whether the router does what was planned."""

from functools import partial

from yolofleet.api.detector import Provider
from yolofleet.api.status import ConditionType, Reason
from yolofleet.plan.conditions.situation import Situation
from yolofleet.plan.conditions.statement import Statement, first
from yolofleet.plan.moving import RouterOption
from yolofleet.routers.choice import ROUTERS, lacking, splits
from yolofleet.routers.claims import MOST_CROSSINGS

SHOWN = 4
"""Of hosts that share requests with those of others, how many are named."""

_say = partial(Statement, ConditionType.TRAFFIC_ROUTED)


def traffic_routed(now: Situation) -> Statement:
    """Say who gets the requests, or why that is not known or not as asked."""
    if statement := first((denied, another_ends), now):
        return statement
    if not now.plan.splits:
        return first((router_is_away, not_moved_yet, without_mesh, through_a_service), now) or _say(
            None,
            Reason.ROUTE_PENDING,
            f"the Service {now.detector.name} does not send to"
            f" {now.plan.answering or now.plan.stable} yet",
            lasting=False,  # as soon as it is written
        )
    statement = first(
        (another_is_named, refused, not_there_yet, followed_by_nobody, short_of_capacity), now
    )
    return statement or _say(
        True, Reason.ROUTED, _split(now) + _sticks(now) + _of_a_delegate(now) + _crossed(now)
    )


def denied(now: Situation) -> Statement | None:
    """Say which hosts are not routed and why, and where requests go meanwhile."""
    plan, at = now.plan, now.plan.exposure
    if not at.denials:
        return None
    if not plan.splits:
        meanwhile = f"No route is written: the Service {_sends(now)}"
    else:
        meanwhile = f"The route has {', '.join(at.hosts) or 'what it had'}"
    message = "; ".join(denial.message for denial in at.denials)
    return _say(False, at.denials[0].reason, f"{message[:3500]}. {meanwhile}", lasting=True)


def another_ends(now: Situation) -> Statement | None:
    """Say that a route is still there by which requests go past all that is planned."""
    if not (route := now.observed.ending) or not now.observed.lingering:
        return None
    led = ", ".join(sorted(now.observed.lingering))
    return _say(
        False,
        Reason.ROUTE_PENDING,
        f"the {route} was deleted, and somebody's finalizer keeps it: requests still go by it, to"
        f" {led}, whose pods stay. Have its owner finish, or remove it from metadata.finalizers",
    )


def without_mesh(now: Situation) -> Statement | None:
    """Say that something was asked for that a Service cannot do."""
    if not _wants_a_router(now):
        return None
    return _say(
        False,
        Reason.MESH_ABSENT,
        f"spec.traffic.hosts, spec.canary.weight and match {lacking(now.detector)}, or clear them."
        f" Meanwhile the Service {now.detector.name} {_sends(now)}",
        lasting=True,
    )


def _wants_a_router(now: Situation) -> bool:
    traffic, canary = now.detector.spec.traffic, now.detector.spec.canary
    weighs = now.plan.canary is not None and canary and (canary.weight or canary.match)
    return splits(traffic.provider) or bool(traffic.hosts) or bool(weighs)


def not_moved_yet(now: Situation) -> Statement | None:
    """Say what is missing until a router takes over from the Service."""
    if (option := now.observed.moving) is None or not _wants_a_router(now):
        return None
    why, reason = _missing(option)
    named = option.router is now.detector.spec.traffic.provider
    at_once = "" if named else f", or at once with spec.traffic.provider: {option.router}"
    message = (
        f"{why}. The detector moves to {option.router} by itself once this is so{at_once}. Until"
        f" then the Service {now.detector.name} {_sends(now)}"
    )
    return _say(False, reason, message)


def another_is_named(now: Situation) -> Statement | None:
    """Say what is missing until the router that is named takes over from the one that serves."""
    named, plan = now.detector.spec.traffic.provider, now.plan
    if not splits(named) or named is plan.provider:
        return None
    meanwhile = f"Until then requests go by {plan.provider} as they did: {_split(now)}"
    if (option := now.observed.moving) is None:
        message = f"spec.traffic.provider: {named}: hosts and weights {lacking(now.detector)}"
        return _say(False, Reason.MESH_ABSENT, f"{message}. {meanwhile}", lasting=True)
    (why, reason), then = _missing(option), "once this is so"
    if option.routes:
        why, reason, then = "spec.suspend holds it where it is", Reason.SUSPENDED, "after that"
    return _say(False, reason, f"{why}. The detector moves to {named} {then}. {meanwhile}")


def _missing(option: RouterOption) -> tuple[str, Reason]:
    """Say what a router waits for, and the reason."""
    if denials := option.exposure.denials:
        return "; ".join(denial.message for denial in denials), denials[0].reason
    if option.refused:
        return option.refused, Reason.ROUTE_REFUSED
    return option.missing.why, option.missing.reason


def router_is_away(now: Situation) -> Statement | None:
    """Say that the API is gone of the router that the detector is on."""
    router, detector = now.observed.router, now.detector
    auto = detector.spec.traffic.provider is Provider.AUTO
    if not auto or not splits(router) or not now.observed.exposure.routes:
        return None
    message = (
        f"the detector is on {router}, whose API is not in the cluster any more: install it again,"
        " or set spec.traffic.provider to what is to route. Meanwhile the Service"
        f" {detector.name} {_sends(now)}"
    )
    return _say(False, Reason.MESH_ABSENT, message, lasting=True)


def through_a_service(now: Situation) -> Statement | None:
    """Say to whom the Service sends."""
    plan, observed = now.plan, now.observed
    message = f"the Service {now.detector.name} {_sends(now)}"
    if _spans(now):
        return _say(True, Reason.ROUTED, message)
    if plan.answering and observed.service.answering == plan.answering:
        return _say(True, Reason.ROUTED, message + _sticks_nowhere(now))
    return None


def _sends(now: Situation) -> str:
    plan = now.plan
    if _spans(now):
        return f"sends to all that is ready of {' and '.join((plan.stable, *plan.beside))}"
    return f"sends everything to {plan.answering or plan.stable}"


def _spans(now: Situation) -> bool:
    """Say whether the Service sends to whoever is ready, as planned."""
    return now.observed.service.spans and now.plan.answering is None


def _sticks_nowhere(now: Situation) -> str:
    if not now.detector.spec.traffic.sticky_header:
        return ""
    return f"; spec.traffic.stickyHeader {ROUTERS[now.plan.provider].STICKS}"


def refused(now: Situation) -> Statement | None:
    """Pass on what the router says against the route."""
    message = now.observed.refused
    if message and now.plan.buckets:
        message += f". spec.traffic.stickyHeader {ROUTERS[now.plan.provider].STICKS}"
    return _say(False, Reason.ROUTE_REFUSED, message) if message else None


def not_there_yet(now: Situation) -> Statement | None:
    """Say that the route read is not the one that was planned."""
    has = {name: weight for name, weight in now.observed.weights.items() if weight}
    if has == {name: weight for name, weight in now.plan.weights.items() if weight}:
        return None
    if now.detector.spec.suspend:
        message = f"spec.suspend holds the route as it is; after that it is to be {_split(now)}"
        return _say(False, Reason.SUSPENDED, message)
    drifted = now.observed.status.condition(ConditionType.DRIFTED)
    kind = ROUTERS[now.plan.provider].KIND
    if drifted and drifted.reason == Reason.LEFT_IN_PLACE and kind in drifted.message:
        message = f"spec.driftPolicy Report leaves the {kind} as it is; it was to be {_split(now)}"
        return _say(False, Reason.LEFT_IN_PLACE, message)
    message = f"waiting for the router: {_split(now)}"
    return _say(None, Reason.ROUTE_PENDING, message, lasting=False)  # as soon as it is written


def followed_by_nobody(now: Situation) -> Statement | None:
    """Say that nobody routes by the route as it is, or that it is not known."""
    followed, plan = now.observed.followed, now.plan
    if not followed.why:
        return None
    if plan.delegated_to and set(plan.weights) == {plan.stable} and not plan.matched:
        return through_a_service(now)  # all ways lead to stable
    if plan.delegated_to:
        meanwhile = f"{_split(now)} of what is delegated; the Service {_sends(now)}"
    else:
        meanwhile = f"the route has {_split(now)}"
    return _say(followed.status, followed.reason, f"{followed.why}. {meanwhile}")


def short_of_capacity(now: Situation) -> Statement | None:
    """Say that the canary gets less than was asked for."""
    plan, canary = now.plan, now.detector.spec.canary
    if not (plan.canary and canary and plan.target == plan.stable):
        return None
    if (gets := plan.weights.get(plan.canary, 0)) >= canary.weight:
        return None
    needs = f", and the whole traffic needs {plan.full}" if plan.full else ""
    then = "Wait for them" + (", or raise spec.canary.replicas" if plan.full else "")
    if now.lacks_accelerators(plan.canary):
        then = "No node has an accelerator for more: GPUAvailable says what to do"
    return _say(
        False,
        Reason.SHORT_OF_CAPACITY,
        f"spec.canary.weight is {canary.weight} and the canary gets {gets}:"
        f" {now.observed.ready(plan.canary)} of its replicas are ready{needs}. {then}",
        lasting=None if now.whole(plan.canary) else False,
    )


def _split(now: Situation) -> str:
    return ", ".join(f"{share} % {name}" for name, share in now.plan.weights.items())


def _sticks(now: Situation) -> str:
    if not now.plan.buckets:
        return ""
    return f" (cameras by the last two digits of {now.detector.spec.traffic.sticky_header})"


def _crossed(now: Situation) -> str:
    """Say which hosts of its own, or of others, are below whose wildcards."""
    found = [str(each) for each in now.observed.crossed]
    least = "at least " if len(found) == MOST_CROSSINGS else ""
    more = f"; and {least}{len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f". Of its hosts: {'; '.join(found[:SHOWN])}{more}" if found else ""


def _of_a_delegate(now: Situation) -> str:
    plan, detector = now.plan, now.detector
    if not plan.delegated_to or len(plan.weights) <= 1:
        return ""
    return (
        f" of what a {ROUTERS[plan.provider].KIND} of yours delegates to {detector.key};"
        f" the Service {_sends(now)}. Set spec.traffic.hosts to route here"
    )
