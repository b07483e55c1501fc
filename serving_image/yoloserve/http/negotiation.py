"""What a client would rather have: `Accept` and `Accept-Encoding` (RFC 9110, 12.5); pure.

Written here since no library that the server needs anyway reads them, and werkzeug's ranking does
not tell a range that was named from one that a wildcard let through, which `prefers` turns on.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

# Ends of elements and of parameters; a comma within quotes is neither.
ELEMENT = re.compile(r'(?:[^,"]|"(?:\\.|[^"\\])*"?)+')
PARAMETER = re.compile(r'(?:[^;"]|"(?:\\.|[^"\\])*"?)+')
WEIGHT = re.compile(r"\d+(\.\d*)?|\.\d+")  # ".2" is what Java's HttpURLConnection writes


@dataclass(frozen=True, slots=True)
class Wish:
    """One element of such a list."""

    name: str  # in lower case, without parameters
    weight: float


def wishes(lines: Sequence[str]) -> list[Wish]:
    """Read a field of one or several lines; an element whose weight is no number is left out."""
    return [wish for line in lines for each in ELEMENT.findall(line) if (wish := _wish(each))]


def _wish(element: str) -> Wish | None:
    name, *parameters = (part.strip().lower() for part in PARAMETER.findall(element) or [""])
    if not name:
        return None
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            value = value.strip()
            return Wish(name, min(float(value), 1)) if WEIGHT.fullmatch(value) else None
    return Wish(name, 1)


def prefers(asked: str, over: str, lines: Sequence[str]) -> bool:
    """Say whether `Accept` prefers media type `asked` over `over`, which is what it gets otherwise.

    The most specific range that fits a type weighs it. Where `over` is let through by a wildcard
    only, that weighs less than what was named: unless other kinds of things were named as well.
    Such a list is a client's default (Java's is `text/html, image/gif, image/jpeg, */*;q=.2`), and
    nobody's wish.
    """
    if not lines:
        return False
    given = wishes(lines)
    weight, _ = _weighed(asked, given)
    other, named = _weighed(over, given)
    if weight <= other:
        return False
    return named or other == 0 or not _names_other_kinds(asked, given)


def _weighed(kind: str, given: list[Wish]) -> tuple[float, bool]:
    """Weigh a media type; and say whether it was named, rather than let through by a `*`."""
    family = kind.partition("/")[0] + "/*"
    for names in ((kind,), (family,), ("*/*", "*")):
        if fitting := [wish.weight for wish in given if wish.name in names]:
            return max(fitting), names == (kind,)
    return 0, False


def _names_other_kinds(kind: str, given: list[Wish]) -> bool:
    family = kind.partition("/")[0] + "/"
    return any(wish.weight > 0 and not wish.name.startswith(("*", family)) for wish in given)


def encoding(offered: Sequence[str], lines: Sequence[str]) -> str | None:
    """Choose among codings in the server's order of preference; None: leave the answer as it is."""
    given = {wish.name.removeprefix("x-"): wish.weight for wish in wishes(lines)}
    rest = given.get("*", 0)
    best = max(offered, key=lambda name: given.get(name, rest))
    weight = given.get(best, rest)
    return best if weight > 0 and weight >= given.get("identity", 0) else None


def media_type(content_type: str) -> str:
    """Give a `Content-Type` without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()
