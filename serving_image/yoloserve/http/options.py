"""What a caller may ask for, by name: what is not known is refused, and what is near it said."""

import difflib
from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from yoloserve.detections.postprocess import Options
from yoloserve.detector import Detector
from yoloserve.errors import InvalidParameter, quoted

OPTIONS = frozenset({"confidence", "iou", "classes", "max_detections", "agnostic_nms"})
LEAST_LIKENESS = 0.5  # "conf" is like "confidence"
LONGEST_MEANT = 64  # characters of a name that may be mistyped; matching takes 40 bytes for each
LONGEST_INDEX = 9  # digits; Python itself refuses to read thousands of them


def option_of(detector: Detector, **given: Any) -> Options:
    """Take what was given; the rest is the server's."""
    own = {name: value for name, value in given.items() if value is not None}
    return replace(detector.defaults, **own) if own else detector.defaults


def refuse_unknown(given: Iterable[str], known: Collection[str], kind: str) -> None:
    """Raise `InvalidParameter` for a name that means nothing here, and say what is near it.

    An option that is passed over is worse than a refusal: its caller believes that it holds.
    """
    for name in given:
        if name not in known:
            near = _nearest(name, known)
            hint = f"did you mean {near}? There are" if near else "there are"
            raise InvalidParameter(
                f"{quoted(name)} is no {kind} here; {hint} {', '.join(sorted(known))}"
            )


def _nearest(name: str, known: Collection[str]) -> str:
    if len(name) > LONGEST_MEANT:  # in a body it may have as many megabytes as that
        return ""
    return next(iter(difflib.get_close_matches(name.lower(), known, 1, LEAST_LIKENESS)), "")


def refuse_unknown_query(query: bytes, known: Collection[str]) -> None:
    """Raise `InvalidParameter` for parameters of a query that are unknown, or given twice."""
    names = [name for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True)]
    refuse_unknown(names, known, "query parameter")
    if len(names) > len(set(names)):
        doubled = next(name for name in names if names.count(name) > 1)
        raise InvalidParameter(f"{doubled}: given {names.count(doubled)} times; once is meant")


def class_indices(wanted: str, known: tuple[str, ...]) -> frozenset[int]:
    """Read "person, 2" as indices; raise `InvalidParameter` for what the model does not have.

    A name may have commas in it: the longest that fits is meant. Nobody needs more words than to
    name each class and number it, too: more are refused before they are looked at.
    """
    names = _indices_of(known)
    most = len(known) + sum(1 + name.count(",") for name in known)
    if (many := 1 + wanted.count(",")) > most:
        raise InvalidParameter(f"classes: {many} names; the model has {len(known)} classes")
    words, indices, at = [word.strip() for word in wanted.split(",")], set[int](), 0
    lengths = sorted({1, *(1 + name.count(",") for name in names)}, reverse=True)
    while at < len(words):
        for count in lengths:
            if named := names.get(", ".join(words[at : at + count])):
                break
        else:
            count, word = 1, words[at]
            if not (word.isdecimal() and len(word) <= LONGEST_INDEX and int(word) < len(known)):
                raise InvalidParameter(
                    f"classes: no class {quoted(word)}; there are {', '.join(known)}"
                )
            named = [int(word)]
        indices.update(named)
        at += count
    return frozenset(indices)


@lru_cache(maxsize=4)
def _indices_of(known: tuple[str, ...]) -> dict[str, list[int]]:
    """Number each name, its blanks put in order: all of them, where a model has two of one name."""
    indices: dict[str, list[int]] = {}
    for index, name in enumerate(known):
        spaced = ", ".join(part.strip() for part in name.split(","))
        indices.setdefault(spaced, []).append(index)
    return indices
