"""What is nested too deep to be read or written."""

import json
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
