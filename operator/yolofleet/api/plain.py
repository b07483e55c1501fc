"""Words of others on a screen: what a pod says of itself goes into messages, and to terminals."""

import unicodedata
from typing import Final

_STEERS: Final = frozenset({"Cc", "Cf", "Cs"})
"""Unicode's general categories of control characters, of formats, and of halves of a character."""


def plain(text: str) -> str:
    """Return `text` on one line, without what steers a terminal or turns the line around."""
    line = " ".join(text.split())
    steers = {ord(c): None for c in set(line) if unicodedata.category(c) in _STEERS}
    return line.translate(steers)
