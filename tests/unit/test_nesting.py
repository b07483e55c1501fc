"""What is nested too deep to be read or written."""

import json
import tracemalloc
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolofleet.cluster import kinds
from yolofleet.cluster.cache import entry_of
from yolofleet.runtime import nesting

TEXTS = st.text(alphabet='{}[]"\\a,:é', max_size=8)
JSON = st.recursive(
    TEXTS | st.integers(-9, 9) | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)


def deep(levels: int, inner: bytes = b"1") -> bytes:
    return b'{"a":' * levels + inner + b"}" * levels


@pytest.mark.parametrize("levels", [1_025, 5_000, 10_000])
@given(before=JSON, within=JSON, after=JSON)
def test_only_what_lies_too_deep_is_cut_off(
    levels: int, before: Any, within: Any, after: Any
) -> None:
    """Brackets within strings are no levels."""
    parts = orjson.dumps(before), deep(levels, orjson.dumps(within)), orjson.dumps(after)
    first, cut, last = nesting.read(b"[%b,%b,%b]" % parts)
    assert (first, last) == (before, after)
    assert nesting.CUT in json.dumps(cut)
    assert not nesting.deeper_than(nesting.LEVELS + 2, cut)


@pytest.mark.parametrize("wrong", [b"", b"<html>{", b'{"a":', deep(2_000)[:-1], deep(2_000) + b"}"])
def test_what_is_no_json_is_none(wrong: bytes) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        nesting.read(wrong)


@pytest.mark.parametrize(
    "wrong", [b'"' + b'\\"' * 100_000, b'"' + b"a" * 1_000_000, b'"\\', deep(1_100, b'"\\"')]
)
def test_a_string_without_an_end_is_looked_at_once(wrong: bytes) -> None:
    """Each quotation mark within it began another: 80 kB took minutes."""
    with pytest.raises(orjson.JSONDecodeError):
        nesting.read(wrong)


def test_a_long_string_beside_what_is_too_deep_is_not_kept_twice() -> None:
    """A pattern that may go back remembers each letter: a hundred bytes for one."""
    content = b"[%b,%b]" % (deep(1_100), orjson.dumps("x" * 1_000_000))
    tracemalloc.start()
    try:
        nesting.read(content)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 30 * len(content), "orjson takes half of that"


@given(value=JSON)
def test_levels_are_counted_as_they_are_cut(value: Any) -> None:
    levels = next(n for n in range(99) if not nesting.deeper_than(n, value))
    assert nesting.shallow(value, levels) == value
    assert not levels or nesting.CUT in json.dumps(nesting.shallow(value, levels - 1))


def test_an_object_that_orjson_cannot_write_is_kept_without_what_lies_too_deep() -> None:
    metadata = {"name": "gate", "namespace": "shop", "uid": "u", "resourceVersion": "1"}
    spec = {"model": {"uri": "demo://shapes"}, "podTemplate": nesting.read(deep(300))}
    kept = entry_of(kinds.DETECTOR, {"metadata": metadata, "spec": spec}).manifest()
    assert kept["spec"]["model"] == spec["model"]
    assert nesting.deeper_than(50, kept["spec"]["podTemplate"])
    assert nesting.CUT in json.dumps(kept)
