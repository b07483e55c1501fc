"""What exporters write into models."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yoloserve.errors import ModelUnsupported
from yoloserve.model.metadata import Metadata

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
ANYTHING = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(SCALARS, SCALARS, max_size=3)


def test_the_text_of_an_onnx_export_is_read() -> None:
    told = Metadata.parse(
        {
            "names": "{0: 'person', 1: \"traffic light\"}",
            "imgsz": "[384, 640]",
            "stride": "32",
            "batch": "1",
            "task": "detect",
            "version": "8.3.0",
            "args": "{'batch': 1, 'dynamic': True}",
            "author": "somebody",
        }
    )
    assert told == Metadata(
        names=("person", "traffic light"),
        image_size=(384, 640),
        stride=32,
        batch=1,
        dynamic=True,
        version="8.3.0",
    )


def test_the_json_of_a_torchscript_export_is_read() -> None:
    told = Metadata.parse({"names": {"1": "b", "0": "a"}, "imgsz": [320, 320], "stride": 32})
    assert told.names == ("a", "b")
    assert told.image_size == (320, 320)


def test_a_model_that_says_nothing_has_the_usual_values() -> None:
    assert Metadata.parse({}) == Metadata(image_size=(640, 640), stride=32)


def test_one_number_is_a_square() -> None:
    assert Metadata.parse({"imgsz": "320"}).image_size == (320, 320)


def test_another_task_is_refused() -> None:
    for task in ("segment", "'pose'", '"obb"'):
        with pytest.raises(ModelUnsupported, match="this server serves 'detect'"):
            Metadata.parse({"task": task})
    assert Metadata.parse({"task": '"Detect" '}) == Metadata()


HUGE = int("f" * 20_000, 16)
ALIASES: list[Any] = ["x"]
for _ in range(40):  # as a few lines of YAML write them
    ALIASES = [ALIASES] * 10

READABLE = {"names": "['a', 'b']", "imgsz": "[384, 640]", "stride": "16", "version": "7"}
READ = Metadata(names=("a", "b"), image_size=(384, 640), stride=16, version="7")


@pytest.mark.parametrize(
    ("name", "entry", "default"),
    [
        ("names", "{0: 'a', 2: 'c'}", {"names": ()}),
        ("names", "{0: 'a', '0': 'c'}", {"names": ()}),
        ("names", "17", {"names": ()}),
        ("names", "{0: open('/etc/passwd')}", {"names": ()}),
        ("names", "{0: ", {"names": ()}),
        ("names", "[['a'], ['b']]", {"names": ()}),
        ("names", "[" * 10_000, {"names": ()}),
        ("imgsz", "[1, 2, 3]", {"image_size": (640, 640)}),
        ("imgsz", "[]", {"image_size": (640, 640)}),
        ("imgsz", "0", {"image_size": (640, 640)}),
        ("imgsz", "1e300", {"image_size": (640, 640)}),
        ("imgsz", True, {"image_size": (640, 640)}),
        ("stride", "thirty-two", {"stride": 32}),
        ("stride", "-32", {"stride": 32}),
        ("stride", float("nan"), {"stride": 32}),
        ("stride", [], {"stride": 32}),
        ("batch", {"a": 1}, {}),
        ("args", "{'nms': ", {}),
        ("end2end", "maybe", {}),
        ("task", ["detect"], {}),
        # Half a character would make each answer with it fail.
        ("names", ["a", "\ud800"], {"names": ()}),
        ("names", '["\\ud800"]', {"names": ()}),
        ("version", "\udfff", {"version": ""}),
        ("names", {"9" * 3000: "a"}, {"names": ()}),
        pytest.param("names", ALIASES, {"names": ()}, id="aliases for names"),
        pytest.param("version", ALIASES, {"version": ""}, id="aliases for a version"),
        # No number of so many digits can be written.
        pytest.param("version", HUGE, {"version": ""}, id="a huge version"),
        pytest.param("names", [HUGE], {"names": ()}, id="a huge name"),
        pytest.param("stride", f"{HUGE:#x}", {"stride": 32}, id="a huge stride"),
        pytest.param("stride", [8, HUGE], {"stride": 32}, id="huge strides"),
        pytest.param("imgsz", HUGE, {"image_size": (640, 640)}, id="a huge side"),
        pytest.param("batch", HUGE, {}, id="a huge batch"),
    ],
)
def test_an_entry_that_cannot_be_read_is_told_and_the_others_stand(
    name: str, entry: object, default: dict[str, Any]
) -> None:
    told = Metadata.parse(READABLE | {name: entry})
    assert replace(told, faults=()) == replace(READ, **default)
    [fault] = told.faults
    assert fault.startswith(f"{name} is ")
    assert len(fault) < 250


@given(st.dictionaries(st.sampled_from([*READABLE, "batch", "args", "end2end"]), ANYTHING))
def test_whatever_entries_hold_only_they_are_lost(entries: dict[str, object]) -> None:
    told = Metadata.parse(READABLE | entries)
    for field, name in {"names": "names", "image_size": "imgsz", "stride": "stride"}.items():
        if name not in entries:
            assert getattr(told, field) == getattr(READ, field)
    assert len(told.faults) <= len(entries)
    assert min(told.stride, told.batch, *told.image_size) >= 1


@pytest.mark.parametrize(
    ("name", "entry", "field", "value"),
    [
        ("names", "person, traffic light", "names", ("person", "traffic light")),
        ("names", "person\ncar\n", "names", ("person", "car")),
        ("names", "person", "names", ("person",)),
        ("names", '["person", null]', "names", ("person", "")),
        ("names", ("a ", " b"), "names", ("a", "b")),
        ("names", {0: 7, 1: "x"}, "names", ("7", "x")),
        ("names", "", "names", ()),
        ("version", "8.10", "version", "8.10"),
        ("version", 8.3, "version", "8.3"),
        ("imgsz", [320], "image_size", (320, 320)),
        ("imgsz", 320.0, "image_size", (320, 320)),
        ("imgsz", "(384, 640)", "image_size", (384, 640)),
        ("stride", "[8, 16, 32]", "stride", 32),
        ("stride", "32.0", "stride", 32),
        ("end2end", "true", "end_to_end", True),
        ("end2end", "False", "end_to_end", False),
        ("args", '{"nms": true, "batch": null}', "end_to_end", True),
    ],
)
def test_an_entry_is_read_however_it_was_written(
    name: str, entry: object, field: str, value: object
) -> None:
    told = Metadata.parse({name: entry})
    assert (getattr(told, field), told.faults) == (value, ())
