"""Sticky cameras: which of a hundred buckets of cameras each revision answers.

A bucket is the last two digits of a header. Proxies draw a revision by weight for each request and
hash only within it, so what keeps a camera on one revision are routes by header: a revision with a
weight of 5 has five buckets. Which ones follows from those that it has: a weight that changes moves
no more buckets than it has to, whoever the stable revision is by then.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

BUCKETS: Final = 100

Buckets = Mapping[str, frozenset[int]]
"""By revision; no two have one in common."""

_WRITTEN = re.compile(r"\^\.\*\(\?:([][0-9|-]+)\)\$")


def assigned(before: Buckets, leads: Mapping[str, int]) -> dict[str, frozenset[int]]:
    """Return as many buckets for each revision as it has percent of the requests.

    before: those of the route that is there. leads: percent by revision, the stable one first;
    whoever comes anew gets the lowest ones. Empty where one revision has everything.
    """
    shares = {name: share for name, share in leads.items() if share > 0}
    if len(shares) < 2:
        return {}
    first, *others = shares
    owners: list[str | None] = [None if before else first] * BUCKETS
    for name, had in before.items():
        for bucket in had if name in shares else ():
            owners[bucket] = owners[bucket] or name
    for name in (*others, first):
        _fill(owners, name, shares)
    return {name: frozenset(_of(owners, name)) for name in shares}


def _fill(owners: list[str | None], name: str, shares: Mapping[str, int]) -> None:
    """Give `name` what it lacks of its share: those next to its own that others have too many of.

    What was taken last is so the first to be given back.
    """
    has, mine = Counter(owners), _of(owners, name)
    lacks = shares[name] - len(mine)
    near = [(min((abs(n - own) for own in mine), default=0), n) for n in range(BUCKETS)]
    for _, bucket in sorted(near) if lacks > 0 else ():
        who = owners[bucket]
        if lacks and (who is None or has[who] > shares[who]):
            has[who] -= 1
            lacks -= 1
            owners[bucket] = name


def _of(owners: Iterable[str | None], name: str) -> list[int]:
    return [bucket for bucket, who in enumerate(owners) if who == name]


def pattern(buckets: Iterable[int]) -> str:
    """Return an expression for the values of a header that end in one of `buckets`.

    Anchored: some gateways look for a match anywhere. Any hundred fit RE2's smallest limit.
    """
    units: dict[str, list[int]] = {}
    for ten in range(10):
        if own := "".join(str(bucket % 10) for bucket in sorted(buckets) if bucket // 10 == ten):
            units.setdefault(own, []).append(ten)
    classes = (f"{_class(''.join(map(str, tens)))}{_class(own)}" for own, tens in units.items())
    return f"^.*(?:{'|'.join(classes)})$"


def _class(digits: str) -> str:
    """Write some digits, in rising order, as a character class."""
    if len(digits) > 2 and digits in "0123456789":
        return f"[{digits[0]}-{digits[-1]}]"
    return digits if len(digits) == 1 else f"[{digits}]"


@lru_cache(maxsize=256)
def buckets_of(expression: str) -> frozenset[int]:
    """Return the buckets of an expression that `pattern` wrote; of any other, none.

    It has no sign that repeats anything: whoever may have edited the route, it is read in no time.
    """
    written = _WRITTEN.fullmatch(expression[:500])
    try:
        ends = re.compile(written[1]) if written else None
    except re.error:
        ends = None
    return frozenset(n for n in range(BUCKETS) if ends and ends.fullmatch(f"{n:02d}"))
