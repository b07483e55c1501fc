"""Which pod of the operator serves the page of the fleet, and on which port; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from yolofleet.api.seen import Raw
from yolofleet.cli.pods import is_ready

SELECTOR: Final = "app.kubernetes.io/component=operator"
PORT_VARIABLE: Final = "YOLOFLEET_FLEET_PORT"
OURS: Final = "YOLOFLEET_LEASE_NAME"
"""A variable that each operator of ours has, whatever its chart was named."""


class NoPage(Exception):
    """There is none to show; the message says why."""


class Page(NamedTuple):
    """Where it is: on loopback of that pod."""

    namespace: str
    pod: str
    port: int


def page(pods: Iterable[Raw]) -> Page:
    """Return where the page is, on a ready pod if there is one. Raises `NoPage`."""
    ours = [pod for pod in pods if OURS in dict(_variables(pod))]
    if not ours:
        raise NoPage(
            "no operator was found here: -n names its namespace, without it all are looked through"
        )
    namespaces = sorted({str(pod["metadata"]["namespace"]) for pod in ours})
    if len(namespaces) > 1:  # anybody can make a pod that looks like one
        raise NoPage(
            f"there are operators in {', '.join(namespaces)}: say by -n which one is meant"
        )
    for pod in sorted(ours, key=is_ready, reverse=True):
        if port := dict(_variables(pod)).get(PORT_VARIABLE):
            return Page(pod["metadata"]["namespace"], pod["metadata"]["name"], int(port))
    raise NoPage(
        f"the operator in {ours[0]['metadata']['namespace']} serves no page of the fleet: set the"
        " chart's fleetPage.enabled to true"
    )


def _variables(pod: Raw) -> Iterator[tuple[str, str]]:
    for container in (pod.get("spec") or {}).get("containers") or ():
        for variable in container.get("env") or ():
            yield variable["name"], str(variable.get("value") or "")
