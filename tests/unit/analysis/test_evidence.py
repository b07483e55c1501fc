"""Nothing that a pod answers is believed, and nothing of it raises."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from played_pods import CANARY, STABLE, Server
from yolofleet.analysis.evidence import MOST_BYTES, Evidence, parse

GOOD = json.loads(Server("s1", STABLE).evidence())

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(st.binary(max_size=200))
def test_no_bytes_raise(body):
    assert isinstance(parse(body, revision=STABLE), str)


@given(st.sampled_from(sorted(GOOD)), values)
def test_no_value_of_a_field_raises(field, value):
    told = parse(json.dumps(GOOD | {field: value}).encode(), revision=STABLE)
    assert isinstance(told, Evidence | str)


@given(st.sampled_from(sorted(GOOD["shadow"][CANARY])), values)
def test_no_value_of_what_was_compared_raises(field, value):
    shadow = {CANARY: GOOD["shadow"][CANARY] | {field: value}}
    told = parse(json.dumps(GOOD | {"shadow": shadow}).encode(), revision=STABLE)
    assert isinstance(told, Evidence | str)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "answers in a format other than 1: its server is of another version"),
        ({"revision": "gate-00000000"}, "says that it is of 'gate-00000000', not of"),
        ({"requests": {"request": {"ok": -1}}}, "requests.request.ok"),
        ({"requests": {"request": {"ok": 2**60}}}, "requests.request.ok"),
        ({"latency": {"request": {"first": 0, "counts": [1] * 100}}}, "latency.request.counts"),
        ({"shadow": {CANARY: {"sure": {f"c{i}": 1 for i in range(81)}}}}, "sure"),
        ({"shadow": {f"gate-{i}": {} for i in range(5)}}, "shadow"),
        ({"started": "now"}, "started"),
    ],
)
def test_what_is_no_evidence_is_said(change, said):
    told = parse(json.dumps(GOOD | change).encode(), revision=STABLE)
    assert isinstance(told, str)
    assert said in told
    assert len(told) < 200


def test_what_is_too_large_is_not_read():
    assert parse(b" " * (MOST_BYTES + 1), revision=STABLE) == "answers with more than 1024 KiB"


def test_pairs_of_classes_are_few_however_they_are_told():
    """What is kept of each pod is small, or a few that lie would fill the operator's memory."""
    shadow = {"a": {"confused": {"b": {str(number): 1 for number in range(201)}}}}
    told = parse(json.dumps(GOOD | {"shadow": shadow}).encode(), revision=STABLE)
    assert "more than 200 pairs" in told


def test_fields_of_a_later_version_are_passed_over():
    told = parse(json.dumps(GOOD | {"invented": {"later": 1}}).encode(), revision=STABLE)
    assert isinstance(told, Evidence)


def test_a_histogram_is_told_from_its_first_bucket_on():
    times = {"request": {"first": 31, "counts": [3, 0, 9]}}
    told = parse(json.dumps(GOOD | {"latency": times}).encode(), revision=STABLE)
    whole = told.latency["request"].whole()
    assert len(whole) == 99
    assert (whole[31], whole[33], sum(whole)) == (3, 9, 12)
