"""Whose doing a difference is: what was wanted before, who set what, and what is left out then."""

from typing import Any

import pytest

from yolofleet.api.names import LAST_APPLIED_ANNOTATION
from yolofleet.runtime.compare import differences, without
from yolofleet.runtime.last_applied import hashes_of, still_applied, with_hashes
from yolofleet.runtime.ownership import setters

DESIRED: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Thing",
    "metadata": {"name": "gate", "labels": {"a": "b"}},
    "spec": {"replicas": 2, "items": [{"name": "x", "value": 1}, {"name": "y", "value": 2}]},
    "automount": False,
}
NOTED = {"f:metadata": {"f:annotations": {f"f:{LAST_APPLIED_ANNOTATION}": {}}}}


def test_what_was_applied_has_the_parts_of_an_object_and_not_its_kind() -> None:
    assert set(hashes_of(DESIRED)) == {
        "metadata.name",
        "metadata.labels",
        "spec.replicas",
        "spec.items",
        "automount",
    }


def test_what_is_still_wanted_is_told_part_by_part() -> None:
    live = with_hashes(DESIRED, hashes_of(DESIRED), LAST_APPLIED_ANNOTATION)
    changed = DESIRED | {"spec": DESIRED["spec"] | {"replicas": 3, "new": 1}}
    still = still_applied(hashes_of(changed), live, NOTED, LAST_APPLIED_ANNOTATION)
    assert still is not None
    assert hashes_of(changed).keys() - still == {"spec.replicas", "spec.new"}


def test_writing_the_hashes_on_an_object_leaves_the_desired_one_alone() -> None:
    before = str(DESIRED)
    noted = with_hashes(DESIRED, {"spec.replicas": "0"}, LAST_APPLIED_ANNOTATION)
    assert LAST_APPLIED_ANNOTATION in noted["metadata"]["annotations"]
    assert str(DESIRED) == before


@pytest.mark.parametrize("note", ["", "{", "[]", "7", "null"])
def test_a_note_that_cannot_be_read_tells_nothing(note: str) -> None:
    live = {"metadata": {"annotations": {LAST_APPLIED_ANNOTATION: note}}}
    assert still_applied(hashes_of(DESIRED), live, NOTED, LAST_APPLIED_ANNOTATION) is None


def test_a_note_that_somebody_else_wrote_tells_nothing() -> None:
    live = with_hashes(DESIRED, hashes_of(DESIRED), LAST_APPLIED_ANNOTATION)
    for applied in ({}, {"f:metadata": {"f:annotations": {}}}, {"f:metadata": {}}):
        assert still_applied(hashes_of(DESIRED), live, applied, LAST_APPLIED_ANNOTATION) is None


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ({"replicas": 9}, {"items": DESIRED["spec"]["items"]}),
        (
            {"items": [{"name": "x", "value": 1}, {"name": "y", "value": 9}]},
            {"replicas": 2, "items": [{"name": "x", "value": 1}, {"name": "y"}]},
        ),
        (
            {"items": [{"name": "y", "value": 2}]},
            {"replicas": 2, "items": [{"name": "y", "value": 2}]},
        ),
        ({"items": [], "replicas": 1}, {"items": []}),
    ],
)
def test_what_others_changed_is_left_out_and_nothing_else(
    change: dict[str, Any], left: dict[str, Any]
) -> None:
    key = {".": {}, "f:name": {}}
    mine = {"f:items": {'k:{"name":"x"}': key, 'k:{"name":"y"}': key}}
    live = DESIRED | {"spec": DESIRED["spec"] | change}
    found = [
        each
        for each in differences(DESIRED, live, {"f:spec": mine})
        if each.path[0] == "spec" and each.how in ("taken", "missing")
    ]
    assert without(DESIRED, [each.path for each in found])["spec"] == left
    assert DESIRED["spec"]["replicas"] == 2


TREE = {
    "f:spec": {
        "f:replicas": {},
        "f:containers": {'k:{"name":"x"}': {"f:image": {}}},
        "f:ports": {'k:{"containerPort":80,"protocol":"TCP"}': {}},
    }
}


@pytest.mark.parametrize(
    ("path", "reached"),
    [
        (("spec", "replicas"), True),
        (("spec", "paused"), False),
        (("spec", "containers", "x", "image"), True),
        (("spec", "containers", "x", "args"), False),
        (("spec", "containers", "y", "args"), False),
        (("spec", "ports", "http"), True),  # the key of a port is not its name
        (("spec", "replicas", "deeper"), True),  # they own it as a whole
    ],
)
def test_who_set_a_field_is_read_off_the_trees(path: tuple[str, ...], reached: bool) -> None:
    assert setters([("kubectl", TREE), ("other", {"f:data": {}})], path) == ["kubectl"] * reached
