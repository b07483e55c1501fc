"""Where in a pod, and in what else users write, quantities are: there, equal amounts are equal.

Elsewhere text is text: an environment variable of 1000m is not the same as one of 1.
"""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, cast

from yolofleet.runtime import quantity
from yolofleet.runtime.quantity import MILLI, NANO
from yolofleet.runtime.quoting import cut

Places = Mapping[str, "Places | Decimal"]
"""A tree of field names ("*": any) down to the quantities, whose finest step each leaf is.

Lists are passed through: what holds for one item holds for all.
"""

RESOURCES: Final[Places] = {"requests": {"*": MILLI}, "limits": {"*": MILLI}}
_DIVISOR: Final[Places] = {"resourceFieldRef": {"divisor": NANO}}
_CONTAINER: Final[Places] = {"resources": RESOURCES, "env": {"valueFrom": _DIVISOR}}
_DOWNWARD: Final[Places] = {"downwardAPI": {"items": _DIVISOR}}
_VOLUME: Final[Places] = {
    "emptyDir": {"sizeLimit": NANO},
    "ephemeral": {"volumeClaimTemplate": {"spec": {"resources": RESOURCES}}},
    **_DOWNWARD,
    "projected": {"sources": _DOWNWARD},
}
POD: Final[Places] = {
    "containers": _CONTAINER,
    "initContainers": _CONTAINER,
    "resources": RESOURCES,
    "overhead": {"*": MILLI},
    "volumes": _VOLUME,
}
"""Of the spec of a pod."""

BEHAVIOR: Final[Places] = {"scaleUp": {"tolerance": NANO}, "scaleDown": {"tolerance": NANO}}
"""Of the behavior of an autoscaler."""

CHILDREN: Final[Places] = {"spec": {"template": {"spec": POD}, "behavior": BEHAVIOR}}
"""Of any object that pods are made from, and of an autoscaler."""


def respelled(value: Any, places: Places | Decimal) -> Any:
    """Return `value` with equal amounts at `places` spelled alike; what is none stays."""
    if isinstance(places, Decimal):
        try:
            return quantity.spelled(value, places)
        except ValueError:
            return value
    if isinstance(value, list):
        return [respelled(item, places) for item in value]
    if isinstance(value, Mapping):
        return {
            name: respelled(inner, below) if (below := _below(places, name)) else inner
            for name, inner in value.items()
        }
    return value


def same(one: object, other: object, path: Iterable[object]) -> bool:
    """Say whether `path` into an object leads to a quantity, and both are the same amount."""
    places: Places | Decimal | None = CHILDREN
    for step in path:
        if isinstance(places, Decimal) or places is None:
            return False
        places = places if isinstance(step, int) else _below(places, str(step))
    if not isinstance(places, Decimal):
        return False
    try:
        return quantity.spelled(one, places) == quantity.spelled(other, places)
    except ValueError:
        return False


def unreadable(value: Any, places: Places | Decimal, path: str) -> Iterator[str]:
    """Say what at `places` is no quantity, and where: the API server tells only that one is not."""
    if isinstance(places, Decimal):
        try:
            quantity.amount(value)
        except ValueError as error:
            yield f"{path}: {error}"
    elif isinstance(value, list):
        for number, item in enumerate(value):
            named = item.get("name", number) if isinstance(item, Mapping) else number
            yield from unreadable(item, places, f"{path}[{cut(named)}]")
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if below := _below(places, name):
                yield from unreadable(inner, below, f"{path}.{cut(name)}")


def _below(places: Places, name: str) -> Places | Decimal | None:
    return cast("Places | Decimal | None", places.get(name, places.get("*")))
