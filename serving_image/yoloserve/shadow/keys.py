"""By what revisions of one detector know each other."""

import hmac
import logging
import time
from collections.abc import Callable
from pathlib import Path

from yoloserve.live import Live
from yoloserve.rereading import Reread

log = logging.getLogger(__name__)

LEAST_KEY_LENGTH = 16
LOOK_AGAIN_S = 1.0


class KeyFile:
    """A key in a mounted file, read again when it changes; without a file there is none."""

    def __init__(
        self, file: Path | None, use: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Read it. use: what it opens, for the log."""
        self._use = use
        self._file = file and Reread(file, self._read, every_s=LOOK_AGAIN_S, clock=clock)

    def content(self) -> str:
        """Give the key; nothing, if there is none."""
        if not self._file:
            return ""
        self._file.look()
        return self._file.content

    def opens(self, shown: str) -> bool:
        """Say whether this is the key; the time taken tells nothing."""
        return same(self.content(), shown)

    def _read(self, file: Path) -> str:
        """Read a key; what is not there, or is none, lets nobody in."""
        try:
            key = file.read_text().strip()
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError):
            key = ""
        if len(key) < LEAST_KEY_LENGTH or not (key.isascii() and key.isprintable()):
            log.warning(
                f"the key of {self._use} is not taken",
                extra={"file": str(file), "reason": f"needs {LEAST_KEY_LENGTH} ASCII characters"},
            )
            return ""
        return key


class Keys:
    """The key of a mounted Secret; where access is open, the token of `live.json` in its place.

    The token is weaker: who can read the ConfigMap has it. Where keys are asked of callers it is
    not taken, or it would be a way past them.
    """

    def __init__(
        self,
        file: Path | None,
        live: Live,
        *,
        is_open: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._live = live
        self._is_open = is_open
        self._file = KeyFile(file, "the shadow", clock)

    def shown(self) -> str:
        """Give what is shown to another revision; nothing, if there is none."""
        return self._file.content() or self._token()

    def takes(self, shown: str) -> bool:
        """Say whether somebody who shows this is another revision; the time taken tells nothing."""
        by_key, by_token = same(self._file.content(), shown), same(self._token(), shown)
        return by_key or by_token

    def _token(self) -> str:
        order = self._live.shadow() if self._is_open else None
        return order.token.get_secret_value() if order and order.token else ""


def same(known: str, shown: str) -> bool:
    """Say whether a key is the one that is known; the time taken tells nothing."""
    return bool(known) and hmac.compare_digest(known.encode(), shown.encode())
