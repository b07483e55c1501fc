"""Merge patches (RFC 7386): what makes one value of another, and which fields one touches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Path = tuple[str, ...]


def difference(now: Any, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the merge patch that makes `wanted` of `now`.

    What is null in `wanted` is absent: it removes, and nothing else. What is empty counts: roles of
    nodes are labels with an empty value, and what is left out may get a default that is not empty.
    """
    now = now if isinstance(now, Mapping) else {}
    patch: dict[str, Any] = {name: None for name in now if name not in wanted}
    for name, value in wanted.items():
        if name not in now:
            if value is not None:
                patch[name] = _without_nulls(value)
        elif isinstance(value, Mapping) and isinstance(now[name], Mapping):
            if inner := difference(now[name], value):
                patch[name] = inner
        elif now[name] != value:
            patch[name] = value
    return patch


def _without_nulls(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {name: _without_nulls(each) for name, each in value.items() if each is not None}


def touched(patch: Mapping[str, Any], at: Path = ()) -> Iterator[Path]:
    """Return the path of each field that `patch` sets or removes."""
    for name, value in patch.items():
        if isinstance(value, Mapping) and value:
            yield from touched(value, (*at, name))
        else:
            yield (*at, name)


def removed(patch: Mapping[str, Any]) -> list[Path]:
    """Return the path of each field that `patch` removes."""
    return [path for path in touched(patch) if value_at(patch, path) is None]


def value_at(value: Any, path: Path) -> Any:
    """Return what is at `path`; None where nothing is."""
    for name in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def kept(patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `patch` sets, without what it removes."""
    found: dict[str, Any] = {}
    for name, value in patch.items():
        if isinstance(value, Mapping) and value:
            if inner := kept(value):
                found[name] = inner
        elif value is not None:
            found[name] = value
    return found
