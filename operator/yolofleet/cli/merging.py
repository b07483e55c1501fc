"""Merge patches (RFC 7386): what makes one value of another, and which fields one touches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Path = tuple[str, ...]


def difference(now: Any, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the merge patch that makes `wanted` of `now`.

    What is null or empty in `wanted` and absent now is no difference: the API server fills it in.
    """
    now = now if isinstance(now, Mapping) else {}
    patch: dict[str, Any] = {name: None for name in now if name not in wanted}
    for name, value in wanted.items():
        if name not in now:
            if (given := _given(value)) is not None:
                patch[name] = given
        elif isinstance(value, Mapping) and isinstance(now[name], Mapping):
            if inner := difference(now[name], value):
                patch[name] = inner
        elif now[name] != value:
            patch[name] = value
    return patch


def _given(value: Any) -> Any:
    """Return `value` without what is null or empty in it; a number or `false` is neither."""
    if isinstance(value, Mapping):
        inner = {name: _given(each) for name, each in value.items()}
        return {name: each for name, each in inner.items() if each is not None} or None
    return None if value in (None, [], "") else value


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
