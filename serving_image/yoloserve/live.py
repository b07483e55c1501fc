"""What may change while the server runs: `live.json` in a mounted folder, and nothing else."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from yoloserve.rereading import Reread

log = logging.getLogger(__name__)

FILE = "live.json"
LOOK_AGAIN_S = 2.0
MOST_BYTES = 65_536


class ShadowOrder(BaseModel):
    """To show another revision what this one is asked."""

    model_config = ConfigDict(frozen=True)  # what a later operator adds is passed over

    revision: str = Field(max_length=63)
    percent: float = Field(ge=0, le=100, allow_inf_nan=False)
    max_per_second: float = Field(ge=0, le=1e6, allow_inf_nan=False)
    until: AwareDatetime
    keep_frames: bool = False
    token: SecretStr | None = Field(None, min_length=16, max_length=256)


class LiveSettings(BaseModel):
    """All of the file."""

    model_config = ConfigDict(frozen=True)

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    shadow: ShadowOrder | None = None


class Live:
    """What the file says now. Without one: nothing; of a broken one: what the last whole one said.

    Nothing that is in it ever stops the server or fails its start.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.settings = LiveSettings()
        self._wall = wall
        self._file = folder and Reread(folder / FILE, self._read, every_s=LOOK_AGAIN_S, clock=clock)
        self._keep()

    def look(self) -> bool:
        """Read it again if it is another; say whether it says something else now."""
        before = self.settings
        if self._file and self._file.look():
            self._keep()
        return self.settings != before

    def shadow(self) -> ShadowOrder | None:
        """Give what is to be done for another revision, unless the time for it is over."""
        order = self.settings.shadow
        return order if order and self._wall() < order.until.timestamp() else None

    def _keep(self) -> None:
        if self._file:
            self.settings = self._file.content

    def _read(self, file: Path) -> LiveSettings:
        try:
            with file.open("rb") as opened:
                content = opened.read(MOST_BYTES + 1)
            if len(content) <= MOST_BYTES:
                return LiveSettings.model_validate_json(content)
            reason = f"it is longer than {MOST_BYTES} bytes"
        except FileNotFoundError:
            return LiveSettings()
        except OSError as error:
            reason = str(error.strerror)
        except ValidationError as error:  # never with what was read: there may be a token in it
            faults = error.errors(include_input=False, include_url=False, include_context=False)
            reason = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in faults)
        log.warning("live.json not read: what it said before stands", extra={"reason": reason})
        return self.settings
