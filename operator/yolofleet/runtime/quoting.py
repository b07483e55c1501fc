"""What users wrote, as messages quote it: cut, since there is no end to it.

One name stands in the path of each field below it, and there may be thousands of these: a message
for each, with a name of any length, would be memory without end.
"""

from typing import Final

LONGEST: Final = 64
"""Characters: one more than the longest name of a container, volume or label's value."""
_LONGEST_PATH: Final = 256
_BEGINNING: Final = len("spec.canary.podTemplate.spec.")


def cut(text: object) -> str:
    """Write a name of a user as paths of fields have it."""
    whole = str(text)
    return whole if len(whole) <= LONGEST else f"{whole[: LONGEST - 1]}…"


def below(path: str, step: str) -> str:
    """Write the path of what is at `step` below `path`: of a long one its two ends."""
    whole = path + step
    if len(whole) <= _LONGEST_PATH:
        return whole
    return f"{whole[:_BEGINNING]}…{whole[_BEGINNING + 1 - _LONGEST_PATH :]}"


def quoted(value: object) -> str:
    """Write a value of a user as Python would, and no more than its beginning."""
    return cut(repr(value[: LONGEST + 1] if isinstance(value, str) else value))
