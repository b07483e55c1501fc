"""JSON that is nested deeper than orjson reads (1,024 levels) or writes (254).

An API server stores 10,000 levels of a free-form field. Whoever may write one object must not keep
others from being looked after: what lies too deep is cut off, and a mark says so in its place.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import orjson

from yolofleet.runtime.kind import Kind
from yolofleet.runtime.objects import Manifest

LEVELS: Final = 100  # kept; the deepest field of Kubernetes' own lies some twenty levels down
CUT: Final = f"(nested deeper than {LEVELS} levels)"

# Nothing here is tried twice, nor remembered to be (`+` after a quantifier). A string without an
# end is one all the same: else each quotation mark within was taken for the beginning of another.
_ANY_STRING_OR_BRACKET: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)
_OF_A_LIST: Final = 2  # `items` of a list, whose own levels begin there

E = TypeVar("E")


def read(content: bytes) -> Any:
    """Read JSON; what lies too deep to be read is cut off. Raises orjson.JSONDecodeError."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return orjson.loads(b"".join(_shallow(content)))  # what is no JSON is none now either


def shallow(value: Any, levels: int = LEVELS) -> Any:
    """Return `value` with a mark in place of maps and lists that lie deeper than `levels`."""
    if not isinstance(value, dict | list):
        return value
    if not levels:
        return CUT
    if isinstance(value, list):
        return [shallow(inner, levels - 1) for inner in value]
    return {name: shallow(inner, levels - 1) for name, inner in value.items()}


def deeper_than(levels: int, value: Any) -> bool:
    """Say whether maps and lists are nested in more than `levels`."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return not levels or any(deeper_than(levels - 1, one) for one in inner)


def bounded(shrink: Callable[[Kind, Manifest], E]) -> Callable[[Kind, Manifest], E]:
    """Have `shrink`, which writes an object as JSON, do without what lies too deep."""

    @functools.wraps(shrink)
    def shrunk(kind: Kind, manifest: Manifest) -> E:
        try:
            return shrink(kind, manifest)
        except TypeError:  # what orjson says of all that it cannot write
            return shrink(kind, shallow(manifest))

    return shrunk


def _shallow(content: bytes) -> Iterator[bytes]:
    """Yield JSON up to LEVELS below the items of a list."""
    kept, depth, written = LEVELS + _OF_A_LIST, 0, 0
    for found in _ANY_STRING_OR_BRACKET.finditer(content):
        match found[0]:
            case b"{" | b"[":
                depth += 1
                if depth == kept + 1:
                    yield content[written : found.start()] + orjson.dumps(CUT)
            case b"}" | b"]":
                depth -= 1
                if depth == kept:
                    written = found.end()
    yield content[written:]
