"""What a model file says about itself, in the words of the public YOLO exporters; pure.

Each entry is read by itself: one that nobody can read takes its default and is told, and the others
stand.
"""

import ast
import json
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from yoloserve.errors import ModelUnsupported

DEFAULT_IMAGE_SIZE = 640
DEFAULT_STRIDE = 32
LARGEST = 2**15  # side of an input, stride or batch; a larger one is a slip of the pen
DETECT = {"", "detect", "detection", "object-detection"}
LONGEST_SHOWN = 100  # characters of an entry: it comes from whoever made the file
# Looks only at so much: aliases in YAML make an entry of a few lines endless.
SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = LONGEST_SHOWN

T = TypeVar("T")


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
    faults: tuple[str, ...] = ()  # entries that could not be read, and why, for the log

    @classmethod
    def parse(cls, entries: Mapping[str, object]) -> "Metadata":
        """Read the entries; values are Python literals as text (ONNX) or JSON values (TorchScript).

        Raises `ModelUnsupported` for another task than detection.
        """
        read = _Reader(entries)
        task = read("task", _text, "detect")
        if task.lower() not in DETECT:
            raise ModelUnsupported(f"the model's task is {task!r}; this server serves 'detect'")
        arguments: Mapping[object, object] = read("args", _mapping, {})
        suppressed, batch = arguments.get("nms") is True, read("batch", _count, 1)
        end_to_end = read("end2end", _yes_or_no, None)
        return cls(
            names=read("names", _names, ()),
            image_size=read("imgsz", _image_size, (DEFAULT_IMAGE_SIZE, DEFAULT_IMAGE_SIZE)),
            stride=read("stride", _stride, DEFAULT_STRIDE),
            batch=batch,
            dynamic=arguments.get("dynamic") is True,
            version=read.as_it_is("version", _written, ""),
            end_to_end=True if suppressed else end_to_end,
            unrolled=batch if suppressed else None,
            faults=tuple(read.faults),
        )


class _Reader:
    """Reads one entry at a time, and keeps what was wrong."""

    def __init__(self, entries: Mapping[str, object]) -> None:
        self._entries = entries
        self.faults: list[str] = []

    def __call__(self, name: str, read: Callable[[object], T], default: T) -> T:
        """Return the entry as `read` understands it; the default where it is missing, or odd."""
        return self.as_it_is(name, lambda entry: read(_value(entry)), default)

    def as_it_is(self, name: str, read: Callable[[object], T], default: T) -> T:
        """Return it like that, but if it is text, as that: 8.10 is another version than 8.1."""
        if (entry := self._entries.get(name)) is None:
            return default
        try:
            return read(entry)
        except (ValueError, TypeError, OverflowError) as error:
            self.faults.append(f"{name} is {_short(entry)}: {str(error)[:LONGEST_SHOWN]}")
            return default


def _short(entry: object) -> str:
    try:
        return SHORT.repr(entry)[:LONGEST_SHOWN]
    except ValueError:  # Python writes no number of more than some thousand digits
        return "too long a number"


def _value(entry: object) -> object:
    """Read text as a literal or as JSON; what is neither stays text.

    Never `eval`: the text comes from whoever made the file.
    """
    if not isinstance(entry, str):
        return entry
    for read in (ast.literal_eval, json.loads):
        try:
            value: object = read(entry.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        return value
    return entry.strip()


def _text(value: object) -> str:
    if isinstance(value, str):
        return value.strip()
    raise ValueError("that is no text")


def _written(value: object) -> str:
    """Write a scalar; half a character (a lone surrogate) can be in no answer, so it is refused."""
    if isinstance(value, Mapping | list | tuple | set):
        raise ValueError("that is no text but several values")
    text = str(value).strip()
    text.encode()
    return text


def _mapping(value: object) -> Mapping[object, object]:
    if isinstance(value, Mapping):
        return value
    raise ValueError("that is no mapping")


def _yes_or_no(value: object) -> bool | None:
    words = {"true": True, "false": False}
    value = words.get(value.lower(), value) if isinstance(value, str) else value
    if value is None or isinstance(value, bool):
        return value
    raise ValueError("that is neither true nor false")


def _count(value: object) -> int:
    """Read a whole number of at least 1, also one that was written as a fraction (32.0)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise ValueError("that is no whole number")
    if not 1 <= value <= LARGEST:
        raise ValueError(f"that is not from 1 to {LARGEST}")
    return int(value)


def _stride(value: object) -> int:
    """Read one number, or the strides of all levels, of which the largest counts."""
    return max(map(_count, value)) if isinstance(value, list | tuple) else _count(value)


def _names(value: object) -> tuple[str, ...]:
    """Read `{0: 'person', …}`, `{"0": "person", …}`, a list, or names with commas or lines between.

    In the order of the index, without the blanks around them.
    """
    if isinstance(value, Mapping):
        value = _by_index(value)
    elif isinstance(value, str):
        if value.startswith(("{", "[", "(")):
            raise ValueError("that cannot be read as a mapping or a list")
        value = (value.splitlines() if "\n" in value else value.split(",")) if value else ()
    if not isinstance(value, list | tuple):
        raise ValueError(f"names are neither a mapping nor a list but {type(value).__name__}")
    return tuple("" if name is None else _written(name) for name in value)


def _by_index(names: Mapping[object, object]) -> list[object]:
    by_index = {int(str(index)): name for index, name in names.items()}
    if sorted(by_index) != list(range(len(names))):
        raise ValueError(f"class indices are not 0 to {len(names) - 1}")
    return [by_index[index] for index in range(len(by_index))]


def _image_size(value: object) -> tuple[int, int]:
    sides = value if isinstance(value, list | tuple) else (value,)
    if len(sides) not in (1, 2):
        raise ValueError("that is neither one side nor height and width")
    return _count(sides[0]), _count(sides[-1])
