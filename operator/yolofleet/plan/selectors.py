"""The CEL by which devices are chosen, as far as it is read here.

Drivers, attributes and capacities that are compared with a constant, all of which must hold: what
DeviceClasses and nearly all claims are made of. The rest is for the scheduler to judge. It is taken
to hold, so that there may be fewer devices than are counted, and never more.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from operator import eq, ge, gt, le, lt, ne
from typing import Any, Final

from yolofleet.api.base import REMEMBERED
from yolofleet.runtime.quantity import amount


@dataclass(frozen=True, slots=True)
class Device:
    """One device as its driver publishes it. node: where alone it is; empty: it is not of one.

    attributes, capacity: by their whole name, such as gpu.nvidia.com/memory. An attribute that is
    None is there, and not read. intricate: whether it is not enough to know who has it: taints,
    counters of several. shared: whether several may have it.
    """

    driver: str
    pool: str
    name: str
    node: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    capacity: Mapping[str, Any] = field(default_factory=dict)
    intricate: bool = False
    shared: bool = False

    @property
    def id(self) -> tuple[str, str, str]:
        """Return what an allocation names it by."""
        return self.driver, self.pool, self.name


Test = Callable[[Device], bool | None]
"""None: what it looks at is not read."""


@dataclass(frozen=True, slots=True)
class Selector:
    """What one expression says of a device. whole: whether all of it was read."""

    tests: tuple[Test, ...]
    whole: bool

    def holds(self, device: Device) -> bool:
        """Say whether `device` may be meant, as far as that was read."""
        return all(test(device) is not False for test in self.tests)

    def reads(self, device: Device) -> bool:
        """Say whether all was read that it looks at in `device`."""
        return all(test(device) is not None for test in self.tests)


@lru_cache(maxsize=REMEMBERED)
def selector(expression: str) -> Selector:
    """Read an expression, of which any part that is not understood is left to the scheduler."""
    parts = list(_conjuncts(expression))
    tests = [test for part in parts if (test := _test(part)) is not None]
    return Selector(tuple(tests), len(tests) == len(parts))


def _conjuncts(expression: str) -> Iterator[str]:
    """Split at each && that is in no bracket and no text.

    What has an ||, a ?: or a comment is one part.
    """
    depth, quote, start, cuts = 0, "", 0, []
    for at, sign in enumerate(expression):
        if quote:
            if sign == quote and expression[at - 1] != "\\":
                quote = ""
        elif sign in "'\"":
            quote = sign
        elif sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth -= 1
        elif not depth and (sign in "?|" or expression.startswith("//", at)):
            yield expression
            return
        elif not depth and sign == "&" and expression[at + 1 : at + 2] == "&":
            cuts.append(at)
    for cut in cuts:
        yield expression[start:cut]
        start = cut + 2
    yield expression[start:]


_TEXT = r"""(?:"(?P<{0}1>[^"\\]*)"|'(?P<{0}2>[^'\\]*)')"""
_FIELD = rf"\[{_TEXT.format('domain')}\]\.(?P<name>\w+)"
_DRIVER: Final = re.compile(rf"device\.driver\s*==\s*{_TEXT.format('value')}")
_ATTRIBUTE: Final = re.compile(
    rf"device\.attributes{_FIELD}"
    rf"(?:\s*(?P<how>==|!=)\s*(?:{_TEXT.format('value')}|(?P<plain>true|false|-?\d+)))?"
)
_QUANTITY: Final = rf"quantity\(\s*{_TEXT.format('value')}\s*\)"
_CAPACITIES: Final = tuple(
    re.compile(rf"device\.capacity{_FIELD}{compared}")
    for compared in (
        rf"\.compareTo\(\s*{_QUANTITY}\s*\)\s*(?P<how>[<>]=?|[=!]=)\s*0",
        rf"\s*(?P<how>[=!]=)\s*{_QUANTITY}",
        rf"\.(?P<how>isGreaterThan|isLessThan)\(\s*{_QUANTITY}\s*\)",
    )
)
_HOWS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "==": eq,
    "!=": ne,
    "<": lt,
    "<=": le,
    ">": gt,
    ">=": ge,
    "isGreaterThan": gt,
    "isLessThan": lt,
}


def _test(part: str) -> Test | None:
    part = part.strip()
    if found := _DRIVER.fullmatch(part):
        return _driver(_text(found, "value"))
    if found := _ATTRIBUTE.fullmatch(part):
        return _attribute(_name(found), found["how"] or "==", _constant(found))
    for pattern in _CAPACITIES:
        if found := pattern.fullmatch(part):
            return _capacity(_name(found), found["how"], _text(found, "value"))
    return None


def _text(found: re.Match[str], group: str) -> str:
    return found[f"{group}1"] if found[f"{group}1"] is not None else found[f"{group}2"] or ""


def _name(found: re.Match[str]) -> str:
    return f"{_text(found, 'domain')}/{found['name']}"


def _constant(found: re.Match[str]) -> Any:
    if found["how"] is None:
        return True
    plain = found["plain"]
    if plain is None:
        return _text(found, "value")
    return plain == "true" if plain in ("true", "false") else int(plain)


def _driver(value: str) -> Test:
    return lambda device: device.driver == value


def _attribute(name: str, how: str, value: Any) -> Test:
    def test(device: Device) -> bool | None:
        if name not in device.attributes:
            return False
        if (there := device.attributes[name]) is None:
            return None
        same = type(there) is type(value) and there == value  # in Python 1 is True
        return same is (how == "==")

    return test


def _capacity(name: str, how: str, quantity: str) -> Test | None:
    try:
        least: Decimal = amount(quantity)
    except ValueError:  # the API server refuses it, or the scheduler: they say so
        return None

    def test(device: Device) -> bool:
        try:
            return name in device.capacity and bool(
                _HOWS[how](amount(device.capacity[name]), least)
            )
        except ValueError:
            return False

    return test
