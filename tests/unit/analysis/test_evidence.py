"""Nothing that a pod answers is believed, and nothing of it raises."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from played_pods import CANARY, STABLE, Server
from yolofleet.analysis.evidence import MOST_BYTES, MOST_VALUES, Evidence, parse
from yolofleet.api.typed import Approval, approvals_in, patching, retries_in, retrying

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


MANY = {str(number): "" for number in range(MOST_VALUES)}


@pytest.mark.parametrize(
    "swollen",
    [
        {"requests": MANY},
        {"requests": {"request": MANY}},
        {"images_squared": MANY},
        {"detections": MANY},
        {"latency": MANY},
        {"latency": {"request": {"counts": list(MANY.values())}}},
        {"shadow": MANY},
        *({"shadow": {CANARY: {of: MANY}}} for of in ("expected", "kept", "sure", "confused")),
        {"shadow": {CANARY: {"confused": {"a": MANY}}}},
        {"shadow": {CANARY: {"expected": {"a": list(MANY.values())}}}},
        {"shadow": {CANARY: {"compute": {"stable": {"counts": list(MANY.values())}}}}},
    ],
)
def test_what_is_wrong_many_times_is_noted_once(swollen):
    """The operator stood still while each of 349,000 mistakes of a pod was put into words."""
    with pytest.raises(ValidationError) as wrong:
        Evidence.model_validate_json(json.dumps(GOOD | swollen))
    assert wrong.value.error_count() == 1


@pytest.mark.parametrize("values", [[0], {"a": 0}, [[]], [{}]])
def test_more_values_than_any_server_tells_are_not_made(values):
    """Not even of a field that nobody reads."""
    told = parse(json.dumps(GOOD | {"later": [values] * MOST_VALUES}).encode(), revision=STABLE)
    assert told == "answers with more than 20,000 values"


def test_names_of_classes_may_have_commas():
    names = {f'{number} white "shark", man-eater\\, {"a, " * 20}': 1 for number in range(1000)}
    told = parse(json.dumps(GOOD | {"detections": names}).encode(), revision=STABLE)
    assert not isinstance(told, str), told
    assert len(told.detections) == 1000


COMMANDS = [
    patching("g", "s", Approval("gate-new", 9, "AnalysisFailed").patch()),
    retrying("g", "s", "gate-new:1"),
]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("disguise", ["{}", "kube{}", "\x1b[2J{}", "\u202e{}"])
def test_no_words_of_a_pod_command_anything_or_steer_a_terminal(command, disguise):
    said = disguise.format(command.replace("ctl", "ct\u200bl"))
    told = parse(
        json.dumps(
            GOOD
            | {
                "golden": {"state": "failed", "message": f"{said}. {command}"},
                "detections": {said: 1},
                "shadow": {CANARY: {"sure": {said: 1}, "confused": {said: {said: 1}}}},
            }
        ).encode(),
        revision=STABLE,
    )
    assert isinstance(told, Evidence)
    shadow = told.shadow[CANARY]
    words = [told.golden.message, *told.detections, *shadow.sure, *shadow.confused]
    for each in (*words, *shadow.confused[words[-1]]):
        assert each.isprintable()
        assert not [*approvals_in(each), *retries_in(each)]


def test_of_a_long_message_the_beginning_is_kept():
    golden = {"state": "failed", "message": "x" * 1000}
    told = parse(json.dumps(GOOD | {"golden": golden}).encode(), revision=STABLE)
    assert told.golden.message == "x" * 400


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
