"""Detectors of which one could be a revision of the other by its name: their Services would meet.

An index beside the cache, kept by it.
"""

from __future__ import annotations

from collections.abc import Mapping

from yolofleet.api.names import revision_of, revisions_prefix

_Index = dict[tuple[str, str], dict[str, str]]
"""By namespace and prefix of the names of revisions: the keys of detectors, and since when."""


class Namesakes:
    """Who has revisions of a name, and who looks like one of them."""

    def __init__(self) -> None:
        self._by_prefix: _Index = {}
        self._alike: _Index = {}

    def add(self, key: str, since: str) -> Mapping[str, str]:
        """Take in the detector `key`; return whom it concerns."""
        for index, place in self._places(key):
            index.setdefault(place, {})[key] = since
        return self._met(key)

    def remove(self, key: str) -> Mapping[str, str]:
        """Forget the detector `key`; return whom that concerns."""
        for index, place in self._places(key):
            if index.get(place, {}).pop(key, None) is not None and not index[place]:
                del index[place]
        return self._met(key)

    def older(self, key: str) -> str:
        """Return the name of the first of those whom `key` meets, if that one was there before."""
        namespace, _, name = key.partition("/")
        since = self._by_prefix.get((namespace, revisions_prefix(name)), {}).get(key, "")
        met = min(((then, other) for other, then in self._met(key).items()), default=None)
        return met[1].partition("/")[2] if met and met < (since, key) else ""

    def _places(self, key: str) -> list[tuple[_Index, tuple[str, str]]]:
        namespace, _, name = key.partition("/")
        places = [(self._by_prefix, (namespace, revisions_prefix(name)))]
        if prefix := revision_of(name):
            places.append((self._alike, (namespace, prefix)))
        return places

    def _met(self, key: str) -> Mapping[str, str]:
        namespace, _, name = key.partition("/")
        alike = self._alike.get((namespace, revisions_prefix(name)), {})
        theirs = self._by_prefix.get((namespace, revision_of(name)), {})
        return {other: since for other, since in (*alike.items(), *theirs.items()) if other != key}
