"""What exporters write into models."""

import pytest

from yoloserve.errors import ModelUnsupported
from yoloserve.metadata import Metadata


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


@pytest.mark.parametrize(
    "entries",
    [
        {"task": "segment"},
        {"names": "{0: 'a', 2: 'c'}"},
        {"names": "17"},
        {"names": "{0: open('/etc/passwd')}"},
        {"names": "{0: "},
        {"imgsz": "[1, 2, 3]"},
        {"stride": "thirty-two"},
    ],
)
def test_what_cannot_be_served_or_read_is_refused(entries: dict[str, object]) -> None:
    with pytest.raises(ModelUnsupported):
        Metadata.parse(entries)
