"""Names of hosts, kept so that those below a wildcard are looked up and not searched."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator


class Hostnames:
    """A set of names, sorted from their ends: those that end alike stand side by side."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._reversed = sorted({name[::-1] for name in names})

    def __len__(self) -> int:
        return len(self._reversed)

    def __iter__(self) -> Iterator[str]:
        return (name[::-1] for name in self._reversed)

    def __contains__(self, name: str) -> bool:
        at = bisect_left(self._reversed, name[::-1])
        return at < len(self._reversed) and self._reversed[at] == name[::-1]

    def add(self, name: str) -> None:
        """Take in one that is not there."""
        insort(self._reversed, name[::-1])

    def remove(self, name: str) -> None:
        """Drop one that is there."""
        del self._reversed[bisect_left(self._reversed, name[::-1])]

    def ending(self, end: str) -> Iterator[str]:
        """Return the names that end so."""
        start = end[::-1]
        for at in range(bisect_left(self._reversed, start), len(self._reversed)):
            if not self._reversed[at].startswith(start):
                return
            yield self._reversed[at][::-1]

    def below(self, wildcard: str) -> Iterator[str]:
        """Return those for which `wildcard` would stand; of what is no *.example.com, none."""
        if wildcard.startswith("*."):
            yield from (name for name in self.ending(wildcard[1:]) if name != wildcard)
