"""What a model file says about itself, in the words of the public YOLO exporters; pure."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass

from yoloserve.errors import ModelUnsupported

DEFAULT_IMAGE_SIZE = 640
DEFAULT_STRIDE = 32


@dataclass(frozen=True, slots=True)
class Metadata:
    """The entries this server acts on; each has a default, since a file may carry none."""

    names: tuple[str, ...] = ()
    image_size: tuple[int, int] = (DEFAULT_IMAGE_SIZE, DEFAULT_IMAGE_SIZE)  # height, width
    stride: int = DEFAULT_STRIDE
    batch: int = 1
    dynamic: bool = False  # takes any size and batch; asked only where the file's shapes do not say
    version: str = ""
    end_to_end: bool | None = None  # suppression is done in the graph; none: not told
    # Images for which `nms=True` wrote the suppression out, one after another; none: any number.
    # The others of a larger batch would have no objects at all, and no error.
    unrolled: int | None = None

    @classmethod
    def parse(cls, entries: Mapping[str, object]) -> "Metadata":
        """Read the entries; values are Python literals as text (ONNX) or JSON values (TorchScript).

        Raises `ModelUnsupported` for another task than detection, and for entries nobody can read.
        """
        task = entries.get("task", "detect")
        if task != "detect":
            raise ModelUnsupported(f"the model's task is {task!r}; this server serves 'detect'")
        try:
            return cls(
                names=_names(_value(entries.get("names", {}))),
                image_size=_image_size(_value(entries.get("imgsz", DEFAULT_IMAGE_SIZE))),
                stride=int(str(_value(entries.get("stride", DEFAULT_STRIDE)))),
                batch=(batch := int(str(_value(entries.get("batch", 1))))),
                dynamic=_exported_with("dynamic", entries),
                version=str(entries.get("version", "")),
                end_to_end=_end_to_end(entries),
                unrolled=batch if _exported_with("nms", entries) else None,
            )
        except (ValueError, TypeError, SyntaxError) as error:
            raise ModelUnsupported(f"the model's metadata cannot be read: {error}") from error


def _value(entry: object) -> object:
    """Read text as a literal. Never `eval`: the text comes from whoever made the file."""
    return ast.literal_eval(entry) if isinstance(entry, str) else entry


def _names(value: object) -> tuple[str, ...]:
    """Read `{0: 'person', …}`, `{"0": "person", …}` or a plain list, in the order of the index."""
    if isinstance(value, Mapping):
        by_index = {int(index): str(name) for index, name in value.items()}
        if sorted(by_index) != list(range(len(by_index))):
            raise ValueError(f"class indices are not 0 to {len(by_index) - 1}")
        return tuple(by_index[index] for index in range(len(by_index)))
    if isinstance(value, list | tuple):
        return tuple(map(str, value))
    raise ValueError(f"names are neither a mapping nor a list but {type(value).__name__}")


def _exported_with(argument: str, entries: Mapping[str, object]) -> bool:
    """Look among the arguments of the export, which the exporters write down as well."""
    arguments = _value(entries.get("args", {}))
    return isinstance(arguments, Mapping) and arguments.get(argument) is True


def _end_to_end(entries: Mapping[str, object]) -> bool | None:
    """Read `end2end`, or that suppression was exported into the graph (`nms` of the arguments)."""
    if _exported_with("nms", entries):
        return True
    told = _value(entries.get("end2end"))
    return told if isinstance(told, bool) else None


def _image_size(value: object) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    if isinstance(value, list | tuple) and len(value) == 2:
        return int(value[0]), int(value[1])
    raise ValueError(f"imgsz is {value!r}")
