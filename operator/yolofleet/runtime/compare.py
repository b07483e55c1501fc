"""What differs between an object as desired and as it is; pure.

Only the desired side is compared: what the API server defaults is no difference. The tree of
fields we applied (`ownership`) says which lists have keyed items, what somebody else took over,
and what we applied once and no longer want, none of which the values alone can tell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import orjson

from yolofleet.runtime.amounts import same
from yolofleet.runtime.objects import Manifest
from yolofleet.runtime.ownership import Fields, list_key


class Item(int):
    """A place in a list that knows the name of what is there, and is printed as that."""

    label: str

    def __new__(cls, place: int, item: Any) -> Item:
        """Return the place of `item`."""
        made = super().__new__(cls, place)
        made.label = str(item["name"]) if isinstance(item, dict) and "name" in item else str(place)
        return made

    def __str__(self) -> str:
        return self.label


Step = str | int
Path = tuple[Step, ...]
"""Where a field is; the items of lists by their places."""

_NEVER_TRACKED: Final = {"name", "namespace", "uid", "resourceVersion"}
_ALIASES: Final = {"serviceAccountName": "serviceAccount"}  # the server copies one from the other
_WHOLE_MAPS: Final = {"selector", "matchLabels", "nodeSelector"}  # nothing is defaulted in there
_WHOLE_PARTS: Final = {"data"}  # of a ControllerRevision: has no fields that could be owned
_HANDED_OVER: Final = ("spec", "replicas")  # what an autoscaler sets is not an addition
_OTHERS_TO_ADD: Final = "f:metadata"  # labels and annotations of others are theirs


class How(StrEnum):
    """In what way a field is not as desired."""

    MISSING = "missing"  # nobody has it
    CHANGED = "changed"  # ours, and with another value: we want something new
    TAKEN = "taken"  # another manager set it to another value
    UNOWNED = "unowned"  # as we want it, and not ours: restored from a backup, say
    REMOVED = "removed"  # somebody removed it: we wanted it before, and still do
    DROPPED = "dropped"  # we applied it once and no longer want it
    ADDED = "added"  # another manager added it, beside what we want


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that is not as desired; two are equal that say the same of the same field."""

    how: How
    path: Path
    want: Any = dataclasses.field(default=None, compare=False, repr=False)
    have: Any = dataclasses.field(default=None, compare=False, repr=False)

    @property
    def values(self) -> bytes:
        """Return what is wanted and what is there, to be compared with others."""
        return orjson.dumps([self.want, self.have], option=orjson.OPT_SORT_KEYS)

    @property
    def drift(self) -> bool:
        """Return whether somebody else caused it."""
        return self.how in (How.TAKEN, How.REMOVED, How.ADDED)

    @property
    def unit(self) -> str:
        """Return the part of the object that the field is in, as `last_applied` divides it."""
        return ".".join(str(step) for step in self.path[:2])

    @property
    def field_class(self) -> str:
        """Return the first two steps of the path: few enough to label a metric with."""
        return self.unit

    @property
    def field(self) -> str:
        """Return the path as a person writes it."""
        return ".".join(str(step) for step in self.path)

    def __str__(self) -> str:
        return f"{self.field} ({self.how})"


def differences(desired: Manifest, live: Manifest, applied: Fields) -> list[Difference]:
    """Return what applying `desired` would change of `live`; nothing if it would change nothing."""
    return [*_unlike(desired, live, applied, ()), *_dropped(applied, desired, ())]


def additions(desired: Manifest, live: Manifest, foreign: Fields) -> list[Difference]:
    """Return what others set in `live` that `desired` does not have; paths lead into `live`."""
    beside = {name: tree for name, tree in foreign.items() if name != _OTHERS_TO_ADD}
    return list(_added(beside, desired, live, ()))


def without(desired: Manifest, paths: Iterable[Path]) -> Manifest:
    """Return `desired` without the fields at `paths`; what is left is not copied."""
    kept = desired
    for path in sorted(paths, key=place_of, reverse=True):
        kept = _cut(kept, path)
    return kept


def _cut(value: Any, path: Path) -> Any:
    step, rest = path[0], path[1:]
    if isinstance(value, list):
        at = int(step)
        return [*value[:at], *([_cut(value[at], rest)] if rest else []), *value[at + 1 :]]
    inner = {step: _cut(value[step], rest)} if rest else {}
    return {name: inner.get(name, kept) for name, kept in value.items() if rest or name != step}


def place_of(path: Path) -> tuple[tuple[bool, Any], ...]:
    """Order paths so that later items of a list come later; a list has only numbers."""
    return tuple((isinstance(step, str), step) for step in path)


def _unlike(desired: Any, live: Any, applied: Fields | None, path: Path) -> Iterator[Difference]:
    """Walk `desired`. `applied` is None inside a value that is owned as a whole."""
    if isinstance(desired, dict) and isinstance(live, dict):
        yield from _unlike_fields(desired, live, applied, path)
    elif isinstance(desired, list) and isinstance(live, list):
        if applied is None:
            yield from _unlike_whole(desired, live, path)
        else:
            yield from _unlike_items(desired, live, applied, path)
    elif not _equal(desired, live, path):
        yield Difference(How.CHANGED, path, desired, live)


def _unlike_fields(
    desired: Mapping[str, Any], live: Mapping[str, Any], applied: Fields | None, path: Path
) -> Iterator[Difference]:
    for name, value in desired.items():
        if (not path and name in ("apiVersion", "kind")) or _untracked(path, name):
            continue
        here = (*path, name)
        if _empty(value) and name not in live:
            continue
        if name not in live:
            yield Difference(How.MISSING, here, value)
        elif applied is None:
            yield from _unlike(value, live[name], None, here)
        elif not path and isinstance(value, dict) and name not in _WHOLE_PARTS:
            # "f:spec": {} when others took all of it
            yield from _unlike(value, live[name], applied.get(f"f:{name}", {}), here)
        elif f"f:{name}" in applied:
            yield from _owned(value, live[name], applied[f"f:{name}"], here)
        elif not _empty(value):
            yield Difference(_taken_or_unowned(value, live[name], here), here, value, live[name])


def _owned(desired: Any, live: Any, applied: Fields, path: Path) -> Iterator[Difference]:
    """Compare a field that we own: as a whole if nothing below it is owned by itself."""
    if applied:
        yield from _unlike(desired, live, applied, path)
    elif _unlike_or_more(desired, live, path):
        yield Difference(How.CHANGED, path, desired, live)


def _taken_or_unowned(desired: Any, live: Any, path: Path) -> How:
    return How.TAKEN if _unlike_or_more(desired, live, path) else How.UNOWNED


def _unlike_or_more(desired: Any, live: Any, path: Path) -> bool:
    return next(_unlike(desired, live, None, path), None) is not None or _more(desired, live, path)


def _more(desired: Any, live: Any, path: Path) -> bool:
    """Say whether a label that we do not want is in a selector, here or below."""
    if not isinstance(desired, dict) or not isinstance(live, dict):
        return False
    if path[-1] in _WHOLE_MAPS and live.keys() - desired.keys():
        return True
    return any(_more(value, live.get(name), (*path, name)) for name, value in desired.items())


def _unlike_whole(desired: Sequence[Any], live: Sequence[Any], path: Path) -> Iterator[Difference]:
    if len(desired) != len(live):
        yield Difference(How.CHANGED, path, desired, live)
        return
    for index, (want, have) in enumerate(zip(desired, live, strict=True)):
        yield from _unlike(want, have, None, (*path, index))


def _unlike_items(
    desired: Sequence[Any], live: Sequence[Any], applied: Fields, path: Path
) -> Iterator[Difference]:
    """Compare lists whose items have a key (ports, containers) or are a set (finalizers)."""
    entries = [(key, applied[name]) for name in applied if (key := list_key(name)) is not None]
    names = tuple(entries[0][0]) if entries else ()
    trees = {tuple(key.get(name) for name in names): tree for key, tree in entries}
    there = _by_key(live, names) if entries else {}
    for index, want in enumerate(desired):
        here = (*path, Item(index, want))
        if not entries or not isinstance(want, dict):
            if want not in live:
                yield Difference(How.MISSING, here, want, live)
            continue
        who = tuple(_key_value(want, name) for name in names)
        have, tree = there.get(who), trees.get(who)
        if have is None:
            yield Difference(How.MISSING, here, want)
        elif tree is None:
            yield Difference(_taken_or_unowned(want, have, here), here, want, have)
        else:
            yield from _owned(want, have, tree, here)


def _dropped(applied: Fields, desired: Any, path: Path) -> Iterator[Difference]:
    """Walk what we applied and return what `desired` no longer has."""
    items: dict[tuple[str, ...], dict[tuple[Any, ...], Any]] = {}
    for name, tree in applied.items():
        if name.startswith("f:"):
            step, value = name[2:], desired.get(name[2:]) if isinstance(desired, dict) else None
        elif (key := list_key(name)) is not None:
            names = tuple(key)
            if names not in items:
                items[names] = _by_key(desired if isinstance(desired, list) else (), names)
            step = "/".join(str(each) for each in key.values())
            value = items[names].get(tuple(key.values()))
        else:
            continue  # "." is the item itself; "v:" items are compared by value
        if value is None:
            yield Difference(How.DROPPED, (*path, step))
        elif tree:
            yield from _dropped(tree, value, (*path, step))


def _added(foreign: Fields, desired: Any, live: Any, path: Path) -> Iterator[Difference]:
    for name, tree in foreign.items():
        if name.startswith("f:") and isinstance(live, dict):
            step: Step = name[2:]
            if step not in live or (*path, step) == _HANDED_OVER:
                continue
            want = desired.get(step) if isinstance(desired, dict) else None
            have = live[step]
        elif (key := list_key(name)) is not None and isinstance(live, list):
            index = next((i for i, item in enumerate(live) if _has_key(item, key)), None)
            if index is None:
                continue
            step, have = Item(index, live[index]), live[index]
            items = desired if isinstance(desired, list) else ()
            want = next((item for item in items if _has_key(item, key)), None)
        else:
            continue
        if want is None:
            yield Difference(How.ADDED, (*path, step), have=have)
            if (alias := _ALIASES.get(str(step))) and isinstance(live, dict) and alias in live:
                yield Difference(How.ADDED, (*path, alias), have=live[alias])
        elif tree:
            yield from _added(tree, want, have, (*path, step))


def _by_key(items: Sequence[Any], names: Sequence[str]) -> dict[tuple[Any, ...], Any]:
    """Return the items of a list by what identifies them, of several alike the first.

    A container has twenty variables: looked for one by one, they took half of a comparison.
    """
    keyed = [
        (tuple(_key_value(item, name) for name in names), item)
        for item in items
        if isinstance(item, dict)
    ]
    return dict(reversed(keyed))


def _has_key(item: Any, key: Mapping[str, Any]) -> bool:
    return isinstance(item, dict) and all(
        _key_value(item, name) == value for name, value in key.items()
    )


def _key_value(item: Mapping[str, Any], name: str) -> Any:
    """Return a part of the key of `item`; the protocol of a port may be left open."""
    return item.get(name, "TCP" if name == "protocol" else None)


def _untracked(path: Path, name: str) -> bool:
    return path == ("metadata",) and name in _NEVER_TRACKED


def _empty(value: Any) -> bool:
    return value is None or value == {} or value == []


def _equal(desired: Any, live: Any, path: Path) -> bool:
    if desired == live and isinstance(desired, bool) == isinstance(live, bool):
        return True
    return same(desired, live, path)
