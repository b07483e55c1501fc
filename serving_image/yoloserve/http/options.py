"""What a caller may ask for, by name: what is not known is refused, and what is near it said."""

import difflib
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

from yoloserve.detections.postprocess import Options
from yoloserve.detector import Detector
from yoloserve.errors import InvalidParameter

OPTIONS = frozenset({"confidence", "iou", "classes", "max_detections", "agnostic_nms"})
LEAST_LIKENESS = 0.5  # "conf" is like "confidence"


def option_of(detector: Detector, **given: Any) -> Options:
    """Take what was given; the rest is the server's."""
    return replace(detector.defaults, **{k: v for k, v in given.items() if v is not None})


def refuse_unknown(given: Iterable[str], known: Collection[str], kind: str) -> None:
    """Raise `InvalidParameter` for a name that means nothing here, and say what is near it.

    An option that is passed over is worse than a refusal: its caller believes that it holds.
    """
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name.lower(), known, 1, LEAST_LIKENESS)
            hint = f"did you mean {near[0]}? There are" if near else "there are"
            raise InvalidParameter(
                f"{name[:100]!r} is no {kind} here; {hint} {', '.join(sorted(known))}"
            )


def refuse_unknown_query(query: bytes, known: Collection[str]) -> None:
    """Raise `InvalidParameter` for parameters of a query that are unknown, or given twice."""
    names = [name for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True)]
    refuse_unknown(names, known, "query parameter")
    if len(names) > len(set(names)):
        doubled = next(name for name in names if names.count(name) > 1)
        raise InvalidParameter(f"{doubled}: given {names.count(doubled)} times; once is meant")


def class_indices(wanted: str, known: tuple[str, ...]) -> frozenset[int]:
    """Read "person, 2" as indices; raise `InvalidParameter` for what the model does not have.

    A name may have commas in it: the longest that fits is meant.
    """
    words, indices = [word.strip() for word in wanted.split(",")], set[int]()
    longest = 1 + max((name.count(",") for name in known), default=0)
    while words:
        for count in range(min(longest, len(words)), 0, -1):
            name = ", ".join(words[:count])
            # All of them, where a model has two of one name.
            if named := [index for index, each in enumerate(known) if _spaced(each) == name]:
                break
        else:
            count, word = 1, words[0]
            if not (word.isdecimal() and int(word) < len(known)):
                raise InvalidParameter(
                    f"classes: no class {word[:100]!r}; there are {', '.join(known)}"
                )
            named = [int(word)]
        indices.update(named)
        del words[:count]
    return frozenset(indices)


def _spaced(name: str) -> str:
    return ", ".join(part.strip() for part in name.split(","))
